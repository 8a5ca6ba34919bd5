"""The plots: quality against bytes, and against what encoding costs. Means over all clips."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from quality_parts.card import ORDER
from quality_parts.framefold import REFERENCES
from quality_parts.rivals import OUTER_MARKS

Row = dict[str, Any]
TICKS = (5, 10, 20, 30, 50, 80)
"""Wire ratios on the axis."""


def draw(rows: list[Row], folder: Path) -> None:
    """Write `quality-rate.png` and `quality-cost.png`."""
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    measured = [row for row in rows if "psnr" in row]
    _rate_distortion(measured).savefig(folder / "quality-rate.png", dpi=130)
    _cost(measured).savefig(folder / "quality-cost.png", dpi=130)


def _rate_distortion(rows: list[Row]) -> Figure:
    doses = sorted({row["dose"] for row in rows})
    figure = Figure(figsize=(4.2 * len(doses) + 2, 4.5), layout="constrained")
    every = figure.subplots(1, len(doses), squeeze=False)[0]
    for axes, dose in zip(every, doses, strict=True):
        mine = [row for row in rows if row["dose"] == dose]
        for number, method in enumerate(ORDER):
            points = _points([row for row in mine if row["method"] == method and method not in OUTER_MARKS], "wire_ratio")
            if points:
                own = method.startswith("framefold")
                style = {"lw": 2.2 if own else 1.0, "ls": "-" if own else ":", "color": f"C{number % 10}"}
                axes.plot(*zip(*points, strict=True), marker="o" if own else "s", ms=4, label=method, **style)
        for mark, style in zip(OUTER_MARKS, ("--", "-."), strict=True):
            values = [row["psnr"] for row in mine if row["method"] == mark]
            if values:
                axes.axhline(mean(values), color="0.6", lw=0.8, ls=style, label=f"{mark}, not compressed")
        axes.set_xscale("log")
        axes.set_xticks(TICKS, map(str, TICKS))
        axes.set_xticks([], minor=True)
        axes.set(xlabel="wire ratio", title=f"{dose:g} e⁻/px and frame")
    every[0].set_ylabel("PSNR against the clean truth, dB, mean over clips")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right upper", handlelength=4)
    return figure


def _points(rows: list[Row], key: str) -> list[tuple[float, float]]:
    """A point a ratio: means over the clips."""
    ratios = sorted({row["ratio"] for row in rows})
    groups = [[row for row in rows if row["ratio"] == ratio] for ratio in ratios]
    return [(mean(row[key] for row in group), mean(row["psnr"] for row in group)) for group in groups]


def _cost(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for method in ORDER:
        mine = [row for row in rows if row["method"] == method and method not in OUTER_MARKS]
        if mine and method not in ("gap-tv", *REFERENCES, "mean of B, BM3D"):  # encoded as others are
            point = mean(row["encode_cpu_s_per_gpx"] for row in mine), mean(row["psnr"] for row in mine)
            axes.plot(*point, "o", color="C1" if method.startswith("framefold") else "C0")
            axes.annotate(method, point, (5, 4), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", xlabel="encoding, CPU seconds per gigapixel", ylabel="PSNR, dB, mean over all cells")
    axes.set_title("What the detector PC pays, and what comes out of as many bytes", loc="left", fontsize=9)
    axes.margins(x=0.2)
    return figure
