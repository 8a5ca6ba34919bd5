"""Fine-tuning on a user's own movie: a trained net goes on learning from the audit groups of one stream, without a clean truth.

Notable: the net is fed a group as it was folded and held against its raw frames where the masks hid a pixel: what a frame
holds there never reached the snapshot, so its noise averages out of the gradient (Noise2Self: J. Batson & L. Royer, ICML
2019). Where masks hide nothing, every electron is put into one of two heaps by chance, which for Poisson counts are
independent; the net is fed one, folded at a lower dose, and held against the other (Noise2Noise by thinning). Read noise is
taken to be small against an electron, and a pixel's noise to be its own. The last audit group is kept apart: the net is
exported only if it fits that better than before.

    python -m framefold_training.finetune --stream ID --data framefold-data --run decoder/framefold_decoder/models/fast.onnx \\
        --out training-runs/mine --minutes 10 --export my-models/mine
    framefold-decoder decode ID --models my-models --model mine
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framefold_protocol.errors import FramefoldError, InputError, ModelError
from framefold_protocol.model import REACH
from framefold_training.birnat import BirnatSpec
from framefold_training.checkpoint import write_checkpoint
from framefold_training.clock import Clock
from framefold_training.data import Batch
from framefold_training.dice import Dice
from framefold_training.evaluate import of_net
from framefold_training.export import export
from framefold_training.exported import read_start, told
from framefold_training.loss import hidden_loss, hidden_misfit, relative_loss
from framefold_training.model import MULTIPLE
from framefold_training.recordings import AuditGroup, Neighbour, Recording, stream_store
from framefold_training.run import Run, TrainSpec
from framefold_training.tiers import AnyNet, recall

FED = (0.5, 0.9)
"""Share of the electrons that go into the heap the net is fed, uniform."""

LEAST_HIDDEN = 0.01
"""Share of a group's pixels and frames that masks must hide to judge by them."""

HELD_OUT_SIDE = 512
"""Pixels of the kept group that are judged, at most."""


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning did on the audit group it never saw; goes onto the card."""

    stream: str
    audit_groups: int
    """Learned from, and the one that was kept apart."""
    steps: int
    before: float
    """Of the kept group, see `misfit`: 1 is the least there can be, save for chance."""
    after: float


def hides(group: AuditGroup) -> bool:
    """Whether the group's masks hide enough to learn and to judge by."""
    return bool(1 - group.coding.exposure().mean() / group.coding.ratio > LEAST_HIDDEN)


def sample(group: AuditGroup, size: tuple[int, int], dice: Dice, corner: tuple[int, int], fed: float) -> Batch:
    """One sample of an audit group: a window, folded of a share `fed` of its electrons, and the frames to be told: the other
    electrons, or all where all are fed. The level is that of the whole frame, as it is at run time."""
    rows, columns = (slice(first, first + side) for first, side in zip(corner, size, strict=True))
    electrons = torch.from_numpy(np.ascontiguousarray(group.electrons[:, rows, columns])).to(dice.device)
    given = _thinned(electrons, fed, dice)
    masks = torch.from_numpy(group.coding.window(rows, columns).astype(np.float32)).to(dice.device)
    own = (given * masks).sum(0), masks.sum(0)
    before, after = ([_beside(one, rows, columns, fed, dice) for one in side] for side in (group.before, group.after))
    missing = [own]
    fed_groups = [*missing * (REACH - len(before)), *before[::-1], own, *after, *missing * (REACH - len(after))]
    snapshots, exposures = (torch.stack(images)[None] for images in zip(*fed_groups, strict=True))
    level = max(fed * float(group.electrons.mean()), 1e-3)
    told = electrons if fed == 1 else (electrons - given) * (fed / (1 - fed))
    return Batch(snapshots / level, exposures, masks[None], torch.tensor([1 / level], device=dice.device), told[None] / level)


def draw(groups: list[AuditGroup], count: int, size: int, dice: Dice, *, thinned: bool) -> Batch:
    """`count` samples of random groups and windows, all of one B."""
    samples, ratio = [], groups[dice.below(len(groups), 1)[0]].coding.ratio
    alike = [group for group in groups if group.coding.ratio == ratio]
    for _ in range(count):
        group = alike[dice.below(len(alike), 1)[0]]
        window = [min(size, side // MULTIPLE * MULTIPLE) for side in group.coding.shape]
        corner = [dice.below(side - one + 1, 1)[0] for side, one in zip(group.coding.shape, window, strict=True)]
        fed = FED[0] + (FED[1] - FED[0]) * float(dice.shares(1)) if thinned else 1.0
        samples.append(sample(group, (window[0], window[1]), dice, (corner[0], corner[1]), fed))
    return Batch(*(torch.cat(parts) for parts in zip(*(one.tensors for one in samples), strict=True)))


def misfit(net: AnyNet, group: AuditGroup) -> float:
    """Mean squared difference of a net's frames to a group's raw ones where the masks hid them, in units of their shot noise.

    Where masks hide nothing, a heap that the net was not fed is the judge.
    """
    rows, columns = (min(HELD_OUT_SIDE, side // MULTIPLE * MULTIPLE) for side in group.coding.shape)
    fed = 1.0 if hides(group) else 0.75
    batch = sample(group, (rows, columns), Dice(torch.device("cpu"), 0), (0, 0), fed)
    frames = of_net(net)(batch)
    if fed == 1:
        return float(hidden_misfit(frames, batch))
    noise = batch.frames.mean() * batch.noise * fed / (1 - fed)
    return float(((frames - batch.frames) ** 2).mean() / noise)


def finetune(groups: list[AuditGroup], stream: str, base: Path, out: Path, spec: TrainSpec) -> Outcome:
    """Go on from `base`, a run's folder or an exported model; write a checkpoint into `out`. `spec`: budget, device and rate.

    Raises `InputError` with fewer than two audit groups, and `ModelError` when the kept group is fitted no better than before.
    """
    state = read_start(base)
    net = recall(state.progress["spec"]["net"])
    if isinstance(net, BirnatSpec):  # of one B
        groups = [group for group in groups if group.coding.ratio == net.ratio]
    if len(groups) < 2:
        hint = "Record for longer, or with a smaller --audit"
        raise InputError(f"stream {stream} has {len(groups)} audit groups, expected 2 or more", hint=hint)
    hiding = [group for group in groups if hides(group)]
    thinned = len(hiding) < 2
    *learned, kept = groups if thinned else hiding
    sized = replace(spec, net=net)
    run, clock = Run(sized, relative_loss if thinned else hidden_loss), Clock()
    run.net.load_state_dict(state.weights)
    run.average.load_state_dict(state.weights)
    before = misfit(run.average, kept)
    clock.start()
    while run.progress < 1:
        dice = Dice(torch.device(spec.device), spec.data.seed, run.step)
        run.learn(draw(learned, spec.data.batch, spec.data.size, dice, thinned=thinned))
        run.minutes += clock.step()
    outcome = Outcome(stream, len(learned) + 1, run.step, before, misfit(run.average, kept))
    if not outcome.after < outcome.before:
        found = f"{outcome.before:.5f} before and {outcome.after:.5f} after"
        hint = "Keep the net as it was, or record more audit groups"
        raise ModelError(f"fine-tuning on stream {stream} gained nothing: misfit of the kept group {found}", hint=hint)
    described: dict[str, Any] = state.progress["spec"]
    data = {**described["data"], "ratios": sorted({*described["data"]["ratios"], *(group.coding.ratio for group in groups)})}
    progress = {
        **{key: state.progress[key] for key in ("step", "minutes")},
        "spec": {**described, "data": data},
        "start": told(base, state),
        "finetuned": {**asdict(outcome), "rate": spec.rate},
    }
    out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(out, replace(run.state(), progress=progress))
    return outcome


def _beside(neighbour: Neighbour, rows: slice, columns: slice, fed: float, dice: Dice) -> tuple[Tensor, Tensor]:
    """A neighbour's snapshot at the same dose, and its exposure; both (rows, columns)."""
    electrons = torch.from_numpy(np.ascontiguousarray(neighbour.electrons[rows, columns])).to(dice.device)
    exposure = torch.from_numpy(neighbour.coding.exposure(rows, columns).astype(np.float32)).to(dice.device)
    return _thinned(electrons, fed, dice), exposure


def _thinned(electrons: Tensor, share: float, dice: Dice) -> Tensor:
    return torch.binomial(electrons, torch.full_like(electrons, share), generator=dice.noise)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.finetune", description=__doc__.split("\n\n")[0])
    parser.add_argument("--stream", required=True, help="id of the stream, or its beginning")
    parser.add_argument("--data", type=Path, default=Path("framefold-data"), help="the decoder's data folder")
    parser.add_argument("--run", type=Path, required=True, help="folder of a run, or exported model (.onnx), to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tuned run")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="that learn, each from its share of a batch")
    parser.add_argument("--rate", type=float, default=1e-4, help="peak learning rate")
    parser.add_argument("--counts-per-electron", type=float, help="the detector's gain; default: the stream's, or measured")
    parser.add_argument("--offset", type=float, help="counts without electrons; default: as measured, or 0")
    parser.add_argument("--export", type=Path, help="write this model (path without suffix) and its card at the end")
    given = parser.parse_args(arguments)
    recording = Recording(stream_store(given.data, given.stream), given.counts_per_electron, given.offset)
    spec = TrainSpec(minutes=given.minutes, device=given.device, threads=given.threads, rate=given.rate)
    outcome = finetune(recording.audit_groups(), recording.stream_id, given.run, given.out, spec)
    if given.export:
        export(given.out, given.export)
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
