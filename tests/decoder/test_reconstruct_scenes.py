"""A neighbour of another scene is left out; one of the same scene never is, however noisy or fast."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie
from hypothesis import given
from hypothesis import strategies as st
from tiny_net import write_net

from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_decoder.reconstruct.scenes import of_one_scene
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

SHAPE = (96, 80)


def groups(movie, *ratios, seed=0, noise=None, density=0.25):
    """Consecutive groups of a movie of expected electrons, as a detector of this noise would count them."""
    rng, first, found = np.random.default_rng(seed), 0, []
    noise = noise or NoiseModel()
    for ratio in ratios:
        electrons = rng.poisson(movie[first : first + ratio])
        read = rng.normal(0, noise.read_noise_counts, electrons.shape) if noise.read_noise_counts else 0
        counts = np.rint(electrons * noise.counts_per_electron + noise.offset_counts + read).clip(0)
        found.append(fold(counts, coding(movie.shape[1:], MaskSpec(ratio=ratio, density=density))))
        first += ratio
    return found


def two_scenes(*lengths, level=20.0, frames_per_pixel=16):
    """A scene that moves 1 pixel in so many frames, and from a frame on its mirror image."""
    movie = moving_movie(-(-sum(lengths) // frames_per_pixel), SHAPE, level).repeat(frames_per_pixel, 0)[: sum(lengths)]
    return np.concatenate([movie[: lengths[0]], movie[lengths[0] :, ::-1, ::-1]])


@given(st.integers(6, 20), st.integers(6, 20), st.floats(30, 200), st.integers(0, 2**32))
def test_neighbours_beyond_a_change_of_scene_are_left_out(ratio, other, level, seed):
    a, b, c, d = groups(two_scenes(2 * ratio, 2 * other, level=level), ratio, ratio, other, other, seed=seed)
    assert of_one_scene((b, [a], [c]), NoiseModel()) == (b, [a], [])
    assert of_one_scene((c, [b], [d]), NoiseModel()) == (c, [], [d])


@given(st.lists(st.integers(4, 20), min_size=3, max_size=3), st.floats(5, 200), st.sampled_from([0.25, 1.0]))
def test_neighbours_of_one_scene_stay(ratios, level, density):
    a, b, c = groups(moving_movie(sum(ratios), SHAPE, level), *ratios, density=density)
    still = groups(np.repeat(moving_movie(1, SHAPE, level), sum(ratios), 0), *ratios, density=density)
    for three in ((b, [a], [c]), (still[1], still[:1], still[2:])):
        assert of_one_scene(three, NoiseModel()) == three


def test_a_detector_s_offset_and_gain_are_no_change_of_scene():
    noise = NoiseModel(3.0, 100.0, 5.0)
    a, b, c = groups(moving_movie(30, SHAPE), 6, 20, 4, noise=noise)
    assert of_one_scene((b, [a], [c]), noise) == (b, [a], [c])
    a, b, c = groups(two_scenes(26, 4), 6, 20, 4, noise=noise)
    assert of_one_scene((b, [a], [c]), noise) == (b, [a], [])


@given(st.integers(6, 20), st.integers(1, 3), st.floats(30, 200), st.integers(0, 2**32))
def test_everything_beyond_a_change_of_scene_is_left_out(ratio, first, level, seed):
    """Five groups in a row, the first one to three of one scene."""
    row = groups(two_scenes(first * ratio, (5 - first) * ratio, level=level), *[ratio] * 5, seed=seed)
    for k, group in enumerate(row):
        before, after = row[:k][::-1], row[k + 1 :]
        kept = of_one_scene((group, before, after), NoiseModel())
        assert kept == ((group, before, row[k + 1 : first]) if k < first else (group, row[first:k][::-1], after))


@given(st.integers(8, 20), st.integers(2, 18), st.floats(30, 200), st.integers(0, 2**32))
def test_a_group_in_which_the_scene_changes_is_no_neighbour(ratio, cut, level, seed):
    """Five groups in a row, the scene changes somewhere in the middle one. It differs from its neighbours by as little as half
    a scene, which is many times the scene's own motion only where that is slow."""
    cut = min(cut, ratio - 2)
    movie = two_scenes(2 * ratio + cut, 3 * ratio - cut, level=level, frames_per_pixel=32)
    a, b, c, d, e = groups(movie, *[ratio] * 5, seed=seed)
    assert d not in of_one_scene((b, [a], [c, d]), NoiseModel())[2]
    assert b not in of_one_scene((d, [c, b], [e]), NoiseModel())[1]


def test_without_both_neighbours_nothing_is_left_out():
    a, b = groups(two_scenes(8, 8), 8, 8)
    assert of_one_scene((b, [a], []), NoiseModel()) == (b, [a], [])
    assert of_one_scene((a, [], [b]), NoiseModel()) == (a, [], [b])


def test_a_pixel_that_nothing_exposed_tells_nothing():
    dark = [fold(np.zeros((4, *SHAPE)), coding(SHAPE, MaskSpec("random", 4, 0.01, seed=k))) for k in range(3)]
    assert of_one_scene((dark[1], dark[:1], dark[2:]), NoiseModel()) == (dark[1], dark[:1], dark[2:])


@pytest.mark.parametrize("part", [(slice(0, 64), slice(0, 64)), (slice(64, 96), slice(64, 80))])
def test_nets_get_the_group_itself_instead_and_parts_are_judged_as_the_whole(tmp_path, part):
    net = OnnxNet(tmp_path / "tiny.onnx", write_net(tmp_path), "cpu", 1)
    half = two_scenes(8, 4)
    half[8:, 64:] = half[:4, 64:]  # the part below goes on as it was
    a, b, c = groups(half, 4, 4, 4)
    frames = net.reconstruct(b, [a], [c], NoiseModel())
    np.testing.assert_array_equal(frames, net.reconstruct(b, [a], [], NoiseModel()))
    b, a, c = (one.window(*part) for one in (b, a, c))
    without = net.reconstruct(b, [a], [], NoiseModel())
    np.testing.assert_array_equal(net.reconstruct(b, [a], [c], NoiseModel()), without)
