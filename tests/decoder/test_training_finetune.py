"""Fine-tuning learns from what the decoder stored: audit groups as they were, neighbours as they were folded, and no noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stream_examples import TWO_FAMILIES, Example, make_metadata
from training_examples import CPU, NET, SPEC

from framefold_decoder.store import StreamStore
from framefold_protocol.coding import Coding
from framefold_protocol.errors import FramefoldError, InputError, ModelError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH, ModelCard
from framefold_training.checkpoint import State, read_checkpoint, write_checkpoint
from framefold_training.dice import Dice
from framefold_training.export import export
from framefold_training.finetune import draw, finetune, hides, misfit, sample
from framefold_training.loss import hidden_loss
from framefold_training.recordings import AuditGroup, Recording, stream_store
from framefold_training.tiers import build

RATIO = 4


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stream of two families: three audit groups, the first two next to other snapshots, the last after a gap."""
    data = tmp_path_factory.mktemp("data")
    example = Example(make_metadata((40, 72), families=TWO_FAMILIES, audit=2, counts_per_electron=1.0))
    example.fold().fold(1, audited_in=1).fold().fold(1, audited_in=2).gap(3).fold(1, audited_in=1)
    store = StreamStore.create(data / "streams" / f"{example.metadata.stream_id}.zarr", example.metadata)
    for message in example.messages:
        store.put(message)
    return data, example


@pytest.fixture(scope="module")
def groups(stored):
    data, example = stored
    return Recording(stream_store(data, example.metadata.stream_id[:9])).audit_groups()


def test_audit_groups_are_read_as_they_were(stored, groups):
    _, example = stored
    assert [group.position for group in groups] == [2, 6, 9]
    for group in groups:
        assert np.array_equal(group.electrons, example.group(group.position))
        assert np.array_equal(group.coding.window(), example.codings[group.position].window())
    first, second, last = groups
    for beside, positions in ((first.before, (0,)), (first.after, (3, 6)), (second.before, (3, 2))):
        assert len(beside) == len(positions)
        for neighbour, position in zip(beside, positions, strict=True):
            folded = example.codings[position].window() * example.group(position)
            assert np.array_equal(neighbour.electrons, folded.sum(0))
            assert np.array_equal(neighbour.coding.window(), example.codings[position].window())
    assert second.after == last.before == ()


def test_groups_of_every_length_are_read_and_learned_from(tmp_path, base):
    example = Example(make_metadata((40, 72), families=TWO_FAMILIES, audit=2, counts_per_electron=1.0))
    example.fold(1, audited_in=1).fold(1, audited_in=2, ratio=3).fold(1, audited_in=1, ratio=2).fold(1, audited_in=1, ratio=3)
    store = StreamStore.create(tmp_path / "streams" / "varied.zarr", example.metadata)
    for message in example.messages:
        store.put(message)
    groups = Recording(tmp_path / "streams" / "varied.zarr").audit_groups()
    assert [group.coding.ratio for group in groups] == [4, 3, 2, 3]
    for group in groups:
        assert np.array_equal(group.electrons, example.group(group.position))
        assert np.array_equal(group.coding.window(), example.codings[group.position].window())
    assert [one.coding.ratio for one in groups[1].after] == [2, 3]
    drawn = {len(draw(groups, 3, 32, Dice(CPU, 0, step), thinned=True).masks[0]) for step in range(20)}
    assert drawn == {2, 3, 4}
    outcome = finetune(still(groups), "varied", base, tmp_path / "tuned", replace(SPEC, steps=60, rate=3e-3))
    assert outcome.after < outcome.before
    assert read_checkpoint(tmp_path / "tuned").progress["spec"]["data"]["ratios"] == [
        2,
        3,
        4,
        6,
    ]  # the base was trained on 6, too


def test_gain_and_offset_come_off(stored):
    data, example = stored
    path = stream_store(data, example.metadata.stream_id)
    group = Recording(path, counts_per_electron=2.0, offset_counts=10.0).audit_groups()[0]
    assert np.array_equal(group.electrons, np.maximum(np.round((example.group(group.position) - 10) / 2), 0))


def test_both_heaps_hold_all_electrons_and_know_nothing_of_each_other(groups):
    group, fed = replace(groups[0], electrons=np.full((RATIO, 40, 72), 30, np.float32)), 0.75
    batch = sample(group, (40, 72), Dice(CPU, 1), (0, 0), fed)
    level = 1 / float(batch.noise)
    assert level == pytest.approx(30 * fed)
    given = batch.snapshots[0, REACH] * level / batch.exposures[0, REACH]
    told = batch.frames[0] * level * (1 - fed) / fed
    assert torch.allclose(told, told.round(), atol=1e-3)
    assert float(given.mean()) == pytest.approx(30 * fed, rel=0.02)
    assert float(told.mean()) == pytest.approx(30 * (1 - fed), rel=0.02)
    assert torch.equal(batch.exposures[0, REACH], batch.masks[0].sum(0))
    neighbour = batch.snapshots[0, REACH - 1] * level
    assert float(neighbour.sum()) == pytest.approx(fed * groups[0].before[0].electrons.sum(), rel=0.02)


def test_a_draw_depends_on_its_dice_alone(groups):
    first, again, other = (draw(groups, 3, 32, Dice(CPU, 0, step), thinned=True) for step in (1, 1, 2))
    assert first.masks.shape == (3, RATIO, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    assert not torch.equal(first.frames, other.frames)


@pytest.fixture
def base(tmp_path):
    """A run whose net has learned nothing yet."""
    torch.manual_seed(0)
    run = tmp_path / "base"
    run.mkdir()
    write_checkpoint(run, State({"step": 1, "minutes": 0.0, "spec": SPEC.described()}, build(NET).state_dict()))
    return run


def still(groups):
    """The groups with a dim scene that does not move: what any net can learn to average."""
    chance = np.random.default_rng(0)
    scene = np.kron(chance.uniform(2, 9, (5, 9)), np.ones((8, 8)))
    return [
        replace(group, electrons=chance.poisson(scene, group.electrons.shape).astype(np.float32), before=(), after=())
        for group in groups
    ]


def test_a_net_fits_the_kept_group_better_and_its_card_says_so(tmp_path, base, groups):
    balanced = Coding((derive_masks(MaskSpec(ratio=RATIO), (40, 72)),))
    hidden = [replace(group, coding=balanced) for group in still(groups)]
    outcome = finetune(hidden, "abc", base, tmp_path / "tuned", replace(SPEC, steps=60, rate=3e-3))
    assert outcome.after < outcome.before
    export(tmp_path / "tuned", tmp_path / "mine", scored=False)
    card = ModelCard.read(tmp_path / "mine.json")
    assert card.ratios == (2, RATIO, 6)  # as the base was trained
    assert card.training["finetuned"]["stream"] == "abc"
    assert card.training["finetuned"]["audit_groups"] == 3
    assert card.training["start"]["name"] == "base"
    assert read_checkpoint(tmp_path / "tuned").progress["finetuned"]["steps"] == 60


def test_what_gained_nothing_is_not_kept(tmp_path, base, groups):
    with pytest.raises(ModelError, match="gained nothing"):
        finetune(still(groups), "abc", base, tmp_path / "tuned", replace(SPEC, steps=1, rate=0.0))
    assert not (tmp_path / "tuned").exists()


def test_too_few_audit_groups_are_told(tmp_path, base, groups):
    with pytest.raises(InputError, match="1 audit groups, expected 2 or more"):
        finetune(groups[:1], "abc", base, tmp_path / "tuned", SPEC)


def test_a_stream_without_audit_groups_is_told(tmp_path):
    example = Example(make_metadata((16, 16))).fold()
    StreamStore.create(tmp_path / "plain.zarr", example.metadata).put(*example.messages)
    with pytest.raises(InputError, match="no audit groups"):
        Recording(tmp_path / "plain.zarr")


@pytest.mark.parametrize("name", ["0000", ""])
def test_a_stream_that_is_not_there_is_told(tmp_path, name):
    with pytest.raises(FramefoldError, match="0 streams named"):
        stream_store(tmp_path, name)


def test_what_is_no_store_is_told(tmp_path):
    with pytest.raises(InputError, match="not a framefold store"):
        Recording(tmp_path)


def test_only_what_masks_hid_is_learned_from(groups):
    batch, net = draw(groups, 2, 32, Dice(CPU, 0), thinned=False), build(NET).requires_grad_(False)
    loss = hidden_loss(net, batch)
    elsewhere = replace(batch, frames=torch.where(batch.masks == 1, 9 * batch.frames, batch.frames))
    hidden = replace(batch, frames=torch.where(batch.masks == 0, 9 * batch.frames, batch.frames))
    assert float(hidden_loss(net, elsewhere)) == pytest.approx(float(loss), rel=1e-5)
    assert float(hidden_loss(net, hidden)) != pytest.approx(float(loss), rel=1e-2)
    own = batch.frames.masked_fill(batch.masks == 0, 0).sum(1)  # the net is fed every electron that was folded
    assert torch.allclose(batch.snapshots[:, REACH], own, rtol=1e-5)


def test_where_masks_hide_nothing_heaps_are_told_apart(tmp_path, base, groups):
    ones = Coding((derive_masks(MaskSpec("ones", RATIO), (40, 72)),))
    bright = [replace(group, coding=ones) for group in still(groups)]
    assert not any(map(hides, bright))
    outcome = finetune(bright, "abc", base, tmp_path / "tuned", replace(SPEC, steps=60, rate=3e-3))
    assert outcome.after < outcome.before


def test_the_truth_fits_as_well_as_shot_noise_allows():
    class Knowing(torch.nn.Module):
        def __init__(self, truth):
            super().__init__()
            self.truth = torch.nn.Parameter(truth)

        def forward(self, snapshots, exposures, masks, noise):
            return self.truth * noise[:, None, None, None]

    chance = np.random.default_rng(0)
    scene = np.kron(chance.uniform(2, 9, (5, 9)), np.ones((8, 8))).astype(np.float32)
    coding = Coding((derive_masks(MaskSpec(ratio=RATIO), (40, 72)),))
    group = AuditGroup(0, chance.poisson(scene, (RATIO, 40, 72)).astype(np.float32), coding)
    truth = torch.from_numpy(scene).expand(1, RATIO, 40, 72)
    assert misfit(Knowing(truth.clone()), group) == pytest.approx(1, abs=0.1)
    assert misfit(Knowing(1.5 * truth), group) > 1.5
