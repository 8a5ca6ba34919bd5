"""Spoilt messages through both ends of the link: each is taken, or refused with a `RemoteProtocolError`, and nothing else.

    python benchmarks/fuzz.py [--messages 1000000] [--seed 0] [--json PATH]

A decoder's and an encoder's session, with what a daemon does around them (checks of the stream, decoding of pixels; no sockets,
disk or masks), are fed in turns. What is spoilt: the vectors of `protocol/vectors/messages.json`, those to be refused too, and
messages made to fit the session's state, so that every state is reached; right ones in between move it on and are not counted.
Spoilt are parts, bytes, single fields at any depth, types, versions, checksums, and what Blosc2 chunks say of themselves; most
get a right checksum afterwards. A finding is any other exception, the session's complaint about its own caller among them; or
memory that grows beyond `LIMIT_MB` over its begin. Time is CPU time: the slowest message shows that none hangs.
Prints a card and, as the last line, one JSON document; exits 1 with findings, each with the message in hex.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common_parts.document import command, publish
from framefold_protocol import wire
from framefold_protocol.messages import Audit, Gap, Hello, RawFrames, Snapshot
from fuzz_parts.mutations import Mutator
from fuzz_parts.sides import DecoderSide, EncoderSide

VECTORS = Path(__file__).parents[1] / "protocol" / "vectors" / "messages.json"
LIMIT_MB = 400
"""A message may make a decoder hold 128 MiB of frames, with and without their base."""
SAMPLES = 10


@dataclass
class Run:
    """What happened."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {"decoder": Counter(), "encoder": Counter()})
    right: int = 0
    """Messages that were not spoilt."""
    findings: list[dict[str, str]] = field(default_factory=list)
    slowest_ms: float = 0.0
    resident_mb: list[float] = field(default_factory=list)
    """At equal distances over the run."""


def fuzz(messages: int, seed: int) -> Run:
    """Feed so many spoilt messages."""
    chance = random.Random(seed)
    vectors = json.loads(VECTORS.read_text())
    known = [
        [bytes.fromhex(part) for part in case["parts"]] for kind in vectors.values() if isinstance(kind, list) for case in kind
    ]
    decoded = [wire.decode([bytes.fromhex(part) for part in case["parts"]]) for case in vectors["messages"]]
    stream = next(message.stream for message in decoded if isinstance(message, Hello))
    data = [message for message in decoded if isinstance(message, Snapshot | RawFrames | Audit | Gap)]
    sides = {"decoder": DecoderSide(chance, stream, data), "encoder": EncoderSide(chance, stream)}
    mutator, run = Mutator(chance), Run()
    for number in range(messages):
        if number % max(1, messages // SAMPLES) == 0:
            run.resident_mb.append(resident_mb())
        name = chance.choice(("decoder", "decoder", "encoder"))
        side = sides[name]
        while chance.random() < 0.25:
            run.right += 1
            feed(run, name, side, side.plausible(), count=False)
        parts = chance.choice(known) if chance.random() < 0.3 else side.plausible()
        feed(run, name, side, mutator.spoil(parts))
    run.resident_mb.append(resident_mb())
    return run


def feed(run: Run, name: str, side: DecoderSide | EncoderSide, parts: wire.Parts, count: bool = True) -> None:
    """One message, and what came of it."""
    begun = time.thread_time()
    try:
        outcome = side.hear(parts)
    except Exception as error:
        outcome = "finding"
        run.findings.append(
            {"side": name, "error": repr(error)[:300], "parts": "|".join(part.hex() for part in parts[:8])[:4000]}
        )
        side.restart()
    run.slowest_ms = max(run.slowest_ms, 1000 * (time.thread_time() - begun))
    run.outcomes[name][outcome] += count


def resident_mb() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def peak_mb() -> float:
    """The most memory this program ever had, in MB: `ru_maxrss` would be that of the process it was started by."""
    status = Path("/proc/self/status").read_text()
    return round(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6, 1)  # type: ignore[index]


def card(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [
        f"{results['messages']:,} spoilt messages and {results['right']:,} right ones in {results['cpu_s']:.0f} s of CPU time"
    ]
    for side in ("decoder", "encoder"):
        counts = sorted(results[side].items(), key=lambda item: -item[1])
        lines.append(f"{side:>8}: " + ", ".join(f"{name} {count:,}" for name, count in counts))
    begin, end, peak = results["resident_mb"][0], results["resident_mb"][-1], results["peak_mb"]
    lines.append(f"  memory: {begin:.0f} MB at the begin, {end:.0f} MB at the end, {peak:.0f} MB at most")
    lines.append(f" slowest: {results['slowest_ms']:.1f} ms")
    lines += [f" FINDING: {found['side']}: {found['error']}\n          {found['parts'][:200]}" for found in results["findings"]]
    return "\n".join(lines)


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Spoilt messages through both ends of the link.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="spoilt messages to feed (default 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed spoils the same way (default 0)")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    options = parser.parse_args()
    run = fuzz(options.messages, options.seed)
    grown = peak_mb() - run.resident_mb[0]
    if grown > LIMIT_MB:
        run.findings.append({"side": "both", "error": f"memory grew by {grown:.0f} MB, limit {LIMIT_MB}", "parts": ""})
    results = {
        "command": command(),
        "messages": options.messages,
        "seed": options.seed,
        "right": run.right,
        **{name: dict(counts.most_common()) for name, counts in run.outcomes.items()},
        "findings": run.findings[:20],
        "finding_count": len(run.findings),
        "resident_mb": run.resident_mb,
        "peak_mb": peak_mb(),
        "slowest_ms": round(run.slowest_ms, 1),
        "cpu_s": round(time.process_time(), 1),
    }
    print(card(results))
    publish(results, options.json)
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())
