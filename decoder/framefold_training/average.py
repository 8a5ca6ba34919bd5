"""The mean of nets that went different ways from one: as good as the best of them or better, at the cost of one.

Weights of nets that went on from the same net lie in one valley of the loss, and their mean nearer to its middle (Wortsman et
al., "Model soups", ICML 2022). So training on two cores may be two runs of other seeds, side by side, with no waiting.

    python -m framefold_training.train --start NET --seed 1 --out training-runs/one
    python -m framefold_training.train --start NET --seed 2 --out training-runs/two
    python -m framefold_training.average training-runs/one training-runs/two --out training-runs/both [--export my-models/both]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_training.checkpoint import CHECKPOINT, State, write_checkpoint
from framefold_training.exported import read_start, told


def average(models: list[Path], out: Path) -> None:
    """Write the mean of runs or exported models into the folder `out`, as a run's checkpoint.

    Raises `ModelError` when there are fewer than two, they are of different nets, or `out` is a run already.
    """
    if len(models) < 2:
        raise ModelError(f"{len(models)} nets are named, expected two or more", hint="Name runs that began with the same net")
    if (out / CHECKPOINT).exists():
        raise ModelError(f"{out} is a run already", hint="Choose another --out")
    states = [read_start(model) for model in models]
    first = states[0]
    for model, state in zip(models, states, strict=True):
        if (found := state.progress["spec"]["net"]) != (expected := first.progress["spec"]["net"]):
            raise ModelError(f"the net of {model} is {found}, expected {expected}", hint="Average runs of one tier")
    weights = {name: torch.stack([state.weights[name].double() for state in states]).mean(0).float() for name in first.weights}
    progress = {
        "step": sum(state.progress["step"] for state in states),
        "minutes": sum(state.progress["minutes"] for state in states),
        "spec": {key: value for key, value in first.progress["spec"].items() if key != "snapshot_weight"},  # each has its own
        "averaged": [told(model, state) for model, state in zip(models, states, strict=True)],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(out, State(progress, weights))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.average", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="folders of runs, or exported models (.onnx)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the mean, as a run's")
    parser.add_argument("--export", type=Path, help="write this model (path without suffix) and its card")
    given = parser.parse_args(arguments)
    average(given.models, given.out)
    if given.export:
        from framefold_training.export import export  # onnx, needed only now

        export(given.out, given.export)


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
