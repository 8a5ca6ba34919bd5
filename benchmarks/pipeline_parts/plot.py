"""The plot: how fast each end of the way is, what it costs, how long it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the plot as PNG."""
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    cases = results["cases"]
    figure = Figure(figsize=(12, 4), layout="constrained")
    speed, cost, latency = figure.subplots(1, 3)
    kinds = {
        "stored_without_journals": "stored in memory",
        "stored": "stored on disk, journals",
        "reconstructed": "reconstructed",
    }
    _bars(speed, cases, {label: [case[key]["frames_s"] for case in cases] for key, label in kinds.items()}, "frames per second")
    sides = {"encoder": "encoder", "decoder": "decoder, storing", "decoder_reconstructing": "decoder, reconstructing too"}
    costs = {label: [case["cpu_ms_per_frame"][key] for case in cases] for key, label in sides.items()}
    _bars(cost, cases, costs, "CPU ms per frame")
    kinds_of_wait = {"ack": "live_stored", "reconstruction": "live_reconstructed"}
    waits = {
        f"{kind}, {name}": [case[live]["latency_ms"][kind][name] for case in cases]
        for kind, live in kinds_of_wait.items()
        for name in ("p50", "p99")
    }
    _bars(latency, cases, waits, "ms from a group's last frame")
    machine = results["machine"]
    figure.suptitle(
        f"From memory to the decoder's disk, B = 20; {machine['cpu']}, {machine['cores']} cores", x=0.01, ha="left", fontsize=9
    )
    figure.savefig(path, dpi=130)


def _bars(axes: Axes, cases: list[Row], series: dict[str, list[float]], label: str) -> None:
    width = 0.8 / len(series)
    places = np.arange(len(cases))
    for number, (name, values) in enumerate(series.items()):
        bars = axes.bar(places + (number - (len(series) - 1) / 2) * width, values, width, label=name, color=f"C{number}")
        axes.bar_label(bars, fmt="{:.3g}", fontsize=6, padding=1)
    axes.set(yscale="log", ylabel=label)
    axes.set_xticks(places, [f"{case['side']}×{case['side']}\n{case['dtype']}" for case in cases])
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2)
