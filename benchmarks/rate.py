"""For given bytes: fewer frames a snapshot in wider bins, or more frames in narrower ones? On training scenes alone.

    python benchmarks/rate.py [--movies 100] [--steps 0.5,1,1.5,2,3] [--json PATH]

Training's own movies (of numbers that no training reaches) are folded at random doses by plain masks at B = 10, 15 and
30, losslessly: that many bytes a frame. Then B is free: block maps, bins of each width, and for each the fewest frames a
snapshot that take no more bytes; and with the width free as well (`--step-sigma auto`). All are reconstructed over the same
frames; the score is the mean gain in PSNR over the plain lossless snapshots. The encoder's `FEW` and `WIDTHS` were chosen on
such scenes; no clip that quality is measured on is used. chi2 is told as well, and that of the encoder's default, block maps
and exact sums of as many frames: none of these scenes is unlike training. Prints a card and, as the last line, one JSON
document.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from common_parts.document import command, machine, publish
from common_parts.table import table
from framefold_decoder.quality import psnr
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.budget import WIDTHS
from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_training.pool import PoolSpec, render
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.folding import Counts, fold
from quality_parts.to_bytes import reconstruct, to_bytes
from quality_parts.verdict import CHI2_RANGE

FIRST_MOVIE = 20_000_000
SIDE = 192
FRAMES = 150
SCORED = slice(60, 90)
"""Frames with two groups on both sides, whole groups of each of `RATIOS`."""
RATIOS = (10, 15, 30)
STEPS = (0.5, 1.0, 1.5, 2.0, 3.0)
AUTO = "auto"
"""The width is free; of these snapshots chi2 is measured, too."""
KINDS = {"plain_chi2": "plain snapshots", "default_chi2": "the default, block maps", "chi2": "B and bins free"}
"""Of snapshots whose chi2 is told."""
DOSES = (3.0, 200.0)
BANDS = {"3 to 15 e-/px": (3, 15), "15 to 60 e-/px": (15, 60), "60 to 200 e-/px": (60, 200)}
Row = dict[str, Any]


def counted(number: int) -> tuple[float, npt.NDArray[np.float32], Counts]:
    """A movie at a dose of its own, in e-/px: its expected electrons, and a draw of them."""
    rng = np.random.default_rng([number, 7])
    dose = float(np.exp(rng.uniform(*np.log(DOSES))))
    clean = render(PoolSpec(frames=FRAMES, side=SIDE), FIRST_MOVIE + number).astype(np.float32)
    expected = clean * np.float32(dose / clean.mean())
    counts = rng.poisson(expected)
    return dose, expected, counts.astype(np.uint8 if counts.max() < 256 else np.uint16)


def look(number: int, registry: Registry, model: str, steps: tuple[float, ...] = STEPS) -> list[Row]:
    """A row a B of the plain snapshots and step, free last, of one movie."""
    dose, expected, counts = counted(number)
    truth, peak, rows = expected[SCORED], float(expected.max()), list[Row]()
    for plain_ratio in RATIOS:
        plain = fold(counts, [derive_masks(MaskSpec(ratio=plain_ratio), (SIDE, SIDE))])
        seen = reconstruct(plain, SCORED, registry, model)
        reference = psnr(seen.frames, truth, peak)
        own = fold_adaptively(groups_of(counts, plain_ratio))
        default = reconstruct(own, SCORED, registry, model)
        beside = {
            "plain_chi2": seen.misfits,
            "default_chi2": default.misfits,
            "default_psnr": psnr(default.frames, truth, peak),
        }
        beside["default_bytes_per_frame"] = own.bytes_per_frame
        for step, widths in [(step, (step,)) for step in steps] + [(AUTO, WIDTHS)]:
            ratio, folded = to_bytes(counts, plain.bytes_per_frame, widths, SCORED.stop)
            free = reconstruct(folded, SCORED, registry, model, judge=step == AUTO)
            found = psnr(free.frames, truth, peak)
            told = {"movie": number, "dose": dose, "plain_ratio": plain_ratio, "step_sigma": step, "ratio": ratio}
            told["width"] = max(group.step_sigma for group in folded.groups)
            sizes = {"bytes_per_frame": folded.bytes_per_frame, "plain_bytes_per_frame": plain.bytes_per_frame}
            sizes |= {"wire_ratio": counts[0].nbytes / folded.bytes_per_frame, "plain_psnr": reference, "psnr": found}
            rows.append(told | sizes | (beside | {"chi2": free.misfits} if step == AUTO else {}))
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """Mean gain and B by step, for each B of the plain snapshots and band of doses, and over all."""
    found = []
    for plain_ratio in (None, *RATIOS):
        for band, (low, high) in ({"all": (0, np.inf)} | BANDS).items():
            for step in dict.fromkeys(row["step_sigma"] for row in rows):
                mine = [
                    row
                    for row in rows
                    if row["step_sigma"] == step and low <= row["dose"] < high and plain_ratio in (None, row["plain_ratio"])
                ]
                if mine:
                    gain, ratio = (mean(row["psnr"] - row["plain_psnr"] for row in mine), mean(row["ratio"] for row in mine))
                    found.append({"plain_ratio": plain_ratio, "doses": band, "step_sigma": step, "gain": gain, "ratio": ratio})
    return found


def trusted(rows: list[Row]) -> Row:
    """The share of the snapshots whose chi2 lies in the range: none of these scenes is unlike training."""
    found: Row = {"range": CHI2_RANGE}
    for kind in KINDS:
        misfits = np.array([one for row in rows if kind in row for one in row[kind]])
        inside = (misfits >= CHI2_RANGE[0]) & (misfits <= CHI2_RANGE[1])
        found[kind] = {
            "snapshots": len(misfits),
            "within": float(inside.mean()),
            "above": float((misfits > CHI2_RANGE[1]).mean()),
        }
    return found


def card(means: list[Row]) -> str:
    """A line a B and band of doses, a column a step."""
    lines = []
    for key in dict.fromkeys((row["plain_ratio"], row["doses"]) for row in means):
        mine = [row for row in means if (row["plain_ratio"], row["doses"]) == key]
        lines.append([str(key[0] or "all"), key[1], *(f"{row['gain']:+.2f} ({row['ratio']:.1f})" for row in mine)])
    steps = dict.fromkeys(row["step_sigma"] for row in means)
    head = ["plain B", "doses", *(step if step == AUTO else f"{step:g} sigma" for step in steps)]
    return "Gain over plain lossless snapshots of the same bytes, dB (mean B)\n" + table(head, lines, left=2)


def main() -> int:
    """Run the study; returns its exit status."""
    parser = argparse.ArgumentParser(description="Frames a snapshot and width of the bins for given bytes.")
    parser.add_argument("--movies", type=int, default=100)
    parser.add_argument("--steps", type=_numbers, default=STEPS, help="widths of the bins, sigma (default 0.5,1,1.5,2,3)")
    parser.add_argument("--model", default="auto", help="reconstruct with: auto, or a model's name")
    parser.add_argument("--models", type=Path, help="folder of further models, NAME.onnx with NAME.json")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    given = parser.parse_args()
    rows: list[Row] = []
    try:
        registry = Registry(given.models, provider="cpu")
        registry.check(given.model)
        for number in range(given.movies):
            rows += look(number, registry, given.model, given.steps)
            print(f"\r{number + 1} of {given.movies} movies", end="", file=sys.stderr)
    except FramefoldError as error:
        print(f"rate: {error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    means = summary(rows)
    trust = trusted(rows)
    print(card(means))
    for kind, name in KINDS.items():
        print(f"chi2 of {name}: {trust[kind]['within']:.1%} of {trust[kind]['snapshots']} within {CHI2_RANGE}")
    publish({"command": command(), "machine": machine(), "means": means, "trust": trust, "rows": rows}, given.json)
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
