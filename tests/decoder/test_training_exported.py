"""Training and fine-tuning go on from a model that was exported, such as the one that ships, as they do from a run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from training_examples import NET, SPEC, some_batch

from framefold_decoder.reconstruct.registry import PACKAGED
from framefold_protocol.errors import ModelError
from framefold_protocol.model import ModelCard
from framefold_training.average import average
from framefold_training.checkpoint import load_net, read_checkpoint, write_checkpoint
from framefold_training.evaluate import of_file, of_net
from framefold_training.export import export
from framefold_training.exported import read_start
from framefold_training.tiers import build, recall
from framefold_training.train import train


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    train(SPEC, folder / "run")
    export(folder / "run", folder / "first", scored=False)
    return folder


@pytest.mark.parametrize("name", ["run", "first.onnx"])
def test_a_run_begins_with_its_weights_and_its_card_says_so(exported, tmp_path, name):
    train(replace(SPEC, steps=1, rate=0.0), tmp_path / "run", exported / name)
    first, second = load_net(exported / "run"), load_net(tmp_path / "run")
    for mine, theirs in zip(second.parameters(), first.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    start = export(tmp_path / "run", tmp_path / "second", scored=False).training["start"]
    assert (start["name"], start["steps"]) == (name.removesuffix(".onnx"), SPEC.steps)
    if name == "first.onnx":
        assert start["sha256"] == ModelCard.read(exported / "first.json").sha256
        train(replace(SPEC, steps=1), tmp_path / "third", tmp_path / "second.onnx")
        assert read_checkpoint(tmp_path / "third").progress["start"]["start"] == start


def test_a_resumed_run_does_not_begin_anew(exported, tmp_path):
    train(replace(SPEC, steps=1), tmp_path)
    before = read_checkpoint(tmp_path).weights
    run = train(replace(SPEC, steps=1), tmp_path, exported / "first.onnx")
    assert run.start == {}
    assert all(torch.equal(one, before[name]) for name, one in run.average.state_dict().items())


@pytest.mark.parametrize("other", [{"widths": (8, 8, 16)}, {"stages": 1}, {"blocks": (2, 0, 1)}])
def test_a_net_of_another_width_or_less_depth_is_refused(exported, tmp_path, other):
    with pytest.raises(ModelError, match=r"first\.onnx is .*expected"):
        train(replace(SPEC, net=replace(NET, **other)), tmp_path, exported / "first.onnx")


@pytest.mark.parametrize("deeper", [{"stages": 4}, {"blocks": (2, 3, 2)}, {"stages": 3, "blocks": (1, 2, 1)}])
def test_a_deeper_net_begins_with_the_answers_of_the_smaller_one_and_learns(exported, tmp_path, deeper):
    spec, batch = replace(SPEC, steps=1, rate=0.0, net=replace(NET, **deeper)), some_batch()
    train(spec, tmp_path / "grown", exported / "first.onnx")
    small, large = load_net(exported / "run"), load_net(tmp_path / "grown")
    assert torch.allclose(of_net(large)(batch), of_net(small)(batch), atol=0.02)  # an added stage takes a small step
    train(replace(spec, rate=1e-2, steps=3), tmp_path / "trained", exported / "first.onnx")
    trained = load_net(tmp_path / "trained")
    still = [name for name, mine in trained.named_parameters() if torch.equal(mine, large.get_parameter(name))]
    assert still == []


@pytest.mark.parametrize("name", ["absent.onnx", "torn.onnx", "cardless.onnx", "another.onnx", "older.onnx"])
def test_what_is_no_model_is_named(exported, tmp_path, name):
    if name == "torn.onnx":
        (tmp_path / name).write_bytes(b"torn")
        (tmp_path / "torn.json").write_bytes((exported / "first.json").read_bytes())
    if name == "cardless.onnx":
        (tmp_path / name).write_bytes((exported / "first.onnx").read_bytes())
    if name in ("another.onnx", "older.onnx"):
        card = json.loads((exported / "first.json").read_text())
        (tmp_path / name).write_bytes((exported / "first.onnx").read_bytes() + b"\x00" * (name == "another.onnx"))
        del card["training"]["rate" if name == "older.onnx" else "run"]
        (tmp_path / name).with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=name):
        read_start(tmp_path / name)


def test_weights_of_another_version_are_named(exported, tmp_path):
    state = read_checkpoint(exported / "run")
    name = "stages.0.tail.weight"
    tmp_path.joinpath("old").mkdir()
    write_checkpoint(tmp_path / "old", replace(state, weights=state.weights | {name: state.weights[name][:1]}, training={}))
    for use in (load_net, read_start, lambda run: train(SPEC, run), lambda run: train(SPEC, tmp_path / "new", run)):
        with pytest.raises(ModelError, match=rf"the weights in .*old are not those .* {name}"):
            use(tmp_path / "old")


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.onnx")), ids=lambda path: path.stem)
def test_what_ships_can_be_gone_on_from(path):
    state = read_start(path)
    net = build(recall(state.progress["spec"]["net"]))
    net.load_state_dict(state.weights)
    batch = some_batch(count=1)
    assert torch.allclose(of_net(net.eval())(batch), of_file(path)(batch), atol=1e-3)


def test_the_mean_of_two_nets_is_a_run_whose_card_tells_of_both(exported, tmp_path):
    for seed in (1, 2):
        data = replace(SPEC.data, seed=seed)
        train(replace(SPEC, steps=2, data=data, snapshot_weight=2.0 * seed), tmp_path / f"run{seed}", exported / "run")
    average([tmp_path / "run1", tmp_path / "run2"], tmp_path / "mean")
    one, two, mean = (load_net(tmp_path / name) for name in ("run1", "run2", "mean"))
    for first, second, both in zip(one.parameters(), two.parameters(), mean.parameters(), strict=True):
        torch.testing.assert_close(both, (first + second) / 2)
    made = export(tmp_path / "mean", tmp_path / "mean-net", scored=False).training
    told = [(net["name"], net["steps"], net["snapshot_weight"], net["start"]["name"]) for net in made["averaged"]]
    assert told == [("run1", 2, 2.0, "run"), ("run2", 2, 4.0, "run")]
    assert made["steps"] == 4
    assert "snapshot_weight" not in made
    average([tmp_path / "mean", tmp_path / "mean-net.onnx"], tmp_path / "again")
    assert torch.equal(next(load_net(tmp_path / "again").parameters()), next(mean.parameters()))


def test_what_cannot_be_averaged_is_named(exported, tmp_path):
    with pytest.raises(ModelError, match="1 nets are named, expected two or more"):
        average([exported / "run"], tmp_path / "mean")
    with pytest.raises(ModelError, match=r"the net of .*fast\.onnx is .*, expected"):
        average([exported / "run", PACKAGED / "fast.onnx"], tmp_path / "mean")
    with pytest.raises(ModelError, match="is a run already"):
        average([exported / "run", exported / "first.onnx"], exported / "run")
