"""From a detector's frames in memory to snapshots on the decoder's disk, and on to frames again: how fast, at what cost.

    python benchmarks/pipeline.py [--sides 256,512,1024] [--json PATH] [--plot PATH] [--quick]

Two processes, as in use: `framefold-encoder` reads a .npy that lies in memory, as fast as it can, `framefold-decoder` stores
and reconstructs. A stream's time runs from its first frame's arrival at the encoder to the decoder's word that the stream is
stored and closed; starting up is not in it. Four things rule:

* **Storing** is counted in messages: each costs the same few milliseconds of bookkeeping and fsync, shared by those that
  arrive together. So frames per second fall slower than pixels grow.
* **The disk** gets the messages' bytes once at the encoder (journal) and again at the decoder, always before an ack. The
  same stream without a journal, stored in memory, shows what that costs; the two are measured in turns, and the fraction is
  the median of the rounds'. The disk's own rate, large blocks written and fsynced one by one, is measured beside it;
  `fraction_of_the_lower` holds the messages' bytes per second against the slower of the two. At least 0.7 is promised.
* **Reconstruction** on a CPU is about a hundred times slower than storing, and waits behind it: nothing is lost by that.
* **Latency** is measured at a camera's pace: from the last frame of a group to its ack on the link, where all is stored
  and nothing reconstructed; and to its frames on the disk, at half the pace that is reconstructed at most. A snapshot waits
  for two more before it is reconstructed (the net looks at them), so the time of two groups is part of that.

CPU time is the processes' own, all threads, without starting up. Prints a card and, as the last line, one JSON document.
`--quick` shows in a minute that all of it works; its numbers mean nothing. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common_parts.document import command, machine, publish
from common_parts.progress import Progress
from pipeline_parts.card import card
from pipeline_parts.cases import Bench, Case
from pipeline_parts.disk import write_gb_s
from soak_parts.daemon import SoakFailure

MEMORY = Path("/dev/shm")
BYTES = 600 << 20
"""Of the frames of one stream."""


def cases(sides: list[int], quick: bool) -> list[Case]:
    """As many frames as fit into `BYTES`, whole groups of 20."""
    if quick:
        return [Case(side, 200, 60, 2.0) for side in sides]
    return [Case(side, min(BYTES // side**2, 8000) // 20 * 20, 200 if side <= 512 else 60, 20.0) for side in sides]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All frame sizes."""
    plan = cases(options.sides, options.quick)
    progress = Progress(len(plan) + 2)
    results: dict[str, Any] = {"machine": machine(), "model": options.model}
    fast = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast) as memory, tempfile.TemporaryDirectory(dir=options.folder) as disk:
        progress.step("the disk")
        results["disk_gb_s"] = write_gb_s(Path(disk), 0.5 if options.quick else 5.0)
        progress.step("compiling")
        subprocess.run([Path(sys.executable).with_name("framefold-encoder"), "warm-up"], check=True, capture_output=True)
        bench = Bench(Path(memory), Path(disk), results["disk_gb_s"], 1 if options.quick else 3, options.model)
        results["cases"] = []
        for case in plan:
            progress.step(f"frames of {case.side} x {case.side}")
            results["cases"].append(bench.measure(case))
    progress.end()
    return results


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="How fast frames are stored and reconstructed, and what it costs.")
    parser.add_argument("--sides", default="256,512,1024", help="sides of the frames in pixels (default 256,512,1024)")
    parser.add_argument("--model", default="auto", help="what reconstructs, as of framefold-decoder (default auto)")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; default: the system's for such files")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    parser.add_argument("--plot", type=Path, help="write the plot (PNG) here; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="everything once, small and short: numbers mean nothing")
    options = parser.parse_args()
    options.sides = [int(side) for side in options.sides.split(",")]
    try:
        results = measure(options)
    except SoakFailure as failure:
        print(f"pipeline: {failure}", file=sys.stderr)
        return 1
    results = {"command": command(), **results}
    print(card(results))
    if options.plot:
        from pipeline_parts.plot import draw

        draw(results, options.plot)
    publish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
