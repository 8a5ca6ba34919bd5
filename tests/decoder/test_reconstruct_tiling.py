"""Tiles cover frames once, windows hold their cores and keep to the grid, memory stays bounded."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_decoder.reconstruct.averaging import local_mean, plain_mean
from framefold_decoder.reconstruct.tiling import BAND_VOXELS, pad_to_multiple, row_bands, tiles

shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(deadline=None)
@given(shapes, st.integers(1, 64), st.integers(0, 20), st.sampled_from([1, 2, 4, 8]))
def test_tiles_cover_the_frame_once_in_windows_on_the_grid(shape, side, halo, multiple):
    frame, seen = np.arange(np.prod(shape)).reshape(shape), np.zeros(shape, int)
    for tile in tiles(shape, side, halo, multiple):
        seen[tile.core] += 1
        window = frame[tile.rows, tile.columns]
        np.testing.assert_array_equal(window[tile.inner], frame[tile.core])
        for part, inner, length in zip((tile.rows, tile.columns), tile.inner, shape, strict=True):
            assert part.start % multiple == 0
            assert part.start == 0 or inner.start >= halo
            assert part.stop == length or part.stop - part.start - inner.stop >= halo
            assert inner.stop - inner.start < side + multiple
    assert (seen == 1).all()


@given(shapes, st.sampled_from([1, 2, 4, 8]))
def test_padding_reaches_a_multiple_and_keeps_the_image(shape, multiple):
    image = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    padded = pad_to_multiple(image, multiple)
    assert all(length % multiple == 0 and length >= 2 * multiple for length in padded.shape[1:])
    np.testing.assert_array_equal(padded[:, : shape[0], : shape[1]], image)
    if padded.shape[1] > shape[0]:
        np.testing.assert_array_equal(padded[:, shape[0]], padded[:, shape[0] - 1])


@given(st.tuples(st.integers(1, 5000), st.integers(1, 70000)), st.integers(1, 256))
def test_row_bands_cover_all_rows_in_bounded_pieces(shape, ratio):
    bands = list(row_bands(shape, ratio))
    assert bands[0].start == 0
    assert bands[-1].stop == shape[0]
    assert all(one.stop == following.start for one, following in itertools.pairwise(bands))
    assert all(band.stop - band.start == 1 or (band.stop - band.start) * shape[1] * ratio <= BAND_VOXELS for band in bands)


def test_plain_mean_divides_by_exposure_and_fills_what_was_never_exposed():
    exposure = np.array([[1, 2, 0], [4, 1, 2]], np.uint16)
    mean = plain_mean((exposure * 6).astype(np.uint16), exposure)
    np.testing.assert_allclose(mean, 6, rtol=1e-6)
    assert (plain_mean(np.zeros((3, 3), np.uint16), np.zeros((3, 3), np.uint16)) == 0).all()


def test_local_mean_is_that_of_the_square_about_each_pixel():
    rng = np.random.default_rng(0)
    snapshot, exposure = rng.integers(0, 100, (17, 12)), rng.integers(0, 3, (17, 12))
    mean = local_mean(snapshot, exposure)
    for y, x in [(0, 0), (8, 6), (16, 11), (2, 11)]:
        square = slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3)
        np.testing.assert_allclose(mean[y, x], snapshot[square].sum() / exposure[square].sum(), rtol=1e-6)
