"""From how little motion on does a longer sum lose nothing? The threshold of `is_still`, on training scenes alone.

    python benchmarks/still.py [--movies 100] [--json PATH]

Training's own movies (of numbers that no training reaches) are folded at random doses at B = 4 to 30, with block maps and in
bins of one sigma, and reconstructed over the same frames. A stream that begins at one of these B and takes the next one as long
as the mean motion of its groups is below a threshold ends at some B: what that gains in PSNR over where it began, and the bytes
it takes then; the tenth of the movies that gains least is told, too. Of nine blocks mean motion is known to a twentieth or so
only. No clip that quality is measured on is used. Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from common_parts.document import command, machine, publish
from common_parts.table import table
from framefold_decoder.quality import psnr
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.exposure import STILL_BELOW
from framefold_encoder.motion import motion
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import FramefoldError
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.to_bytes import reconstruct
from rate import FRAMES, SCORED, counted

FIRST_NUMBER = 1_000
"""Beyond those of `rate.py`."""
RATIOS = (4, 6, 8, 10, 12, 15, 20, 25, 30)
BINS = VarianceStabilised(gain=1.0, step=1.0)
THRESHOLDS = (0.0, 0.03, STILL_BELOW, 0.1, 0.2, 0.4, 1.0, np.inf)
Row = dict[str, Any]


def look(number: int, registry: Registry, model: str) -> list[Row]:
    """A row a B of one movie."""
    dose, expected, counts = counted(number)
    rows = []
    for ratio in RATIOS:
        folded = fold_adaptively(groups_of(counts, ratio), BINS)
        found = reconstruct(folded, SCORED, registry, model, judge=False)
        seen = [motion(group) for group in groups_of(counts[:FRAMES], ratio)[SCORED.start // ratio : -(-SCORED.stop // ratio)]]
        told = {"movie": number, "dose": dose, "ratio": ratio, "motion": float(np.mean(seen))}
        told["psnr"] = psnr(found.frames, expected[SCORED], float(expected.max()))
        rows.append(told | {"bytes_per_frame": folded.bytes_per_frame})
    return rows


def grown(rows: list[Row], start: int, threshold: float) -> tuple[Row, Row]:
    """Of one movie's rows: where a stream begins, and where it ends."""
    known = {row["ratio"]: row for row in rows}
    ratios = [ratio for ratio in RATIOS if ratio >= start]
    at = 0
    while at + 1 < len(ratios) and known[ratios[at]]["motion"] < threshold:
        at += 1
    return known[start], known[ratios[at]]


def summary(movies: list[list[Row]]) -> list[Row]:
    """A row a beginning and threshold."""
    found = []
    for start in (4, 8, 15):
        for threshold in THRESHOLDS:
            pairs = [grown(rows, start, threshold) for rows in movies]
            gains = np.array([end["psnr"] - begin["psnr"] for begin, end in pairs])
            told = {"start": start, "threshold": threshold if np.isfinite(threshold) else None, "gain": float(gains.mean())}
            told |= {"least_tenth": float(np.quantile(gains, 0.1)), "ratio": mean(end["ratio"] for _, end in pairs)}
            share = mean(end["bytes_per_frame"] / begin["bytes_per_frame"] for begin, end in pairs)
            found.append(told | {"bytes": share})
    return found


def card(means: list[Row]) -> str:
    """The summary as a table."""
    head = ("from B", "motion below", "gain dB", "tenth that gains least", "to B", "bytes")
    cells = [
        (
            str(row["start"]),
            "always" if row["threshold"] is None else f"{row['threshold']:g}",
            f"{row['gain']:+.2f}",
            f"{row['least_tenth']:+.2f}",
            f"{row['ratio']:.1f}",
            f"{row['bytes']:.2f}",
        )
        for row in means
    ]
    return f"Sums that grow while nothing moves; the encoder's threshold is {STILL_BELOW}\n{table(head, cells)}"


def main() -> int:
    """Run the study; returns its exit status."""
    parser = argparse.ArgumentParser(description="From how little motion on longer sums lose nothing.")
    parser.add_argument("--movies", type=int, default=100)
    parser.add_argument("--model", default="auto", help="reconstruct with: auto, or a model's name")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    given = parser.parse_args()
    movies: list[list[Row]] = []
    try:
        registry = Registry(None, provider="cpu")
        registry.check(given.model)
        for k in range(given.movies):
            movies.append(look(FIRST_NUMBER + k, registry, given.model))
            print(f"\r{k + 1} of {given.movies} movies", end="", file=sys.stderr)
    except FramefoldError as error:
        print(f"still: {error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    means = summary(movies)
    print(card(means))
    rows = [row for movie in movies for row in movie]
    publish({"command": command(), "machine": machine(), "means": means, "rows": rows}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
