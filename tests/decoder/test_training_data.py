"""Batches are pure functions of seed and step, masks are their families', and samples are what the decoder feeds a net."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_examples import CPU, DATA, RATIO, same, some_movies

from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH, SNAPSHOTS, level, relative_noise
from framefold_protocol.noise import NoiseModel
from framefold_training.bins import binned
from framefold_training.data import DataSpec, fold, make_batch
from framefold_training.dice import Dice
from framefold_training.masks import Family, MaskMix, draw
from framefold_training.train import parse_ratios

BALANCED = Family("balanced", 0.25)


def test_a_batch_depends_on_seed_and_step_alone():
    movies = some_movies()
    for step in range(12):  # what came before leaves no trace
        walked = make_batch(DATA, movies, step)
    assert same(walked, make_batch(DATA, movies, 11))
    assert not same(walked, make_batch(replace(DATA, ratios=(walked.masks.shape[1],)), movies, 12))
    other = make_batch(replace(DATA, seed=1, ratios=(walked.masks.shape[1],)), movies, 11)
    assert not same(walked, other)


def test_the_first_ratios_come_most():
    spec = DataSpec(ratios=(2, 3, 4, *range(5, 9)), size=8, batch=1)
    movies = torch.full((1, 40, 8, 8), 0.5, dtype=torch.float16)
    count = Counter(make_batch(spec, movies, step).masks.shape[1] for step in range(400))
    assert set(count) == set(spec.ratios)
    assert 0.5 < count[2] / 400 < 0.75
    assert min(count[3], count[4]) > max(count[5], count[6], count[7], count[8])


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("read_noise", [0.0, 2.0])
@pytest.mark.parametrize("step", [None, 0.0, 2.0])
def test_a_sample_is_what_the_decoder_feeds(factor, read_noise, step):
    clip = np.random.default_rng(1).uniform(10, 30, (SNAPSHOTS * RATIO, 64, 64)).astype(np.float32)
    masks = derive_masks(MaskSpec(ratio=RATIO, density=0.5), (64, 64)).window().astype(np.float32)
    exposures = torch.from_numpy(masks.sum(0)).expand(1, SNAPSHOTS, -1, -1)
    inputs = torch.from_numpy(clip)[None], torch.from_numpy(masks)[None], exposures
    step_sigma = None if step is None else torch.tensor([step])
    sample = fold(*inputs, Dice(CPU, 2), torch.tensor([read_noise]), torch.tensor([factor]), step_sigma)
    counts_level = float(clip[REACH * RATIO : (REACH + 1) * RATIO].mean() / sample.frames.mean())
    assert counts_level == pytest.approx(20 * factor, rel=0.02)
    counts = sample.snapshots[0].numpy() * counts_level
    assert level(counts[REACH], masks.sum(0)) * factor == pytest.approx(counts_level, rel=1e-5)
    noise = NoiseModel(read_noise_counts=read_noise).in_bins(step or 0.0)
    assert float(sample.noise) == pytest.approx(relative_noise(counts_level, noise), rel=1e-5)
    assert np.allclose(sample.frames[0] * counts_level, clip[REACH * RATIO : (REACH + 1) * RATIO], rtol=1e-5)
    expected = (clip.reshape(SNAPSHOTS, RATIO, 64, 64) * masks).sum(1)
    variance = (expected + read_noise**2 * masks.sum(0)) * (1 + (step or 0.0) ** 2 / 12)
    assert np.mean((counts - expected) ** 2 / variance) == pytest.approx(1, abs=0.05)
    if not read_noise:
        assert np.allclose(counts, np.round(counts), atol=1e-2)


@pytest.mark.parametrize("read_noise", [0.0, 3.0])
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0, 2.5])
def test_bins_are_the_coders(step, read_noise):
    sums = np.arange(0, 3000, dtype=np.uint16)
    coder = VarianceStabilised(gain=1.0, read_noise=read_noise, step=step)
    expected = coder.restore(coder.quantise(sums), sums.dtype)
    told = torch.tensor([read_noise**2], dtype=torch.float64), torch.tensor([step], dtype=torch.float64)
    found = binned(torch.from_numpy(sums.astype(np.float64)).reshape(1, 1, 1, -1), *told).flatten().round().clamp(min=0)
    assert np.array_equal(found.numpy().astype(np.uint16), expected)


def test_sums_in_bins_of_no_width_are_left_alone():
    sums = torch.rand(1, SNAPSHOTS, 4, 4) * 100
    assert torch.equal(binned(sums, torch.zeros(1), torch.zeros(1)), sums)


def test_a_neighbour_folded_by_another_family_counts_its_own_exposure():
    clip = torch.full((1, SNAPSHOTS * RATIO, 16, 16), 100.0)
    masks = torch.zeros(1, RATIO, 16, 16)
    masks[:, 0] = 1
    exposures = torch.ones(1, SNAPSHOTS, 16, 16)
    exposures[:, REACH + 1, :8] = RATIO
    sample = fold(clip, masks, exposures, Dice(CPU, 0), torch.zeros(1), torch.ones(1))
    following = sample.snapshots[0, REACH + 1]
    assert float(following[:8].mean()) == pytest.approx(RATIO, rel=0.02)
    assert float(following[8:].mean()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    ("family", "ones"), [(BALANCED, 5), (Family("balanced", 0.5), 10), (Family("ones", 1.0), 20), (Family("one-hot", 0.25), 1)]
)
def test_a_balanced_family_exposes_every_pixel_equally(family, ones):
    masks, exposures = draw(MaskMix((family,), (1.0,), mixed=0.0, random=0.0), 2, 20, 48, Dice(CPU, 3))
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(masks.sum(1), exposures[:, REACH])
    assert torch.equal(exposures, torch.full_like(exposures, ones))
    share = masks.mean((2, 3))  # of every frame
    assert float((share - ones / 20).abs().max()) < 0.08
    if ones < 20:
        assert not torch.equal(masks[0], masks[1])


def test_random_masks_are_of_their_density_and_not_balanced():
    masks, exposures = draw(MaskMix(random=1.0), 4, 20, 48, Dice(CPU, 3))
    assert float(masks.mean()) == pytest.approx(0.25, abs=0.01)
    assert float(exposures.var()) == pytest.approx(20 * 0.25 * 0.75, rel=0.1)


def test_block_maps_mix_the_families_in_blocks_of_64():
    masks, exposures = draw(MaskMix(mixed=1.0, random=0.0), 24, 20, 96, Dice(CPU, 3))
    assert torch.equal(masks.sum(1), exposures[:, REACH])
    assert {1, 5, 10, 20} == set(exposures.unique().int().tolist())
    down = (exposures.diff(dim=2) != 0).any(3)  # between which rows the map changes
    assert (down.sum(2) <= 2).all()
    assert max(len(sample.unique()) for sample in exposures[:, REACH]) >= 2
    changed = (exposures[:, REACH - 1] != exposures[:, REACH]).flatten(1).any(1)
    assert 4 <= int(changed.sum()) <= 20  # some streams change their map from group to group, some keep it


def test_ratios_are_numbers_and_ranges_in_order():
    assert parse_ratios("20,2-4,3") == (20, 2, 3, 4)


@pytest.mark.parametrize("text", ["", "1", "33", "20,x", "5-2", "2-40"])
def test_ratios_that_cannot_be_folded_are_named(text):
    with pytest.raises(FramefoldError, match="numbers and ranges from 2 to 32"):
        parse_ratios(text)
