"""The demo, small: the whole path in one command."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parents[2] / "deploy" / "demo.py"


def test_the_demo_ends_with_its_result(tmp_path):
    command = [sys.executable, str(DEMO), "--frames", "65", "--size", "128", "--out", str(tmp_path / "out")]
    for _ in range(2):  # what a first run left behind must not trip a second one over
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {
        *("frames_in", "frames_stored", "gaps", "wire_ratio", "encoder_gb_s", "psnr_reconstruction_db"),
        *("psnr_averaging_db", "chi2", "frame_url", "sheet"),
    }
    assert (result["frames_in"], result["frames_stored"], result["gaps"]) == (65, 65, 0)
    assert result["wire_ratio"] > 10
    assert result["psnr_reconstruction_db"] > result["psnr_averaging_db"]
    assert 0.5 < result["chi2"] < 1.2  # this net follows some of the noise: below 1
    with Image.open(result["sheet"]) as sheet:
        assert sheet.size == (5 * 132, 3 * 146)
    assert result["frame_url"].startswith("http://127.0.0.1:")


def test_the_demo_clears_no_folder_that_is_not_a_demos(tmp_path):
    (tmp_path / "thesis").mkdir()
    done = subprocess.run([sys.executable, str(DEMO), "--out", str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "holds other things than a demo's" in done.stderr
    assert (tmp_path / "thesis").is_dir()
