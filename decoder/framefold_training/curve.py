"""The training curve of a run, `curve.png`, drawn from its `log.jsonl`: loss and scores over training time."""

from __future__ import annotations

import json
from pathlib import Path


def plot_curve(run: Path) -> None:
    """Draw the curve of the run in this folder; without matplotlib, nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    minutes = [line["minutes"] for line in lines]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    loss, scores = figure.subplots(1, 2)
    loss.plot(minutes, [line["loss"] for line in lines], marker=".")
    loss.set(xlabel="training minutes", ylabel="loss (1: error of the plain mean)")
    for name in (name for name in lines[-1] if name.endswith("dB")):
        scores.plot(minutes, [line.get(name) for line in lines], marker=".", label=name.removesuffix(", dB"))
    scores.set(xlabel="training minutes", ylabel="PSNR, dB, movies not trained on")
    if len(lines[-1]) > 3:
        scores.legend(fontsize=6, ncols=2)
    figure.savefig(run / "curve.png", dpi=110)
