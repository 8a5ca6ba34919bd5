"""Nets: projections that explain the snapshot, answers that are never NaN, an export that answers as torch does, costs kept."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_examples import BIRNAT, CPU, NET, RATIO, SPEC, some_batch

from framefold_protocol.model import SNAPSHOTS, ModelCard
from framefold_training.checkpoint import State, write_checkpoint
from framefold_training.data import Batch
from framefold_training.dice import Dice
from framefold_training.evaluate import of_file, of_net
from framefold_training.export import export, kmac_per_frame_pixel
from framefold_training.loss import snapshot_error, visible_loss
from framefold_training.masks import MaskMix, draw
from framefold_training.projection import SMALLEST, analysed, back_projected, cosines, snapshot_of, synthesised
from framefold_training.tiers import TIERS, build, describe, recall

FAST_KMAC, FAST_FILE_BYTES = 8, 16 << 20
"""What the fast tier may cost."""


def busy(spec):
    """A net with weights far from their quiet start, so that every path of it counts."""
    torch.manual_seed(3)
    net = build(spec)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net.eval()


@pytest.fixture(scope="module", params=[NET, BIRNAT], ids=["unrolled", "birnat"])
def busy_net(request):
    return busy(request.param)


@pytest.mark.parametrize("ratio", [2, 5, 20])
def test_all_cosines_hold_any_movie(ratio):
    movie = torch.rand(2, ratio, 3, 4)
    basis = cosines(ratio, ratio + 2, movie)  # the two beyond B are zero
    assert torch.allclose(synthesised(analysed(movie, basis) / ratio, basis), movie, atol=1e-5)
    assert torch.allclose(basis @ basis.T / ratio, torch.diag((torch.arange(ratio + 2) < ratio).float()), atol=1e-5)


@pytest.mark.parametrize("modes", [3, 12])
def test_a_projection_explains_the_snapshot_with_the_least_change(modes):
    masks, _ = draw(MaskMix(), 2, 12, 16, Dice(CPU, 1))
    basis = cosines(12, modes, masks)
    codes = analysed(masks, basis)
    norm = (codes * codes).sum(1, keepdim=True).clamp(min=SMALLEST)
    start, snapshot = torch.randn(2, modes, 16, 16), torch.randn(2, 1, 16, 16)
    change = back_projected(snapshot - snapshot_of(start, codes), codes, norm)
    moved = start + change
    assert torch.allclose(snapshot_of(moved, codes), snapshot, atol=1e-3)
    movie = synthesised(moved, basis)
    assert torch.allclose((movie * masks).sum(1, keepdim=True), snapshot, atol=1e-3)
    sideways = torch.randn_like(change)  # any other change that explains it
    sideways -= back_projected(snapshot_of(sideways, codes), codes, norm)
    assert float((change * sideways).sum()) == pytest.approx(0, abs=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 5), columns=st.integers(2, 5), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    exposed=st.sampled_from([0.0, 0.1, 1.0]), noise=st.sampled_from([0.0, 1e-6, 0.2, 1e3, np.inf]), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_net_never_answers_nan(busy_net, rows, columns, scale, exposed, noise, seed):
    chance = torch.Generator().manual_seed(seed)
    masks = (torch.rand(1, RATIO, 8 * rows, 8 * columns, generator=chance) < exposed).float()
    exposures = masks.sum(1, keepdim=True).repeat(1, SNAPSHOTS, 1, 1)
    snapshots = scale * torch.rand(exposures.shape, generator=chance) * exposures
    frames = of_net(busy_net)(Batch(snapshots, exposures, masks, torch.tensor([noise]), torch.empty_like(masks)))
    assert frames.shape == masks.shape
    assert torch.isfinite(frames).all()


def test_a_net_sees_masks_neighbours_and_noise(busy_net):
    batch = some_batch()
    frames = of_net(busy_net)(batch)
    changes: list[dict[str, torch.Tensor]] = [{"masks": batch.masks.flip(1)}, {"noise": 4 * batch.noise}]
    for k in range(SNAPSHOTS):
        neighbours = batch.snapshots.clone()
        neighbours[:, k] += 1
        changes.append({"snapshots": neighbours})
    for change in changes:
        assert not torch.allclose(frames, of_net(busy_net)(replace(batch, **change)), atol=1e-4)


@pytest.fixture(scope="module", params=[NET, BIRNAT], ids=["unrolled", "birnat"])
def exported(request, tmp_path_factory):
    """An exported net of random weights, and the same in torch."""
    folder, net = tmp_path_factory.mktemp("export"), busy(request.param)
    progress = {"step": 1, "minutes": 0.0, "spec": replace(SPEC, net=request.param).described()}
    write_checkpoint(folder, State(progress, net.state_dict()))
    export(folder, folder / "models" / "small", scored=False)
    return folder / "models" / "small.onnx", net


@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (3, 32, 24), (2, 56, 104)])
def test_onnx_answers_as_torch_at_any_size(exported, count, height, width):
    path, net = exported
    for ratio in ModelCard.read(path.with_suffix(".json")).ratios:
        batch = resized(some_batch(ratio, count, step=height), (height, width))
        assert torch.allclose(of_file(path)(batch), of_net(net)(batch), atol=1e-4)


def resized(batch, shape):
    return Batch(*(torch.nn.functional.interpolate(one, shape) if one.ndim == 4 else one for one in batch.tensors))


def test_an_exported_net_does_not_tell_where_it_was_made(exported):
    path, _ = exported
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_the_card_fits_the_file(exported):
    path, net = exported
    card = ModelCard.read(path.with_suffix(".json"))
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card.name, card.multiple, card.halo) == ("small", 8, net.spec.halo)
    assert card.ratios == ((2, 4, 6) if net.spec == NET else (4,))
    assert card.mask_kinds == ("random", "balanced", "ones", "one-hot")
    assert card.parameters == sum(p.numel() for p in net.parameters())
    assert {"minutes", "steps", "git_revision", "data", "net", "versions"} <= card.training.keys()
    assert [one.name for one in sorted(path.parent.iterdir())] == ["small.json", "small.onnx"]  # no side files


def test_onnx_is_finite_where_nothing_was_exposed(exported):
    zeros, nothing = torch.zeros(1, SNAPSHOTS, 16, 16), torch.zeros(1, RATIO, 16, 16)
    assert torch.isfinite(of_file(exported[0])(Batch(zeros, zeros, nothing, torch.tensor([1000.0]), nothing))).all()


def test_cost_falls_with_the_ratio_and_the_fast_tier_keeps_to_it():
    net = build(TIERS["fast"])
    cost = kmac_per_frame_pixel(net, 20)
    assert cost < FAST_KMAC
    assert kmac_per_frame_pixel(net, 10) == pytest.approx(2 * cost)
    assert 4 * sum(p.numel() for p in net.parameters()) < FAST_FILE_BYTES


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_can_be_told_and_built_again(tier):
    spec = TIERS[tier]
    told = {name: list(one) if isinstance(one, tuple) else one for name, one in describe(spec).items()}  # as JSON has it
    assert recall(told) == spec


class Answering:
    """A net that has one answer."""

    def __init__(self, frames):
        self.frames = frames

    def estimates(self, *inputs):
        """The answer, twice."""
        return [self.frames, self.frames]


def test_of_two_equal_errors_the_one_that_shows_in_the_snapshot_costs_more():
    batch = some_batch(RATIO)
    assert float(visible_loss(Answering(batch.frames), batch)) < 1e-4
    noise = torch.sqrt(batch.noise[:, None, None] * (batch.masks * batch.frames).sum(1))
    seen = batch.masks / batch.masks.sum(1, keepdim=True).clamp(min=1) * noise[:, None]
    assert float(snapshot_error(batch.frames + seen, batch).min()) == pytest.approx(
        float((batch.masks.sum(1) > 0).float().mean((1, 2)).min()), rel=0.02
    )  # as large as the noise, where anything was exposed
    hidden = (1 - batch.masks) * torch.randn(batch.masks.shape, generator=torch.Generator().manual_seed(0))
    hidden *= (seen.square().mean((1, 2, 3)) / hidden.square().mean((1, 2, 3))).sqrt()[:, None, None, None]
    assert float(snapshot_error(batch.frames + hidden, batch).max()) == 0
    costs = [float(visible_loss(Answering(batch.frames + error), batch)) for error in (seen, hidden)]
    assert costs[0] > costs[1] + 0.1
