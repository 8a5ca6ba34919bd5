"""The plots: wire ratio against dose, and what each coder gives for what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
NAMES = ("bandwidth-dose.png", "bandwidth-coders.png")


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write both plots into `folder`, which is made; returns their paths."""
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in NAMES]
    _wire_against_dose(results["wire"]).savefig(paths[0], dpi=130)
    _coders(results["coders"], results["dose"]).savefig(paths[1], dpi=130)
    return paths


def _wire_against_dose(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for coder, style in (("framefold lossless", "-"), ("framefold half-sigma", "--")):
        for ratio, colour in ((10, "C0"), (20, "C1"), (30, "C2")):
            mine = [row for row in rows if row["coder"] == coder and row["ratio"] == ratio]
            axes.plot(*_points(mine, "wire_ratio"), style, marker="o", ms=4, color=colour, label=f"{coder}, B = {ratio}")
            axes.plot(*_points(mine, "entropy_ratio"), linestyle="none", marker="_", ms=14, color=colour)
    for number, coder in enumerate(("zstd", "bitshuffle-LZ4", "JPEG", "JPEG-LS")):
        mine = [row for row in rows if row["coder"] == coder]
        axes.plot(*_points(mine, "wire_ratio"), ":", marker="s", ms=3, color=f"C{number + 3}", label=f"{coder}, frame by frame")
    axes.set(xscale="log", yscale="log", xlabel="dose in e⁻/px and frame", ylabel="wire ratio")
    doses = sorted({row["dose"]: row["dtype"] for row in rows}.items())
    axes.set_xticks([dose for dose, _ in doses], [f"{dose:g}\n{dtype}" for dose, dtype in doses])
    axes.set_xticks([], minor=True)
    axes.set_title("Bytes delivered over bytes sent; dashes: what order-0 entropy allows", loc="left", fontsize=9)
    figure.legend(fontsize=7, loc="outside right upper", handlelength=4)
    return figure


def _points(rows: list[Row], key: str) -> tuple[list[float], list[float]]:
    return [row["dose"] for row in rows], [row[key] for row in rows]


def _coders(rows: list[Row], dose: float) -> Figure:
    measured = [row for row in rows if "gb_s" in row]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    speed, quality = figure.subplots(1, 2)
    _scatter(speed, measured, "gb_s", "encoding in GB/s on one core")
    speed.set_xscale("log")
    bound = next(row["wire_ratio"] for row in rows if "entropy" in row["coder"])
    speed.axhline(bound, color="0.6", lw=0.8, ls="--")
    speed.text(speed.get_xlim()[1], bound * 1.1, "order-0 entropy of single frames", fontsize=7, color="0.4", ha="right")
    # Lossless coders leave the same frames: one of them stands for all.
    known = [row for row in measured if row.get("psnr_db") is not None and (not row["lossless"] or row["coder"] == "zstd")]
    _scatter(quality, known, "psnr_db", "PSNR of what comes out, against the truth, in dB")
    figure.suptitle(
        f"Coders at {dose:g} e⁻/px and frame: what they cost, and what is left of the frames", x=0.01, ha="left", fontsize=9
    )
    return figure


def _scatter(axes: Axes, rows: list[Row], key: str, label: str) -> None:
    for row in rows:
        own = row["coder"].startswith("framefold")
        axes.plot(row[key], row["wire_ratio"], "o" if row["lossless"] else "x", color="C1" if own else "C0", ms=6)
        axes.annotate(row["coder"], (row[key], row["wire_ratio"]), (4, 4), textcoords="offset points", fontsize=7)
    axes.set(yscale="log", xlabel=label, ylabel="wire ratio (o: frames exact, x: not)")
    axes.margins(x=0.18)
