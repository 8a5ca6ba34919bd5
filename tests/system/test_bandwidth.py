"""The bandwidth benchmark runs from end to end, and what it says is possible. Its speeds are not looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    command = [sys.executable, str(ROOT / "benchmarks" / "bandwidth.py"), "--quick", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=180)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bandwidth")
    done = run("--link", "200Mbit", "--json", folder / "results.json", "--plots", folder / "plots")
    assert done.returncode == 0, done.stderr
    return done, folder


@pytest.fixture(scope="module")
def results(finished):
    return json.loads(finished[0].stdout.splitlines()[-1])


def test_prints_a_card_and_one_json_document_and_writes_what_was_asked_for(finished, results):
    done, folder = finished
    assert "Traceback" not in done.stderr
    assert "framefold half-sigma" in done.stdout
    assert json.loads((folder / "results.json").read_text()) == results
    for plot in ("bandwidth-dose.png", "bandwidth-coders.png"):
        assert (folder / "plots" / plot).read_bytes().startswith(b"\x89PNG")
    assert results["command"].startswith("python benchmarks/bandwidth.py --quick")


def test_speeds_are_there_for_both_types(results):
    assert results["read_gb_s"] > 0
    assert results["memcpy_gb_s"] > 0
    for dtype in ("uint8", "uint16"):
        section = results["encode"][dtype]
        for key in ("gb_s", "fraction_of_read", "times_bitshuffle_lz4"):
            assert section[key] > 0
        assert section["dtype"] == dtype
    assert results["pipeline"]["fraction_of_kernel"] > 0
    assert results["pipeline"]["wire_ratio"] > 10


def test_no_exact_coder_beats_the_entropy_of_what_it_codes_by_more_than_the_scene_has_contrast(results):
    folded = [row for row in results["wire"] if row["coder"] == "framefold lossless"]
    assert {row["ratio"] for row in folded} == {10, 20, 30}
    assert {row["dose"] for row in folded} == {1, 5, 20, 100}
    exact = [row for row in results["wire"] if row["entropy_ratio"] is not None]
    assert all(0 < row["wire_ratio"] < 1.15 * row["entropy_ratio"] for row in exact)
    assert all(row["wire_ratio"] > 0.8 * row["entropy_ratio"] for row in folded)


def test_wire_ratio_grows_with_the_ratio_and_with_half_sigma(results):
    found = {(row["dose"], row["ratio"], row["coder"]): row["wire_ratio"] for row in results["wire"]}
    for dose in (1, 5, 20, 100):
        lossless = [found[dose, ratio, "framefold lossless"] for ratio in (10, 20, 30)]
        assert lossless == sorted(lossless)
        assert all(
            found[dose, ratio, "framefold half-sigma"] > found[dose, ratio, "framefold lossless"] for ratio in (10, 20, 30)
        )


def test_coders_tell_what_is_left_of_the_frames_or_why_they_are_left_out(results):
    rows = {row["coder"]: row for row in results["coders"]}
    for name in ("raw", "zstd", "bitshuffle-LZ4", "JPEG", "JPEG 2000", "JPEG-LS", "HEVC crf 28", "AV1 crf 35"):
        row = rows[name]
        if "unavailable" in row:
            assert row["unavailable"]
            continue
        assert row["wire_ratio"] > 0.9
        assert row["gb_s"] > 0
        assert row["cpu_s_per_gb"] > 0
        assert (row["error_sigma"] == 0) == row["lossless"]
    assert rows["framefold lossless"]["error_sigma"] == 0
    assert 0.1 < rows["framefold half-sigma"]["error_sigma"] < 0.2  # 0.5 / sqrt(12) is 0.144
    assert rows["framefold lossless"]["psnr_db"] > rows["raw"]["psnr_db"]


def test_a_limited_link_carries_what_it_is_limited_to(results):
    link = results["link"]
    frame_bits = link["shape"][0] * link["shape"][1] * 8
    assert link["gbit_s"] == 0.2
    assert link["all_arrived"]
    assert link["raw_frames_s"] * frame_bits < 1.25 * 0.2e9  # the bucket's burst, on a short run
    assert link["folded_frames_s"] > link["raw_frames_s"]


def test_detectors_say_where_their_figures_come_from_and_need_no_larger_link_folded(results):
    for row in results["detectors"]:
        assert row["source"]
        assert row["gbit_s"]["raw"] == pytest.approx(row["shape"][0] * row["shape"][1] * row["bits"] * row["rate_hz"] / 1e9)
        assert row["gbit_s"]["folded"] < row["gbit_s"]["lossless"] <= row["gbit_s"]["raw"]
        assert row["encoder_cores"] > 0


@pytest.mark.parametrize(("arguments", "named"), [(("--link", "fast"), "'fast'"), (("--source", "sym:"), "'sym:'")])
def test_wrong_options_are_named(arguments, named):
    done = run(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
