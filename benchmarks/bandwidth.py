"""What folding saves on the wire and what it costs the detector PC, against every coder a facility might use instead.

    python benchmarks/bandwidth.py [--source sim:] [--link 1Gbit] [--json PATH] [--plots DIR] [--quick]

Two limits rule. **Memory**: a frame must be read once to be folded, and a sum under a mask is so little work that a core is
done with 64 pixels before the next ones have arrived. So the yardstick of the kernel is a loop that only reads the same array:
no coder can be faster, and one that transforms pixels with their neighbours, like JPEG, is tens of times slower. **Shot
noise**: counts are independent Poisson draws, log2(sqrt(2 pi e n)) bits each at n electrons, and no lossless coder of frames
gets far below that (order-0 entropy, see `bandwidth_parts/folded.py`): less than a factor of two at 20 e-/px and 8 bits.
Folding goes further because the masked sum of B frames is one draw instead of B, and twice the electrons cost half a bit, not
twice the bits. The price: frames come back reconstructed, not exact. `lossless` is said of the sums; PSNR tells how good the
frames are.

Frames are the simulator's at doses of 1 to 100 e-/px, or a recording's (`--source file:movie.tif`). Speeds are taken in turns
and ratios are medians of seven rounds (`bandwidth_parts/machine.py`). `wire ratio` counts every byte of the messages; GB/s are
bytes of frames, each coder on one thread. Prints a card and, as the last line, one JSON document. `--quick` shows in seconds
that all of it works, on small frames that stay in caches: its speeds mean nothing. Needs the extra `benchmarks`; a coder whose
library is missing is left out with the reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bandwidth_parts import comparison, detectors, encoding, streaming
from bandwidth_parts.card import card
from bandwidth_parts.folded import RATIO
from bandwidth_parts.limited_link import parse_rate
from bandwidth_parts.material import Counts, Material, fit, load, typical
from common_parts.document import command, machine, publish
from common_parts.progress import Progress
from framefold_protocol.errors import FramefoldError

FRAMES = 60
"""Of each dose: whole groups of 10, 20 and 30."""
Results = dict[str, Any]


class Plan:
    """How much of everything."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.shape = "128x192" if quick else "1024x1024"
        """Of the simulator's frames, unless the source says another."""
        self.sides = (256,) if quick else encoding.SIDES
        self.rounds = 3 if quick else 7
        self.seconds = 0.3 if quick else 2.0
        """Of each stream."""


def measure(source: str, rate: float, plan: Plan) -> Results:
    """All sections, one after the other."""
    progress = Progress(2 * len(plan.sides) + 10)
    progress.step("frames")
    materials = load(source, FRAMES, plan.shape)
    usual = typical(materials)
    results: Results = {"machine": machine(), "dose": usual.dose}
    cases = []
    for dtype, material in ((np.dtype(np.uint8), usual), (np.dtype(np.uint16), materials[-1])):
        for side in plan.sides:
            progress.step(f"folding {side}x{side} {dtype}")
            cases += encoding.measure(material.counts, side, dtype, plan.rounds, plan.quick)
    results |= _encode_section(cases)
    progress.step("the whole encoder")
    results["pipeline"] = _pipeline_section(usual, plan)
    progress.step("a limited link")
    results["link"] = streaming.measure_link(_large(usual.counts, plan), rate, plan.seconds)
    progress.step("coders")
    results["coders"] = comparison.speed_rows(usual, plan.rounds)
    results["wire"] = []
    for material in materials:
        progress.step(f"wire ratio at {material.dose:g} e-/px")
        results["wire"] += comparison.wire_rows(material)
    progress.step("detectors")
    results["detectors"] = detectors.table(usual.counts, usual.dose, _lossless_bits(results["coders"], usual.counts))
    progress.end()
    return results


def _encode_section(cases: list[Results]) -> Results:
    best = encoding.headline(cases, "uint8")
    heads = {dtype: encoding.headline(cases, dtype) for dtype in ("uint8", "uint16")}
    return {"read_gb_s": best["read_gb_s"], "memcpy_gb_s": best["memcpy_gb_s"], "encode": heads, "encode_cases": cases}


def _pipeline_section(material: Material, plan: Plan) -> Results:
    """The case that stands for it: one folding thread, the encoder's default."""
    cases = streaming.measure_pipeline(_large(material.counts, plan, 2048), plan.rounds, plan.seconds)
    return {**cases[0], "cases": cases}


def _large(counts: Counts, plan: Plan, side: int = 1024) -> Counts:
    """Whole groups of square frames, more than caches hold."""
    side = 256 if plan.quick else side
    groups = 1 if plan.quick else max(2, encoding.CACHE_BYTES // (RATIO * side * side * counts.itemsize))
    return fit(counts, (groups * RATIO, side, side), counts.dtype)


def _lossless_bits(coders: list[Results], counts: Counts) -> float:
    """Bits a pixel of the best lossless coder of single frames."""
    best = max(row["wire_ratio"] for row in coders if row["lossless"] and "gb_s" in row)
    return counts.itemsize * 8 / float(best)


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="What folding saves on the wire, and what it costs.")
    parser.add_argument("--source", default="sim:", help="frames to measure on, as of framefold-encoder (default sim:)")
    parser.add_argument("--link", default="1Gbit", help="rate of the limited link, such as 100Mbit or 10Gbit (default 1Gbit)")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    parser.add_argument("--plots", type=Path, help="write plots (PNG) into this folder; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="everything once, small and short: speeds mean nothing")
    options = parser.parse_args()
    try:
        results = measure(options.source, parse_rate(options.link), Plan(options.quick))
    except FramefoldError as error:
        print(f"bandwidth: {error}", file=sys.stderr)
        return 2
    results = {"command": command(), **results}
    print(card(results))
    if options.plots:
        from bandwidth_parts.plots import draw

        draw(results, options.plots)
    publish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
