"""Who won: framefold against every rival of as many bytes, cell by cell, and why a cell was lost.

No method of framefold takes more bytes than the default lossless snapshots that the rivals are tuned to; `more_bytes` says how
many fewer. With B free the fewest frames, or the most, may not come out at just as many.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean
from typing import Any

from quality_parts.framefold import REFERENCES, TO_BYTES
from quality_parts.rivals import OUTER_MARKS, SAME_BYTES

Row = dict[str, Any]
OURS = ("framefold lossless", "framefold half-sigma", "framefold plain", *TO_BYTES)
PAPERS, SAME_SNAPSHOTS = REFERENCES
RIVALS = ("gap-tv", PAPERS, *SAME_BYTES)
"""Not the reference net on framefold's own snapshots, which is told apart: it is framefold with another net."""
CHI2_RANGE = (0.9, 1.1)
_REASONS = {
    "mean": "little moves within the group: averaging has all of its electrons, a coded snapshot a quarter of them",
    "every": "the scene changes so little and the dose is so high that a few exact frames tell the others",
    "gap-tv": "the net is no better there than the solver that no data taught",
    "reference": "the reference net is better there",
    "codec": "at this dose shot noise is small beside the scene, which the coder predicts from frame to frame",
}


def verdicts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For each of `OURS`: cells, wins by PSNR and by SSIM, the mean margin in dB over the best rival, lost cells, chi2."""
    measured = [row for row in rows if "psnr" in row and row["method"] not in OUTER_MARKS]
    return [_verdict(measured, method) for method in OURS]


def _verdict(rows: list[Row], method: str) -> dict[str, Any]:
    margins = [_margin(cell, method) for cell in _by_cell(rows)]
    mine = [row for row in rows if row["method"] == method]
    misfits = [row["chi2"] for row in mine]
    low, high = CHI2_RANGE
    return {
        "method": method,
        "more_bytes": mean(row["sent_bytes"] / row["allowed_bytes"] - 1 for row in mine),
        "cells": len(margins),
        "won_psnr": sum(one["psnr_margin"] > 0 for one in margins),
        "won_ssim": sum(one["ssim_margin"] > 0 for one in margins),
        "mean_psnr_margin": mean(one["psnr_margin"] for one in margins),
        "mean_psnr_margin_by_ratio": _by(margins, "ratio"),
        "mean_psnr_margin_by_clip": _by(margins, "clip"),
        "mean_psnr_over_same_snapshots": _over_same_snapshots(rows, mine),
        "chi2_within": {"range": CHI2_RANGE, "share": mean(low <= one <= high for one in misfits)},
        "lost": [{**one, "why": _why(one["rival"])} for one in margins if one["psnr_margin"] <= 0],
    }


def _over_same_snapshots(rows: list[Row], mine: list[Row]) -> float | None:
    """In dB over the reference net on framefold's own snapshots, where it was measured."""
    others = {_key(row): row["psnr"] for row in rows if row["method"] == SAME_SNAPSHOTS}
    return mean(row["psnr"] - others[_key(row)] for row in mine if _key(row) in others) if others else None


def _key(row: Row) -> tuple[Any, ...]:
    return row["clip"], row["dose"], row["ratio"]


def _by_cell(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one clip, dose and ratio together."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault(_key(row), []).append(row)
    return list(cells.values())


def _margin(cell: list[Row], method: str) -> Row:
    ours = next(row for row in cell if row["method"] == method)
    rivals = [row for row in cell if row["method"] in RIVALS and row.get("model") != ours["model"]]
    best = max(rivals, key=lambda row: row["psnr"])
    margins = {f"{key}_margin": ours[key] - max(row[key] for row in rivals) for key in ("psnr", "ssim")}
    return {**{key: ours[key] for key in ("clip", "dose", "ratio")}, "rival": best["method"], **margins}


def _by(margins: list[Row], key: str) -> dict[str, float]:
    values = dict.fromkeys(one[key] for one in margins)
    return {str(value): mean(one["psnr_margin"] for one in margins if one[key] == value) for value in values}


def _why(rival: str) -> str:
    return next((reason for start, reason in _REASONS.items() if rival.startswith(start)), _REASONS["codec"])
