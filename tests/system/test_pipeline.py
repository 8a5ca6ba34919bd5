"""The pipeline benchmark runs from end to end, and what it says is possible. Its speeds are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def test_prints_a_card_and_one_json_document_and_draws(tmp_path):
    outputs = ("--folder", tmp_path, "--json", tmp_path / "pipeline.json", "--plot", tmp_path / "pipeline.png")
    command = [sys.executable, "benchmarks/pipeline.py", "--quick", "--sides", "64", *outputs]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results == json.loads((tmp_path / "pipeline.json").read_text())
    assert (tmp_path / "pipeline.png").read_bytes().startswith(b"\x89PNG")
    assert results["command"].startswith("python benchmarks/pipeline.py --quick")
    assert results["disk_gb_s"] > 0
    (case,) = results["cases"]
    for speed in ("stored", "stored_without_journals", "reconstructed"):
        assert case[speed]["gb_s"] == pytest.approx(case[speed]["frames_s"] * 64 * 64 / 1e9)
        assert case[speed]["frames_s"] > 0
    for live, kinds in (("live_stored", {"ack"}), ("live_reconstructed", {"ack", "reconstruction"})):
        latency = case[live]["latency_ms"]
        assert latency.keys() == kinds
        assert all(0 < found["p50"] <= found["p99"] <= found["max"] for found in latency.values())
    assert case["fraction_of_the_lower"] >= case["fraction_of_without_journals"] * 0.99 > 0
    cpu = case["cpu_ms_per_frame"]
    assert cpu["encoder"] > 0
    assert 0 < cpu["decoder"] < cpu["decoder_reconstructing"]
    assert case["peak_mb"]["encoder"] > 50
    assert case["wire_ratio"] > 10
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
