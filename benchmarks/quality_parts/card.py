"""The results as tables for people."""

from __future__ import annotations

from typing import Any

from common_parts.table import table
from quality_parts.framefold import METHODS, REFERENCES, TO_BYTES
from quality_parts.rivals import OUTER_MARKS, SAME_BYTES

Row = dict[str, Any]
ORDER = (*METHODS, *TO_BYTES, "gap-tv", *REFERENCES, *SAME_BYTES, *OUTER_MARKS)


def card(results: dict[str, Any]) -> str:
    """Everything measured, a table a question."""
    parts = [_ratio(results["rows"], ratio) for ratio in sorted({row["ratio"] for row in results["rows"]})]
    parts += [_lattice(results["rows"]), _trust("Unlike training", results["unlike"])]
    if results["noisy"]:
        parts.append(_trust("Noisy recordings", results["noisy"]))
    return "\n\n".join([*filter(None, parts), *map(_verdict, results["verdicts"])])


def _ratio(rows: list[Row], ratio: int) -> str:
    """PSNR (and SSIM) of every method and clip, the doses side by side."""
    mine = [row for row in rows if row["ratio"] == ratio]
    clips, doses = (list(dict.fromkeys(row[key] for row in mine)) for key in ("clip", "dose"))
    found = {(row["method"], row["clip"], row["dose"]): row for row in mine}
    head = ("method", *(f"{clip} {dose:g}" for clip in clips for dose in doses))
    cells = [
        (method, *(_score(found.get((method, clip, dose))) for clip in clips for dose in doses))
        for method in ORDER
        if any(row["method"] == method for row in mine)
    ]
    title = "Not compressed"
    if ratio > 1:
        title = f"B = {ratio}"
        wire = (_number(found[METHODS[0], clip, dose]["wire_ratio"], 1) for clip in clips for dose in doses)
        cells = [("wire ratio", *wire), *cells]
    return f"{title}: PSNR in dB (SSIM) at each clip and dose in e-/px\n{table(head, cells)}"


def _score(row: Row | None) -> str:
    return "-" if row is None or "psnr" not in row else f"{row['psnr']:.1f} ({row['ssim']:.2f})"


def _lattice(rows: list[Row]) -> str:
    """Means over the clips that have columns."""
    mine = [row for row in rows if row.get("column_px") is not None and row["ratio"] > 1]
    if not mine:
        return ""
    keys = list(dict.fromkeys((row["ratio"], row["dose"]) for row in mine))
    head = ("method", *(f"B {ratio}, {dose:g}" for ratio, dose in keys))
    cells = []
    for method in ORDER:
        of_method = [row for row in mine if row["method"] == method]
        if of_method:
            groups = [[row for row in of_method if (row["ratio"], row["dose"]) == key] for key in keys]
            cells.append((method, *(f"{_mean(group, 'column_px'):.2f} / {_mean(group, 'frc_px'):.1f}" for group in groups)))
    return f"Lattices: columns' error / FRC resolution, pixels, at each dose in e-/px\n{table(head, cells)}"


def _mean(rows: list[Row], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows) if rows else float("nan")


def _trust(title: str, rows: list[Row]) -> str:
    head = ("clip", "B", "model", "chi2", "PSNR dB")
    cells = [
        (row["clip"], str(row["ratio"]), row["model"], _number(row["chi2"], 2), _number(row.get("psnr"), 1)) for row in rows
    ]
    return f"{title}\n{table(head, cells)}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(verdict: dict[str, Any]) -> str:
    chi2 = verdict["chi2_within"]
    lines = [
        f"{verdict['method']} beats the best rival of as many bytes in {verdict['won_psnr']} of {verdict['cells']} cells "
        f"by PSNR, in {verdict['won_ssim']} by SSIM; mean margin {verdict['mean_psnr_margin']:+.2f} dB; "
        f"chi2 within {chi2['range'][0]:g} to {chi2['range'][1]:g} in {chi2['share']:.0%}",
    ]
    over = verdict["mean_psnr_over_same_snapshots"]
    if over is not None:
        lines.append(f"  {over:+.2f} dB over the reference net on framefold's own snapshots")
    lines += [
        f"  lost: {one['clip']}, {one['dose']:g} e-/px, B = {one['ratio']}, {one['psnr_margin']:+.2f} dB to {one['rival']}"
        for one in verdict["lost"]
    ]
    lines += [f"  {rival}: {why}" for rival, why in {one["rival"]: one["why"] for one in verdict["lost"]}.items()]
    return "\n".join(lines)
