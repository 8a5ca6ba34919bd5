"""Every net that ships: no seams, no NaN whatever the detector does, and a chi2 that rises where it cannot know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from folded_examples import coding, fold

from framefold_decoder.decoding import trust
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_decoder.reconstruct.registry import PACKAGED
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import REACH, SNAPSHOTS, ModelCard
from framefold_protocol.noise import NoiseModel
from framefold_simulator.movie import Movie, MovieSpec

CARDS = [ModelCard.read(path.with_suffix(".json")) for path in sorted(PACKAGED.glob("*.onnx"))]
NOISE = NoiseModel()


@pytest.fixture(scope="module", params=CARDS, ids=lambda card: card.name)
def card(request):
    return request.param


@pytest.fixture(scope="module")
def net(card):
    return OnnxNet(PACKAGED / f"{card.name}.onnx", card, "cpu")


def ratio_of(card):
    return 20 if min(card.ratios) <= 20 <= max(card.ratios) else card.ratios[0]


def simulated(card, shape=(128, 192), dose=20.0):
    """A group of the virtual microscope, those before it and those after it."""
    ratio = ratio_of(card)
    counts = Movie(MovieSpec(shape, dose, seed=3, loop=SNAPSHOTS * ratio)).counts(0, SNAPSHOTS * ratio)
    return in_a_row([fold(part, coding(shape, MaskSpec(ratio=ratio))) for part in np.split(counts, SNAPSHOTS)])


def in_a_row(groups):
    """The one in the middle, those before it and those after it."""
    return groups[REACH], groups[:REACH][::-1], groups[REACH + 1 :]


def test_tiles_do_not_show(card, net):
    group, before, after = simulated(card, (384, 448))
    whole = net.reconstruct(group, before, after, NOISE)
    tiled = OnnxNet(PACKAGED / f"{card.name}.onnx", card, "cpu", tile_side=64).reconstruct(group, before, after, NOISE)
    assert np.abs(tiled - whole).max() < 1e-3 * whole.max()


def test_dead_saturated_and_empty_frames_give_finite_counts(card, net):
    ratio, shape = ratio_of(card), (64, 128)
    masks = coding(shape, MaskSpec(ratio=ratio))
    healthy = np.random.default_rng(0).poisson(20, (ratio, *shape))
    dead, hot = healthy.copy(), healthy.copy()
    dead[:, :, 40:44], dead[:, 10] = 0, 0
    hot[:, 30, 50], hot[:, 50:60, 100:110] = 65535, 65535
    empty, saturated = np.zeros_like(healthy), np.full_like(healthy, 65535)
    blank = healthy.copy()
    blank[: ratio // 2] = 0
    groups = [fold(counts, masks) for counts in (healthy, dead, hot, empty, saturated, blank)]
    for group in groups:
        for beside in ([], groups[:1], groups[3:5], groups[4:2:-1]):
            frames = net.reconstruct(group, beside, beside, NOISE)
            assert np.isfinite(frames).all()
            assert (frames >= 0).all()


def test_block_maps_of_all_its_families_and_the_bounds_of_its_ratios_are_taken(card, net):
    for ratio in {min(card.ratios), max(card.ratios)}:
        specs = [MaskSpec("ones" if density == 1 else "balanced", ratio, density) for density in card.densities]
        masks = coding((128, 192), *specs)
        counts = np.random.default_rng(0).poisson(20, (ratio, 128, 192))
        frames = net.reconstruct(fold(counts, masks), [], [], NOISE)
        assert frames.shape == counts.shape
        assert frames.mean() == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("name", ["packaged", "gap-tv"])
def test_bins_of_the_coder_count_as_noise(card, net, name):
    reconstructor = net if name == "packaged" else GapTv()
    group, before, after = simulated(card)
    binned = replace(group, step_sigma=2.0)
    frames = reconstructor.reconstruct(binned, before, after, NOISE)
    assert np.array_equal(frames, reconstructor.reconstruct(group, before, after, NOISE.in_bins(2.0)))
    assert not np.array_equal(frames, reconstructor.reconstruct(group, before, after, NOISE))
    inner = binned.window(slice(0, 64), slice(0, 64))
    assert inner.step_sigma == 2.0


def test_chi2_rises_where_no_net_can_know(card, net):
    """Pixels by chance, unlike all training: the frames cannot be right, and chi2 says so."""
    group, before, after = simulated(card)
    known, _ = trust((group, before, after), net.reconstruct(group, before, after, NOISE), NOISE, net)
    rng, counts = np.random.default_rng(1), (SNAPSHOTS * ratio_of(card), *group.coding.shape)
    row = [fold(part, group.coding) for part in np.split(rng.poisson(rng.uniform(0, 40, counts)), SNAPSHOTS)]
    unknown, _ = trust(in_a_row(row), net.reconstruct(*in_a_row(row), NOISE), NOISE, net)
    assert 0.5 < known < 1.3
    assert unknown > 2 * known
