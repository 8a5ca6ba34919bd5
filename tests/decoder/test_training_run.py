"""A run: the loss falls, a stopped run goes on to the same weights, checkpoints travel, pauses are free, scores are honest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_examples import DATA, NET, RATIO, SPEC, some_batch, some_movies

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import SNAPSHOTS
from framefold_training import checkpoint, simulate
from framefold_training.checkpoint import State, load_net, read_checkpoint, write_checkpoint
from framefold_training.clock import Clock
from framefold_training.data import make_batch
from framefold_training.evaluate import psnr, score
from framefold_training.export import export
from framefold_training.run import Run
from framefold_training.tiers import TIERS, build
from framefold_training.train import main, train


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_learning_lowers_the_loss():
    batch = make_batch(replace(DATA, ratios=(RATIO,), batch=4), some_movies(), 0)
    run = Run(replace(SPEC, steps=60, rate=5e-3))
    losses = [float(run.learn(batch)) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_learns_a_step(tier):
    run = Run(replace(SPEC, net=TIERS[tier]))
    before = {name: one.clone() for name, one in run.net.state_dict().items()}
    assert np.isfinite(float(run.learn(some_batch(count=1))))
    assert any(not torch.equal(one, before[name]) for name, one in run.net.state_dict().items())


def test_a_run_learns_by_its_weight_of_the_snapshot():
    batch = some_batch()
    none, twice, thrice = (float(Run(replace(SPEC, snapshot_weight=weight)).learn(batch)) for weight in (0, 2, 3))
    assert thrice - twice == pytest.approx((twice - none) / 2, rel=1e-3)
    assert twice > none + 1e-3


def test_threads_learn_what_one_learns():
    batch, runs = some_batch(count=4), [Run(replace(SPEC, threads=threads)) for threads in (1, 3)]
    losses = [[float(run.learn(batch)) for _ in range(3)] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_resuming_gives_what_an_unbroken_run_gives(tmp_path):
    unbroken = train(SPEC, tmp_path / "unbroken")
    broken, movies = Run(SPEC), some_movies()
    broken.learn(make_batch(DATA, movies, 0))
    (tmp_path / "broken").mkdir()
    write_checkpoint(tmp_path / "broken", broken.state())
    resumed = train(SPEC, tmp_path / "broken")
    assert resumed.step == unbroken.step == 4
    for mine, theirs in zip(resumed.net.parameters(), unbroken.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(resumed.average.parameters(), unbroken.average.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    (line,) = (tmp_path / "unbroken" / "log.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"step", "minutes", "loss"}
    assert (tmp_path / "unbroken" / "curve.png").stat().st_size > 1000


def test_training_goes_on_from_the_weights_alone(tmp_path):
    train(replace(SPEC, steps=2), tmp_path)
    average = load_net(tmp_path)
    for part in tmp_path.glob("checkpoint-*-training-*.pt"):
        part.unlink()
    run = Run(SPEC)
    run.restore(read_checkpoint(tmp_path))
    assert run.step == 2
    for mine, theirs in zip(run.net.parameters(), average.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("changed", "named"),
    [(replace(SPEC, net=replace(NET, widths=(8, 8, 16))), "widths"), (replace(SPEC, data=replace(DATA, batch=3)), "batch")],
)
def test_a_checkpoint_of_another_net_or_of_other_data_is_refused(tmp_path, changed, named):
    train(replace(SPEC, steps=1), tmp_path)
    with pytest.raises(ModelError, match=named):
        train(changed, tmp_path)


def test_a_run_goes_on_with_another_halo(tmp_path):
    train(replace(SPEC, steps=1), tmp_path)
    wider = replace(NET, halo=NET.halo + 8)
    assert train(replace(SPEC, net=wider, steps=2), tmp_path).step == 2
    assert load_net(tmp_path).spec == wider


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"checkpoint\.json"):
        export(tmp_path, tmp_path / "net")


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(replace(SPEC, steps=1), tmp_path)
    next(tmp_path.glob("*-weights-0.pt")).write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"checkpoint\.json"):
        load_net(tmp_path)


def test_a_checkpoint_of_a_large_net_comes_in_parts_that_travel(tmp_path):
    tensors = {f"layer {k}": torch.full((1_300_000,), float(k)) for k in range(8)}  # 5 MB each
    progress = {"step": 7, "minutes": 1.0, "spec": {}}
    for step in (6, 7):  # the second replaces the first
        write_checkpoint(tmp_path, State({**progress, "step": step}, tensors, {"moments": tensors["layer 1"]}))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 16 << 20
    assert all("0000007" in path.name for path in tmp_path.glob("*.pt"))
    found = read_checkpoint(tmp_path)
    assert found.progress == progress
    assert found.weights.keys() == tensors.keys()
    assert all(torch.equal(found.weights[name], one) for name, one in tensors.items())


def test_the_largest_tensor_of_a_tier_fits_a_part():
    sizes = [one.nbytes for spec in TIERS.values() for one in build(spec).state_dict().values()]
    assert max(sizes) < checkpoint.PART_BYTES


def test_a_pause_from_outside_counts_as_one_step(monkeypatch):
    now = 0.0
    monkeypatch.setattr("framefold_training.clock.time.monotonic", lambda: now)
    clock, minutes = Clock(), 0.0
    for step in range(40):
        now += 3000.0 if step == 20 else 3.0
        minutes += clock.step()
    assert minutes == pytest.approx((39 * 3 + 5 * 3) / 60)


def test_scores_tell_net_and_rival_apart():
    clip = simulate.movie(np.random.default_rng(4), SNAPSHOTS * RATIO, 32)
    spec = MaskSpec(ratio=RATIO)
    perfect, mean = score(lambda batch: batch.frames, "scene", clip / clip.mean(), spec, doses=(5.0,))
    assert (perfect.method, mean.method) == ("net", "mean of frames")
    assert perfect.psnr_db > 100 > mean.psnr_db


def test_psnr_takes_the_peak_of_the_truth():
    truth = torch.tensor([[[1.0, 2.0]]])
    assert psnr(truth + 0.2, truth) == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--minutes", "-1"), "minutes is -1, expected more than 0"),
        (("--device", "cuda"), "device is cuda, but torch finds no GPU"),
        (("--threads", "0"), "threads is 0, expected 1 or more"),
        (("--workers", "-1"), "workers is -1, expected 0 or more"),
        (("--snapshot-weight", "-1"), "snapshot_weight is -1, expected 0 or more"),
        (("--slots", "0"), "slots is 0, expected 1 or more"),
        (("--ratio", "40"), "ratio '40' is not numbers and ranges from 2 to 32"),
    ],
)
def test_wrong_options_are_named_before_anything_is_made(tmp_path, monkeypatch, option, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FramefoldError, match=message):
        main(["--out", str(tmp_path / "run"), *option])
    assert not (tmp_path / "run").exists()


RENDER = """
import multiprocessing, time, torch
from framefold_training.pool import PoolSpec, open_pool
with open_pool(PoolSpec(frames=30, side=40, slots=2, life=1), 0, 1, torch.device("cpu")) as pool:
    pool.at(0)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


def test_a_process_that_renders_ends_with_the_one_that_trains():
    with subprocess.Popen([sys.executable, "-c", RENDER], stdout=subprocess.PIPE) as trainer:
        renderer = Path("/proc") / trainer.stdout.readline().decode().strip()
        assert renderer.exists()
        trainer.kill()
    for _ in range(600):
        if not renderer.exists() or " Z " in (renderer / "stat").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("it still renders, for nobody")
