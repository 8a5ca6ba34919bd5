"""Frames that are wrong in brightness as a whole are set right by their snapshot, and no others are touched."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold

from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.brightness import correct
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

RATIO = 20
NOISE = NoiseModel()
SWING = 1 + 0.1 * np.sin(np.arange(RATIO) / 3)
SWING /= SWING.mean()


def scene(shape, dose, seed=0):
    rng = np.random.default_rng(seed)
    image = np.kron(rng.uniform(0.5, 1.5, [-(-side // 8) for side in shape]), np.ones((8, 8)))[: shape[0], : shape[1]]
    return (dose * image).astype(np.float32)


def snapshot_of(movie, *specs, seed=1):
    return fold(np.random.default_rng(seed).poisson(movie), coding(movie.shape[1:], *specs or (MaskSpec(ratio=len(movie)),)))


@pytest.mark.parametrize("shape", [(100, 90), (192, 200), (520, 700)])
@pytest.mark.parametrize(
    "specs",
    [
        (MaskSpec(ratio=RATIO),),
        (MaskSpec("one-hot", RATIO),),
        (MaskSpec(ratio=RATIO), MaskSpec("ones", RATIO)),
        (MaskSpec(ratio=RATIO, period=0),),
    ],
    ids=["balanced", "one-hot", "block map", "no period"],
)
def test_frames_without_their_swing_get_it_back(shape, specs):
    steady = np.broadcast_to(scene(shape, 20.0), (RATIO, *shape))
    group = snapshot_of(steady * SWING[:, None, None], *specs)
    found = steady.copy()
    correct(group, found, NOISE)
    told = group.exposure() < RATIO  # still blocks of a map are left alone
    factors = found[:, told].mean(1) / steady[:, told].mean(1)
    assert np.abs(factors - SWING).mean() < 0.25 * np.abs(1 - SWING).mean()
    assert factors.mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dose", [1.0, 20.0, 200.0])
def test_frames_that_are_right_are_hardly_ever_touched(dose):
    touched = 0
    for seed in range(20):
        steady = np.broadcast_to(scene((130, 130), dose, seed), (RATIO, 130, 130))
        found = steady.copy()
        correct(snapshot_of(steady, seed=seed), found, NOISE)
        touched += not np.array_equal(found, steady)
    assert touched <= 5  # chance: 5 %


@pytest.mark.parametrize("period", [4, 16, 32, 48, 64, 128])
def test_a_texture_that_repeats_with_the_masks_is_not_taken_for_a_swing(period):
    """A reconstruction that misses a texture of the masks' period, everywhere alike."""
    touched = 0
    for seed in range(10):
        tile = np.random.default_rng(seed).uniform(0.8, 1.2, (period, period))
        texture = np.tile(tile, (-(-256 // period), -(-256 // period)))[:256, :256]
        flat = np.full((RATIO, 256, 256), 50, np.float32)
        found = flat.copy()
        correct(snapshot_of(flat * texture, MaskSpec(ratio=RATIO, period=period), seed=seed), found, NOISE)
        touched += not np.array_equal(found, flat)
    assert touched <= 3


def test_the_detectors_gain_and_offset_are_not_scaled():
    noise = NoiseModel(counts_per_electron=5.0, offset_counts=100.0, read_noise_counts=3.0)
    steady = np.broadcast_to(scene((192, 192), 20.0), (RATIO, 192, 192))
    electrons = np.random.default_rng(3).poisson(steady * SWING[:, None, None])
    group = fold(5 * electrons + 100, coding((192, 192), MaskSpec(ratio=RATIO)))
    found = 5 * steady + np.float32(100)
    correct(group, found, noise)
    factors = (found - 100).mean((1, 2)) / (5 * steady).mean((1, 2))
    assert np.abs(factors - SWING).mean() < 0.25 * np.abs(1 - SWING).mean()


def test_what_swings_in_a_part_of_a_large_frame_does_not_scale_the_rest():
    movie = np.broadcast_to(scene((1024, 1100), 20.0), (RATIO, 1024, 1100)).copy()
    steady = movie.copy()
    movie[:, :64] *= SWING[:, None, None].astype(np.float32) ** 3
    found = steady.copy()
    correct(snapshot_of(movie), found, NOISE)
    assert np.abs(found.mean((1, 2)) / steady.mean((1, 2)) - 1).max() < 0.01


def test_blocks_that_are_exposed_in_all_frames_are_left_alone():
    masks = coding((256, 256), MaskSpec(ratio=RATIO), MaskSpec("ones", RATIO))
    moving = np.kron(masks.block_map == 0, np.ones((64, 64), bool))
    steady = np.broadcast_to(scene((256, 256), 20.0), (RATIO, 256, 256))
    movie = np.where(moving, steady * SWING[:, None, None], steady)
    found = steady.copy()
    correct(fold(np.random.default_rng(2).poisson(movie), masks), found, NOISE)
    assert 0 < moving.mean() < 1
    assert np.array_equal(found[:, ~moving], steady[:, ~moving])
    assert ((found - movie) ** 2)[:, moving].mean() < 0.2 * ((steady - movie) ** 2)[:, moving].mean()


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["ones", "balanced"])
def test_few_frames_empty_ones_and_masks_that_hide_nothing(ratio, kind):
    for level in (0, 7):
        masks = coding((70, 90), MaskSpec(kind, ratio))
        group = FoldedGroup((masks.exposure() * level).astype(np.uint16), masks)
        frames = np.full((ratio, 70, 90), level, np.float32)
        correct(group, frames, NOISE)
        assert (frames == level).all()


def test_a_frame_is_at_most_half_as_bright_again():
    movie = np.full((RATIO, 128, 128), 10, np.float32)
    movie[3] = 200
    found = np.full_like(movie, movie.mean())
    correct(snapshot_of(movie), found, NOISE)
    assert found[3] == pytest.approx(1.5 * movie.mean())
    assert found.min() >= 0
