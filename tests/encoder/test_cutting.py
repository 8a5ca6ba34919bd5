"""Where a group is cut in two: at a jump of the scene, wherever it is, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold_encoder.cutting import cut, taken_apart

cut(np.zeros((4, 8, 8), np.uint16))  # compiled before hypothesis looks at the time
SHAPES = st.sampled_from([(192, 192), (256, 100), (160, 320)])
DOSES = st.floats(3, 200)
SEEDS = st.integers(0, 2**32)
RATIOS = st.integers(4, 32)


def scene(shape, seed, shift=0.0, contrast=0.6):
    """Waves of a lattice, mean 1, `shift` of a period along."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    y, x = np.indices(shape)
    return 1 + contrast * np.sin(0.7 * x + 0.3 * y + phase + 2 * np.pi * shift)


def places(ratio):
    """B, and the first frame of the other scene; of four or five noisy frames one alone cannot be told."""
    alone = 1 if ratio > 5 else 2
    return st.tuples(st.just(ratio), st.integers(alone, ratio - alone))


def counted(expected, dose, seed, dtype=np.uint16):
    return np.random.default_rng(seed).poisson(expected * dose).astype(dtype)


@given(RATIOS.flatmap(places), SHAPES, DOSES, SEEDS)
def test_a_jump_is_cut_where_it_is(place, shape, dose, seed):
    ratio, at = place
    movie = np.concatenate([np.repeat(scene(shape, seed, shift)[None], n, 0) for shift, n in ((0, at), (0.5, ratio - at))])
    assert cut(counted(movie, dose, seed)) == at


@given(RATIOS, SHAPES, DOSES, SEEDS)
def test_what_stands_still_is_one_scene(ratio, shape, dose, seed):
    assert cut(counted(np.repeat(scene(shape, seed)[None], ratio, 0), dose, seed)) == 0


@given(RATIOS, st.floats(0.05, 3), SHAPES, DOSES, SEEDS)
def test_what_drifts_steadily_is_one_scene(ratio, periods, shape, dose, seed):
    movie = np.stack([scene(shape, seed, periods * t / ratio) for t in range(ratio)])
    assert cut(counted(movie, dose, seed)) == 0


@given(st.floats(0.05, 50), st.integers(0, 500), SEEDS)
def test_gain_and_offset_need_not_be_known(gain, offset, seed):
    movie = np.concatenate([np.repeat(scene((128, 128), seed, shift)[None], 6, 0) for shift in (0, 0.5)])
    frames = np.rint(counted(movie, 40, seed) * gain + offset).astype(np.uint16)
    assert cut(frames) == 6
    assert cut(frames[:6]) == cut(frames[6:]) == 0


@given(st.integers(10, 16), DOSES, SEEDS)
def test_frames_that_come_twice_are_no_jumps(count, dose, seed):
    assert cut(counted(np.repeat(scene((256, 256), seed)[None], count, 0), dose, seed).repeat(2, 0)) == 0


def test_each_of_several_jumps_is_cut_and_what_moves_is_taken_apart():
    movie = np.concatenate([np.repeat(scene((128, 128), 1, shift)[None], 10, 0) for shift in (0, 0.5, 0.2)])
    frames = counted(movie, 40, 1)
    assert [len(part) for part in taken_apart(frames, lambda _: 0)] == [10, 10, 10]
    assert [len(part) for part in taken_apart(frames, lambda _: 4)] == [5] * 6
    assert [len(part) for part in taken_apart(frames, lambda _: 7)] == [10, 10, 10]
    assert np.array_equal(np.concatenate(list(taken_apart(frames, lambda _: 4))), frames)
    (whole,) = taken_apart(frames[:10], lambda _: 0)
    assert np.shares_memory(whole, frames)


@given(st.integers(8, 32), SEEDS)
def test_hits_blinking_pixels_and_one_small_thing_that_jumps_cut_nothing(ratio, seed):
    frames = counted(np.repeat(scene((256, 256), seed)[None], ratio, 0), 20, seed)
    rng = np.random.default_rng(seed)
    frames[ratio // 2 :, rng.integers(0, 256, 6), rng.integers(0, 256, 6)] += 500
    frames[rng.integers(0, ratio, 10), rng.integers(0, 256, 10), rng.integers(0, 256, 10)] = 60000
    frames[ratio // 3 :, 100:116] = counted(np.repeat(scene((16, 256), seed, 0.5)[None], ratio - ratio // 3, 0), 20, seed)
    assert cut(frames) == 0


@pytest.mark.parametrize("frames", [np.zeros((12, 64, 64), np.uint8), np.full((12, 3, 5), 255, np.uint8)])
def test_frames_without_change_are_one_scene(frames):
    assert cut(frames) == 0


def test_big_endian_frames_and_views_are_cut_alike():
    movie = np.concatenate([np.repeat(scene((128, 96), 0, shift)[None], n, 0) for shift, n in ((0, 5), (0.5, 9))])
    frames = counted(movie, 20, 0)
    wide = np.zeros((14, 128, 192), np.uint16)
    wide[:, :, ::2] = frames
    assert cut(frames) == cut(frames.astype(">u2")) == cut(wide[:, :, ::2]) == 5
