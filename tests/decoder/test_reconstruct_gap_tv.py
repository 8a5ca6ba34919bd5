"""GAP-TV: near the truth, better than averaging where things move, indifferent to units, offsets and tiles, never broken."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_decoder.quality import misfit, psnr
from framefold_decoder.reconstruct.averaging import plain_mean
from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.noise import NoiseModel
from recordings import evaluation_file

NOISELESS = NoiseModel(counts_per_electron=0.0)


def unfold(group: FoldedGroup, noise: NoiseModel = NOISELESS, **options) -> np.ndarray:
    return GapTv(**options).reconstruct(group, [], [], noise)


@pytest.mark.recordings
@pytest.mark.parametrize(("clip", "least_db"), [("pnpsci_runner", 29.4), ("pnpsci_drop", 34.0), ("traffic_cacti", 20.4)])
def test_reaches_the_published_range_on_the_public_clips(clip, least_db):
    """Published for GAP-TV: Runner 28.5 to 30.1, Drop 33.8 to 34.5, Traffic 20.7 to 20.9 dB, mean over frames."""
    from scipy.io import loadmat

    path = evaluation_file(f"sci/{clip}.mat")
    truth = loadmat(path)["orig"].transpose(2, 0, 1)[:8]
    masks = Coding((derive_masks(MaskSpec("file", 8, file=path.name), truth.shape[1:], path.parent),))
    frames = unfold(fold(truth, masks))
    assert np.mean([psnr(frame, clean, 255.0) for frame, clean in zip(frames, truth, strict=True)]) >= least_db


def test_follows_motion_that_the_mean_blurs():
    truth = np.rint(moving_movie(16, (96, 96), 100.0))
    group = fold(truth, coding((96, 96), MaskSpec(ratio=16)))
    blurred = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert psnr(unfold(group), truth, truth.max()) > psnr(blurred, truth, truth.max()) + 4
    assert psnr(unfold(group, NoiseModel()), truth, truth.max()) > psnr(blurred, truth, truth.max()) + 1


@pytest.mark.parametrize("dose", [5.0, 20.0, 100.0])
def test_removes_shot_noise(dose):
    truth = moving_movie(12, (96, 96), dose)
    group = fold(np.random.default_rng(1).poisson(truth), coding((96, 96), MaskSpec(ratio=12)))
    plain = np.broadcast_to(plain_mean(group.snapshot, group.exposure()), truth.shape)
    frames = unfold(group, NoiseModel())
    assert psnr(frames, truth, truth.max()) > psnr(plain, truth, truth.max()) + 3
    assert 0.3 < misfit(group, frames, NoiseModel()) < 1.3


def test_averages_where_nothing_moves():
    truth = np.repeat(moving_movie(1, (96, 96)), 12, axis=0)
    group = fold(np.random.default_rng(1).poisson(truth), coding((96, 96), MaskSpec(ratio=12)))
    frames = unfold(group, NoiseModel())
    plain = np.broadcast_to(plain_mean(group.snapshot, group.exposure()), truth.shape)
    assert psnr(frames, truth, truth.max()) > psnr(plain, truth, truth.max()) + 3


def test_without_noise_frames_explain_the_snapshot_exactly():
    truth = np.rint(moving_movie(8, (64, 80)))
    group = fold(truth, coding((64, 80), MaskSpec(ratio=8)))
    explained = np.sum(group.coding.window() * unfold(group), axis=0)
    np.testing.assert_allclose(explained, group.snapshot, atol=0.5)


def test_a_still_uniform_scene_comes_back_exactly_for_every_kind_of_mask():
    specs = MaskSpec(ratio=6), MaskSpec("random", 6, 0.3), MaskSpec("one-hot", 6), MaskSpec("ones", 6)
    group = fold(np.full((6, 150, 140), 7), coding((150, 140), *specs))
    np.testing.assert_allclose(unfold(group, NoiseModel()), 7, rtol=1e-4)


def test_seams_between_tiles_do_not_show():
    """A movie that repeats every 64 pixels, as the masks do: part of it, alone in one tile, is unfolded as within two tiles."""
    counts = np.random.default_rng(2).poisson(moving_movie(8, (64, 64)))
    whole = unfold(fold(np.tile(counts, (1, 5, 2)), coding((320, 128), MaskSpec(ratio=8))), NoiseModel())
    part = unfold(fold(np.tile(counts, (1, 3, 2)), coding((192, 128), MaskSpec(ratio=8))), NoiseModel())
    np.testing.assert_allclose(whole[:, 64:256][:, 24:-24], part[:, 24:-24], atol=0.2)


def test_the_number_of_threads_changes_nothing():
    group = fold(moving_movie(4, (150, 150)), coding((150, 150), MaskSpec(ratio=4)))
    np.testing.assert_array_equal(unfold(group, threads=1), unfold(group, threads=2))


def test_gain_and_offset_are_units():
    counts = np.random.default_rng(3).poisson(moving_movie(6, (40, 50)))
    masks = coding((40, 50), MaskSpec(ratio=6))
    frames = unfold(fold(counts, masks), NoiseModel())
    scaled = unfold(fold(counts * 3 + 10, masks), NoiseModel(counts_per_electron=3.0, offset_counts=10.0))
    np.testing.assert_allclose(scaled, frames * 3 + 10, rtol=1e-3)


def test_read_noise_smooths_as_shot_noise_does():
    counts = np.random.default_rng(4).poisson(moving_movie(6, (40, 50)))
    group = fold(counts, coding((40, 50), MaskSpec(ratio=6)))
    rough, smooth = (unfold(group, NoiseModel(0.0, read_noise_counts=noise)) for noise in (0.5, 20.0))
    assert np.abs(np.diff(smooth, axis=2)).mean() < 0.5 * np.abs(np.diff(rough, axis=2)).mean()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    spec=st.builds(MaskSpec, st.sampled_from(["balanced", "random", "one-hot", "ones"]), st.integers(1, 9), st.just(0.1)),
    value=st.sampled_from([0, 1, 255, 65535]),
    noise=st.sampled_from([NOISELESS, NoiseModel(), NoiseModel(2.0, 100.0, 5.0)]),
)
def test_any_size_mask_and_extreme_gives_finite_counts(shape, spec, value, noise):
    frames = unfold(fold(np.full((spec.ratio, *shape), value), coding(shape, spec)), noise)
    assert frames.shape == (spec.ratio, *shape)
    assert frames.dtype == np.float32
    assert np.isfinite(frames).all()
    assert (frames >= 0).all()
    assert (frames <= 1.01 * value + 1e-3).all() or noise.offset_counts


def test_group_and_noise_are_checked():
    masks = coding((8, 9), MaskSpec(ratio=4))
    with pytest.raises(InputError, match=r"uint16 \(9, 8\).*\(8, 9\)"):
        FoldedGroup(np.zeros((9, 8), np.uint16), masks)
    with pytest.raises(InputError, match="float32"):
        FoldedGroup(np.zeros((8, 9), np.float32), masks)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="read_noise_counts is -1"):
        NoiseModel(read_noise_counts=-1.0)
