"""The benchmarks of masks run from end to end, and compare what takes the same bytes. Their figures are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def results(program, *options):
    command = [sys.executable, f"benchmarks/{program}.py", *options]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_family_takes_more_bytes_than_the_default(tmp_path):
    found = results("families", "--clips", "still", "--doses", "20", "--size", "64", "--json", tmp_path / "families.json")
    assert found == json.loads((tmp_path / "families.json").read_text())
    for coder in ("lossless", "half-sigma"):
        rows = {row["masks"]: row for row in found["rows"] if row["coder"] == coder}
        default = rows.pop("balanced 0.25")
        assert default["ratio"] == rows.pop("other tiles beside")["ratio"] == 20
        assert rows.keys() == {"balanced 0.5", "ones", "one-hot", "random 0.25", "adaptive"}
        assert all(row["bits_per_pixel"] <= 1.01 * default["bits_per_pixel"] for row in rows.values())
        assert rows["ones"]["ratio"] > 20 > rows["one-hot"]["ratio"]
        assert rows["ones"]["psnr"] > default["psnr"]  # nothing moves
    assert {row["best"] for row in found["gains"]} == {"ones"}


def test_thresholds_are_found_that_are_worth_something_on_what_did_not_choose_them(tmp_path):
    found = results("policy", "--movies", "6", "--json", tmp_path / "policy.json")
    gains = {row["policy"]: row["gain"] for row in found["rows"]}
    assert gains["balanced 0.25"] == 0
    assert gains["as shipped"] > 0
    assert max(gains.values()) == gains["the best for every block"] > 0
    below = next(row["below"] for row in found["rows"] if row["policy"] == "one-hot, balanced 0.25, balanced 0.5, ones")
    assert len(below) == 3
    assert sorted(below, reverse=True) == below


def test_a_clip_that_is_not_there_is_named():
    command = [sys.executable, "benchmarks/families.py", "--clips", "absent.tif"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "absent.tif" in done.stderr
    assert "Traceback" not in done.stderr


def test_wider_bins_leave_fewer_frames_in_a_snapshot_and_chi2_is_told(tmp_path):
    found = results("rate", "--movies", "2", "--steps", "0.5,1,2", "--json", tmp_path / "rate.json")
    assert len(found["rows"]) == 2 * 3 * 4
    for row in found["rows"]:
        assert 4 <= row["ratio"] <= 32
        assert row["bytes_per_frame"] <= row["plain_bytes_per_frame"] or row["ratio"] > 30
    narrow, _, wide, free = (row["ratio"] for row in found["means"] if row["plain_ratio"] is None and row["doses"] == "all")
    assert narrow >= free >= wide
    assert found["trust"]["chi2"]["snapshots"] > 0


def test_sums_grow_with_the_threshold_of_what_counts_as_still(tmp_path):
    found = results("still", "--movies", "1", "--json", tmp_path / "still.json")
    assert len(found["rows"]) == 9
    for start in (4, 8, 15):
        mine = [row for row in found["means"] if row["start"] == start]
        assert [row["ratio"] for row in mine] == sorted(row["ratio"] for row in mine)
        assert mine[-1]["threshold"] is None
        assert mine[-1]["ratio"] == 30
        assert mine[-1]["bytes"] < mine[0]["bytes"] <= 1
