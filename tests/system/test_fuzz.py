"""Spoilt messages through both ends of the link: a short run of `benchmarks/fuzz.py`."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REACHED = {
    "decoder": [
        "Opened",
        "Received",
        "Duplicate",
        "Refused",
        "malformed",
        "version",
        "checksum",
        "metadata",
        "payload",
        "codec",
    ],
    "encoder": ["Welcomed", "Acknowledged", "Stale", "Refused", "malformed", "version", "checksum", "rollback"],
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_spoilt_messages_are_taken_or_refused_and_nothing_else(tmp_path):
    done = run("--messages", "4000", "--seed", "1", "--json", str(tmp_path / "fuzz.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results == json.loads((tmp_path / "fuzz.json").read_text())
    assert results["finding_count"] == 0
    for side, reached in REACHED.items():
        assert set(reached) <= set(results[side])
    assert sum(results["decoder"].values()) + sum(results["encoder"].values()) == 4000
