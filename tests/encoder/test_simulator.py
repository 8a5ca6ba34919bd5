"""The virtual microscope: its truth repeats, its noise never does, and the noise is Poisson about the truth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_protocol.errors import InputError
from framefold_simulator import Movie, MovieSpec

LOOP = 60
MOVIE = Movie(MovieSpec(shape=(45, 67), seed=3, loop=LOOP))


def still(dose: float) -> Movie:
    return Movie(MovieSpec(shape=(40, 48), dose=dose, seed=11, loop=3, speed=0.0))


def test_same_spec_same_bytes() -> None:
    again = Movie(MOVIE.spec)
    assert np.array_equal(MOVIE.counts(0, 5), again.counts(0, 5))
    assert np.array_equal(MOVIE.clean(0, 5), again.clean(0, 5))


def test_seeds_differ_in_scene_and_noise() -> None:
    other = Movie(MovieSpec(shape=(45, 67), seed=4, loop=LOOP))
    assert not np.array_equal(MOVIE.clean(0, 1), other.clean(0, 1))
    noise, other_noise = (m.counts(0, 20) - m.clean(0, 20) for m in (MOVIE, other))
    assert abs(np.corrcoef(noise.ravel(), other_noise.ravel())[0, 1]) < 5.0 / np.sqrt(noise.size)


@given(start=st.integers(0, 10**12), pieces=st.lists(st.integers(0, 9), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_same_frames(start: int, pieces: list[int]) -> None:
    whole = MOVIE.counts(start, start + sum(pieces))
    cuts = list(itertools.pairwise(itertools.accumulate([start, *pieces])))
    parts = [MOVIE.counts(a, b) for a, b in cuts]
    assert np.array_equal(np.concatenate(parts), whole)
    truths = [MOVIE.clean(a, b) for a, b in cuts]
    assert np.array_equal(np.concatenate(truths), MOVIE.clean(start, start + sum(pieces)))


def test_counts_into_fills_the_callers_buffer() -> None:
    ring = np.zeros((6, *MOVIE.spec.shape), dtype=MOVIE.dtype)
    MOVIE.counts_into(100, ring[2:5])
    assert np.array_equal(ring[2:5], MOVIE.counts(100, 103))
    assert not ring[:2].any()
    assert not ring[5].any()


@pytest.mark.parametrize("dose", [0.5, 20.0, 200.0, 20000.0])
def test_counts_are_poisson_about_the_truth(dose: float) -> None:
    movie, frames = still(dose), 1500
    truth = movie.clean(0, 1)[0].astype(np.float64)
    counts = movie.counts(0, frames).astype(np.float64)
    z = (counts.mean(axis=0) - truth) / np.sqrt(truth / frames)
    assert np.mean(z**2) == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / z.size))
    assert abs(z.mean()) < 5.0 / np.sqrt(z.size)
    fano = np.mean((counts - truth) ** 2 / truth)
    assert fano == pytest.approx(1.0, abs=5.0 * np.sqrt((2.0 + 1.0 / dose) / counts.size))
    skewness = np.mean((counts - truth) ** 3 / truth)
    assert skewness == pytest.approx(1.0, abs=5.0 * np.sqrt(15.0 * np.mean(truth + 7.0) / counts.size))


def test_histogram_of_one_level_is_poisson() -> None:
    movie, frames = still(3.0), 2000
    truth = movie.clean(0, 1)[0]
    levels, pixels = np.unique(truth, return_counts=True)
    mean = float(levels[pixels.argmax()])
    drawn = movie.counts(0, frames)[:, truth == mean]
    observed = np.bincount(drawn.ravel(), minlength=40)
    expected = drawn.size * np.exp(-mean) * np.cumprod([1.0, *(mean / np.arange(1, len(observed)))])
    common = expected > 10.0
    chi2 = np.sum((observed - expected)[common] ** 2 / expected[common])
    assert chi2 < common.sum() + 5.0 * np.sqrt(2.0 * common.sum())


@pytest.mark.parametrize(("axis", "lag"), [(0, 1), (0, 3), (1, 1), (2, 1), (2, 2)])
def test_noise_of_neighbours_is_independent(axis: int, lag: int) -> None:
    movie = still(20.0)
    noise = movie.counts(0, 500) - movie.clean(0, 500)
    one = np.take(noise, range(lag, noise.shape[axis]), axis)
    other = np.take(noise, range(noise.shape[axis] - lag), axis)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5.0 / np.sqrt(one.size)


def test_truth_repeats_and_noise_does_not() -> None:
    assert np.array_equal(MOVIE.clean(5, 9), MOVIE.clean(5 + 7 * LOOP, 9 + 7 * LOOP))
    first, later = (MOVIE.counts(s, s + LOOP) - MOVIE.clean(s, s + LOOP) for s in (0, LOOP))
    assert abs(np.corrcoef(first.ravel(), later.ravel())[0, 1]) < 5.0 / np.sqrt(first.size)


@given(
    shape=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    dose=st.floats(0.01, 3e4),
    seed=st.integers(0, 2**64 - 1),
    loop=st.integers(1, 30),
    speed=st.floats(0.0, 5.0),
)
@settings(max_examples=40, deadline=None)
def test_any_good_spec_has_its_dose_and_bounded_truth(
    shape: tuple[int, int], dose: float, seed: int, loop: int, speed: float
) -> None:
    movie = Movie(MovieSpec(shape, dose, seed, loop, speed))
    truth, counts = movie.clean(0, loop), movie.counts(0, 2)
    assert truth.dtype == np.float32
    assert truth.shape == (loop, *shape)
    assert counts.dtype == movie.dtype
    assert counts.shape == (2, *shape)
    assert truth.mean(dtype=np.float64) == pytest.approx(dose, rel=0.01)
    assert truth.min() >= 0.05 * dose
    assert truth.max() <= 2.0 * dose * (1.0 + 1e-6)


def test_truth_stays_positive_where_particles_pile_up() -> None:
    """A tiny field whose one particle overlaps its own periodic image: dark enough to meet the floor."""
    movie = Movie(MovieSpec(shape=(16, 16), seed=511, loop=8, speed=15.0))
    truth = movie.clean(0, 8)
    assert 0.05 * movie.spec.dose <= truth.min() < 0.06 * movie.spec.dose


def test_loop_closes_seamlessly() -> None:
    movie = Movie(MovieSpec(shape=(128, 128), seed=2, loop=80))
    steps = np.abs(np.diff(movie.clean(0, 81), axis=0)).mean(axis=(1, 2))
    assert steps.min() > 0.0
    assert steps[-1] < 1.5 * np.median(steps)


def test_speed_scales_the_motion() -> None:
    def change(speed: float) -> float:
        truth = Movie(MovieSpec(shape=(128, 128), seed=2, loop=240, speed=speed)).clean(0, 40)
        return float(np.abs(np.diff(truth, axis=0)).mean())

    assert change(0.0) == 0.0
    assert 0.0 < change(0.25) < change(1.0) < change(4.0)


def test_averaging_blurs_what_moves_and_keeps_what_does_not() -> None:
    """Contrast of 16 px blocks that survives the mean of 20 frames: little in the fastest lattice, all of it elsewhere."""
    truth = Movie(MovieSpec(shape=(512, 512), seed=3, loop=240)).clean(0, 20)
    single, averaged = (a.reshape(32, 16, 32, 16).std(axis=(1, 3)) for a in (truth[10], truth.mean(axis=0)))
    kept = averaged / single
    assert kept.min() < 0.7
    assert np.median(kept) > 0.95


def test_large_field_repeats_its_tile_under_noise_of_its_own() -> None:
    movie = Movie(MovieSpec(shape=(16, 1101), loop=2))
    truth, counts = movie.clean(0, 1), movie.counts(0, 1)
    assert np.array_equal(truth[:, :, 1024:], truth[:, :, :77])
    assert not np.array_equal(counts[:, :, 1024:], counts[:, :, :77])
    assert np.mean((counts - truth) ** 2 / truth) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("dose", "dtype"), [(20.0, np.uint8), (70.0, np.uint8), (100.0, np.uint16), (30000.0, np.uint16)])
def test_dtype_leaves_room_for_the_brightest_pixel(dose: float, dtype: type[np.unsignedinteger]) -> None:
    movie = still(dose)
    assert movie.dtype == dtype
    headroom = np.iinfo(dtype).max - 2.0 * dose
    assert headroom > 6.0 * np.sqrt(2.0 * dose)
    assert movie.counts(0, 100).max() < np.iinfo(dtype).max


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (15, 64)},
        {"shape": (64, 0)},
        {"shape": (64,)},
        {"dose": 0.0},
        {"dose": -1.0},
        {"dose": float("nan")},
        {"dose": 1e6},
        {"loop": 0},
        {"loop": 10**6},
        {"speed": -1.0},
        {"speed": float("inf")},
        {"seed": -1},
    ],
)
def test_bad_spec_names_the_field_and_the_value(wrong: dict[str, Any]) -> None:
    [(field, value)] = wrong.items()
    with pytest.raises(InputError, match=rf"{field} is .*expected") as caught:
        MovieSpec(**wrong)
    assert str(value) in str(caught.value)


def test_bad_ranges_and_buffers_are_refused() -> None:
    height, width = MOVIE.spec.shape
    with pytest.raises(InputError, match="range"):
        MOVIE.clean(5, 4)
    with pytest.raises(InputError, match="range"):
        MOVIE.counts(-1, 4)
    buffers: list[Any] = [
        np.zeros((2, height, width), np.int32),
        np.zeros((2, width, height), MOVIE.dtype),
        np.zeros((height, width), MOVIE.dtype),
        np.zeros((2, height, 2 * width), MOVIE.dtype)[:, :, ::2],
    ]
    for buffer in buffers:
        with pytest.raises(InputError, match="buffer"):
            MOVIE.counts_into(0, buffer)
