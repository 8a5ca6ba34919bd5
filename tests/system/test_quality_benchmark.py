"""The quality benchmark runs from end to end on a small clip, and what it says is possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
CODERS = ("JPEG", "JPEG 2000", "HEVC", "AV1", "every k-th frame")


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "FRAMEFOLD_EVALUATION_DATA"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    clean = np.random.default_rng(0).integers(50, 200, (80, 64, 64)).astype(np.uint8)
    np.save(folder / "grain.npy", np.repeat(clean[:1], 80, axis=0))  # still: the mean of B must win over every coder
    return folder


@pytest.fixture(scope="module")
def document(folder):
    sizes = ("--doses", "20", "--ratios", "16", "--size", "64")
    done = run("--clips", folder / "grain.npy", *sizes, "--json", folder / "quality.json", "--plots", folder)
    assert done.returncode == 0, done.stderr
    assert "mean of B, BM3D" in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((folder / "quality.json").read_text()) == found
    return found


def test_every_method_has_its_row_at_no_fewer_bytes_than_framefold(document):
    rows = {row["method"]: row for row in document["rows"]}
    assert all(row["clip"] == "grain" and row["dose"] == 20 for row in rows.values())
    ours = rows["framefold lossless"]
    for method in (*CODERS, "mean of B"):
        assert "unavailable" in rows[method] or rows[method]["wire_ratio"] <= 1.001 * ours["wire_ratio"]
    assert rows["framefold plain half-sigma"]["wire_ratio"] > rows["framefold plain"]["wire_ratio"] > ours["wire_ratio"] > 5
    assert rows["framefold half-sigma"]["wire_ratio"] > ours["wire_ratio"]
    assert ours["still_blocks"] == rows["framefold half-sigma"]["still_blocks"] == 1
    free = rows["framefold wire-ratio"]
    assert free["wire_ratio"] > ours["wire_ratio"]
    exact = rows["framefold wire-ratio lossless"]
    assert exact["step_sigma"] == 0
    assert exact["wire_ratio"] >= 0.999 * ours["wire_ratio"]  # no more bytes
    assert rows["framefold wire-ratio auto"]["step_sigma"] == free["step_sigma"] == 1
    assert free["frames_per_snapshot"] == 32  # nothing moves, and more there cannot be
    assert rows["noisy frames"]["ratio"] == rows["noisy frames"]["wire_ratio"] == 1


def test_scores_are_those_of_a_still_scene(document):
    rows = {row["method"]: row for row in document["rows"] if "psnr" in row}
    expected = 10 * np.log10(16)  # sixteen frames' electrons against one's
    assert rows["mean of B"]["psnr"] - rows["noisy frames"]["psnr"] == pytest.approx(expected, abs=0.3)
    assert all(rows["mean of B"]["psnr"] > rows[method]["psnr"] for method in CODERS if method in rows)
    assert all(0 < row["ssim"] <= 1 for row in rows.values())


def test_the_verdict_and_the_pictures_are_there(document, folder):
    ours, *others = document["verdicts"]
    assert ours["method"] == "framefold lossless"
    assert [one["method"] for one in others] == [
        "framefold half-sigma",
        "framefold plain",
        "framefold wire-ratio lossless",
        "framefold wire-ratio",
        "framefold wire-ratio auto",
    ]
    assert ours["cells"] == ours["won_psnr"] + len(ours["lost"]) == 1
    assert all(one["why"] for verdict in document["verdicts"] for one in verdict["lost"])
    assert {row["clip"] for row in document["unlike"]} >= {"uniform noise", "scene cut"}
    for name in ("quality-rate.png", "quality-cost.png", "quality-sheet.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_rivals_are_judged_by_the_group_that_is_scored(folder):
    groups = np.random.default_rng(1).integers(50, 200, (5, 64, 64)).astype(np.uint8)
    np.save(folder / "scenes.npy", np.repeat(groups, 4, axis=0))
    done = run("--clips", folder / "scenes.npy", "--doses", "100", "--ratios", "4", "--size", "64")
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    for method in ("mean of B", "JPEG 2000", "every k-th frame"):
        assert rows[method]["psnr"] > 15, method  # 10 for another group


def test_a_recording_that_is_too_short_is_told(folder):
    done = run("--clips", folder / "grain.npy", "--ratios", "20", "--size", "64")
    assert done.returncode == 2
    assert "grain.npy has 80 frames, expected 100" in done.stderr
