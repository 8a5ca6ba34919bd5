"""The training loop: a time budget, a checkpoint every five minutes, exact resumption, a JSON line for each, a curve.

Notable: each clip's loss is relative to what plain averaging would leave, so that fast and slow scenes count alike, and has a
term for the snapshot that the frames would fold to (`loss`); all stages' estimates are scored; a step that takes far longer
than its neighbours (the process was stopped) counts as one of them. Run, or run again to resume; with --export the net is
scored, exported and gets its card when the budget is spent:

    python -m framefold_training.train --tier fast --minutes 80 --out training-runs/fast
    python -m framefold_training.train --start decoder/framefold_decoder/models/fast.onnx --minutes 40 --out ...
    python -m framefold_training.train --tier best --start decoder/framefold_decoder/models/fast.onnx \
        --minutes 25 --device cuda --batch 64 --workers 14 --slots 1024 --out ...
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from framefold_protocol.errors import FramefoldError
from framefold_training.birnat import BirnatSpec
from framefold_training.checkpoint import CHECKPOINT, write_checkpoint
from framefold_training.clock import Clock
from framefold_training.curve import plot_curve
from framefold_training.data import DataSpec, make_batch
from framefold_training.evaluate import validate
from framefold_training.exported import read_start
from framefold_training.loss import SNAPSHOT_WEIGHT
from framefold_training.pool import Pool, PoolSpec, open_pool
from framefold_training.run import Run, TrainSpec
from framefold_training.tiers import TIERS


def train(spec: TrainSpec, out: Path, start: Path | None = None) -> Run:
    """Train into the folder `out` until the budget is spent, from its checkpoint if there is one, or else from `start`."""
    out.mkdir(parents=True, exist_ok=True)
    run, clock = Run(spec), Clock()
    if (out / CHECKPOINT).exists():
        run.restore(read_start(out))
    elif start:
        run.begin_with(start)
    with open_pool(spec.data.pool, run.step, spec.workers, torch.device(spec.device)) as pool:
        pool.at(run.step)  # filled before the clock runs
        while run.progress < 1:
            losses = _until_checkpoint(run, pool, clock)
            write_checkpoint(out, run.state())
            _log(run, losses, out)
    return run


def _until_checkpoint(run: Run, pool: Pool, clock: Clock) -> list[float]:
    """Learn until a checkpoint is due or the budget is spent."""
    due, losses = run.minutes + run.spec.checkpoint_minutes, list[Tensor]()
    clock.start()
    while run.progress < 1 and run.minutes < due:
        losses.append(run.learn(make_batch(run.spec.data, pool.at(run.step), run.step)))
        if run.spec.device == "cuda" and run.step % 20 == 0:
            torch.cuda.synchronize()  # the clock is honest, and the host not far ahead
        run.minutes += clock.step()
    return [float(loss) for loss in losses]


def _log(run: Run, losses: list[float], out: Path) -> None:
    """Append a line: mean of the last losses, and scores of the averaged net on movies not trained on; draw the curve."""
    recent = losses[-200:]
    line = {"step": run.step, "minutes": round(run.minutes, 2), "loss": round(sum(recent) / max(len(recent), 1), 4)}
    if run.spec.scored:
        line |= validate(run.average, run.spec.data.ratios[0])
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
    plot_curve(out)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.train", description=__doc__)
    parser.add_argument("--tier", choices=sorted(TIERS), default="fast", help="which net")
    parser.add_argument(
        "--ratio", default="20,10,30,2-32", help="frames per snapshot: numbers and ranges, mostly the first three"
    )
    parser.add_argument("--minutes", type=float, default=50.0, help="training time, over all resumptions")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--size", type=int, default=96, help="side of the crops, pixels")
    parser.add_argument("--rate", type=float, default=8e-4, help="peak learning rate")
    parser.add_argument("--snapshot-weight", type=float, default=SNAPSHOT_WEIGHT, help="of its error in the loss")
    parser.add_argument("--workers", type=int, default=1, help="processes that render movies")
    parser.add_argument("--threads", type=int, default=1, help="that learn, each from its share of a batch")
    parser.add_argument("--slots", type=int, default=96, help="movies held, 8 MB each")
    parser.add_argument("--life", type=int, default=8, help="steps until one of them is replaced")
    parser.add_argument("--atoms", default="", help="file of multislice movies, made by framefold_training.atoms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a run's folder or an exported model (.onnx) to begin with; default: chance")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--export", type=Path, help="write this model (path without suffix) and its card at the end")
    given = parser.parse_args(arguments)
    ratios = parse_ratios(given.ratio)
    tier = TIERS[given.tier]
    net = replace(tier, ratio=ratios[0]) if isinstance(tier, BirnatSpec) else tier
    pool = PoolSpec(slots=given.slots, life=given.life, atoms=given.atoms, seed=given.seed)
    data = DataSpec(ratios, given.size, given.batch, given.seed, pool=pool)
    rest = {name: getattr(given, name) for name in ("minutes", "device", "workers", "threads", "rate", "snapshot_weight")}
    train(TrainSpec(net=net, data=data, **rest), given.out, given.start)
    if given.export:
        from framefold_training.export import export  # onnx, needed only now

        export(given.out, given.export)


def parse_ratios(text: str) -> tuple[int, ...]:
    """`20,2-4` -> (20, 2, 3, 4). Raises `FramefoldError` when it is not numbers and ranges from 2 to 32."""
    try:
        bounds = [list(map(int, part.split("-"))) for part in text.split(",")]
        ratios = tuple(dict.fromkeys(ratio for low, *high in bounds for ratio in range(low, (high or [low])[0] + 1)))
    except ValueError:
        ratios = ()
    if not ratios or min(ratios) < 2 or max(ratios) > 32:
        raise FramefoldError(f"ratio {text!r} is not numbers and ranges from 2 to 32", hint="For example 20,10,30,2-32")
    return ratios


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
