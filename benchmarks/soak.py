"""N sent = N stored, exactly once, whatever is killed: the proof, with real processes.

    python benchmarks/soak.py [--minutes 60] [--kills 200] [--calm-minutes 60] [--seed 0] [--json PATH]
    python benchmarks/soak.py --minutes 0 --kills 0 --calm-minutes 60 --json PATH  # the calm part alone, into the same document

`framefold-encoder` streams one finite source after the other to `framefold-decoder` while a seeded scheduler kills either of
them (SIGKILL) or both and starts them again with the same arguments, cuts the link between them, fills their disks and lets
their clocks jump. Afterwards the decoder's store is compared with what runs without any fault store of the same sources: every
chunk file of the snapshots byte for byte, every position once, no frame lost, and the catalogue of one mind with it;
`framefold-decoder verify` must find nothing wrong. Then a calm stream shows that memory stays as it is, and how long a group
takes from its last frame to the ack, and to the stored reconstruction.

What a SIGKILL cannot show, since the system keeps what was written, is a power cut; that is tested by replaying writes
(`tests/`). Disks are filled in a mount namespace of this program's own, which needs root or a system that allows user
namespaces; elsewhere that part is left out, and `disk_fulls_left_out` says why. Linux only.

Prints a card and, as the last line, one JSON document. Exit status 0 when the store is identical, 1 when it is not or
something happened that must not; then the folder with all logs and stores is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common_parts.document import command, machine, write
from soak_parts.calm import stream_calmly
from soak_parts.chaos import Chaos, Tally
from soak_parts.checker import TOLD, Verdict, check
from soak_parts.daemon import SoakFailure
from soak_parts.scenes import make_scenes, run_without_faults
from soak_parts.scheduler import Scheduler
from soak_parts.small_disk import enter_namespace

Results = dict[str, Any]
SETTLE_S = 900
"""How long the reconstruction of what is left may take at the end."""


def soak(options: argparse.Namespace, folder: Path, left_out: str) -> tuple[Tally, Verdict, float]:
    """The part with the faults; returns what was done, what came of it, and how many minutes the faults took."""
    decoder_options = ("--model", options.model, "--threads", 1)
    scheduler = Scheduler(options.seed, disks=not left_out, mean_delay_s=options.mean_delay)
    scenes = [scene for scene in make_scenes(folder, options.seed) if scene.name in (options.scenes or scene.name).split(",")]
    references = run_without_faults(scenes, _made(folder / "reference"))
    with Chaos(folder, scheduler, references, small_disks=not left_out, decoder_options=decoder_options) as chaos:
        tally, start = chaos.tally, time.monotonic()
        while _minutes(start) < options.minutes or tally.kills.total() < options.kills:
            chaos.stream(scheduler.pick(scenes))
            print(f"{_minutes(start):6.1f} min, {len(tally.outcomes)} streams, {tally.kills.total()} kills", file=sys.stderr)
        minutes = _minutes(start)
        decoded = options.model != "none"
        if decoded:
            chaos.settle(SETTLE_S)
        tally.ended_badly = _stop(chaos)
        verdict = check(chaos.data, tally.outcomes, references, decoded=decoded)
        verdict.differences += _verify(chaos.data)
        chaos.keep = not verdict.identical or bool(tally.ended_badly)
    return tally, verdict, minutes


def _stop(chaos: Chaos) -> str:
    """Stop the decoder; returns what is wrong with how it ends, which must not cost the verdict on an hour."""
    try:
        chaos.stop()
    except SoakFailure as failure:
        return str(failure)
    return ""


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _minutes(since: float) -> float:
    return (time.monotonic() - since) / 60


def _verify(data: Path) -> list[str]:
    """What `framefold-decoder verify` finds wrong; nothing, it is to be hoped."""
    program = Path(sys.executable).with_name("framefold-decoder")
    done = subprocess.run([program, "verify", "--data", data], capture_output=True, text=True)
    return [] if done.returncode == 0 else [f"verify ends with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}"]


def report(tally: Tally, verdict: Verdict, minutes: float, left_out: str) -> Results:
    """The document's part on the faults."""
    return {
        "minutes": round(minutes, 1),
        "kills": tally.kills.total(),
        "kills_during": dict(sorted(tally.kills.items())),
        "cuts": tally.cuts.total(),
        "cuts_by_kind": dict(sorted(tally.cuts.items())),
        "disk_fulls": tally.disk_fulls.total(),
        "disk_fulls_left_out": left_out or None,
        "ended_for_want_of_room": dict(tally.ended_for_want_of_room),
        "clock_jumps": tally.clock_jumps.total(),
        "streams": verdict.streams,
        "snapshots_sent": verdict.snapshots_sent,
        "snapshots_stored": verdict.snapshots_stored,
        "duplicates": verdict.duplicates,
        "gaps": verdict.gaps,
        "identical": verdict.identical,
        "ended_badly": tally.ended_badly or None,
        "differences": verdict.differences[:TOLD],
    }


def card(results: Results) -> str:
    """The results for people."""
    lines = _faults_card(results) if "faults" in results["commands"] else []
    if "calm" in results:
        for kind, found in results["latency_ms"].items():
            lines.append(f"latency     to {kind}: p50 {found['p50']} ms, p99 {found['p99']} ms, max {found['max']} ms")
        for side, slope in results["memory_slope_mb_per_h"].items():
            lines.append(f"memory      {side}: {results['calm']['memory_mb'][side]['last']} MB, {slope:+.1f} MB per hour")
    return "\n".join(lines)


def _faults_card(results: Results) -> list[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in results["kills_during"].items())
    lines = [
        f"faults      {results['minutes']} minutes, {results['streams']} streams",
        f"kills       {results['kills']}: {kinds}",
        f"cuts        {results['cuts']}, full disks {results['disk_fulls']}, clock jumps {results['clock_jumps']}",
        f"snapshots   {results['snapshots_sent']} sent, {results['snapshots_stored']} stored, "
        f"{results['duplicates']} duplicates, {results['gaps']} gaps",
        f"store       {'identical to that of a run without faults' if results['identical'] else 'DIFFERS'}",
        *(f"            {difference}" for difference in results["differences"]),
    ]
    if results["ended_badly"]:
        lines.append(f"ended badly {results['ended_badly']}")
    if results["disk_fulls_left_out"]:
        lines.append(f"left out    full disks: {results['disk_fulls_left_out']}")
    return lines


def main() -> int:
    """Run the soak; returns its exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended with it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's & ignores it, and so would all that is started here
    left_out = enter_namespace()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="framefold-soak-", dir=options.folder))
    try:
        results = _both_parts(options, folder, left_out)
    except SoakFailure as failure:
        print(f"soak: {failure}\nsoak: all that is left is in {folder}", file=sys.stderr)
        return 1
    print(card(results))
    print(json.dumps(results))
    if results.get("identical", True) and not results.get("ended_badly"):
        shutil.rmtree(folder)
        return 0
    return 1


def _both_parts(options: argparse.Namespace, folder: Path, left_out: str) -> Results:
    """The document, written after each part."""
    about = {"machine": machine() | {"niceness": os.nice(0)}, "seed": options.seed}
    results: Results = {}
    if options.minutes or options.kills:
        results = _written("faults", about | report(*soak(options, folder, left_out), left_out), options.json)
    if options.calm_minutes:
        calm = asdict(stream_calmly(_made(folder / "calm"), options.calm_minutes))
        part = {name: calm.pop(name) for name in ("latency_ms", "memory_slope_mb_per_h")} | {"calm": calm}
        results = _written("calm", results | about | part, options.json)
    return results


def _written(name: str, part: Results, path: Path | None) -> Results:
    """The document with this part in it; what it has of the other one stays."""
    results: Results = json.loads(path.read_text()) if path and path.exists() else {"commands": {}}
    results |= part
    results["commands"][name] = command()
    write(results, path)
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill, cut, fill and jump; then compare what is stored.")
    parser.add_argument("--minutes", type=float, default=60, help="go on with faults for at least so long (default 60)")
    parser.add_argument("--kills", type=int, default=200, help="and until so many processes were killed (default 200)")
    parser.add_argument("--calm-minutes", type=float, default=0, help="then stream so long without faults (default 0)")
    parser.add_argument("--model", default="gap-tv", help="what reconstructs meanwhile (default gap-tv; none is quicker)")
    parser.add_argument("--scenes", help="stream only these, of camera,simulation,wide,adaptive,near-lossless,raw,deep,short")
    parser.add_argument("--mean-delay", type=float, default=2.5, help="seconds between two faults, on average (default 2.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the sources and of the faults (default 0)")
    parser.add_argument("--folder", type=Path, help="where to put everything; default: the system's folder for such files")
    parser.add_argument("--json", type=Path, help="write the JSON document here too, a part left out stays")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
