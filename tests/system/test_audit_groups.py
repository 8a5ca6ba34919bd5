"""Audit groups through real daemons: what is sent, stored, measured and served; frames made anew; an older decoder."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import zarr

from framefold_decoder.store import StreamStore
from framefold_simulator.movie import Movie, MovieSpec
from processes import Decoder, run

DOSE, SHAPE, GROUPS = 20, (64, 96), 5
SOURCE = f"sim:?frames={20 * GROUPS}&dose={DOSE}&shape={SHAPE[0]}x{SHAPE[1]}&seed=3"


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A stream with every second group sent raw as well, decoded: decoder, the encoder's summary, stream, quality."""
    with Decoder(tmp_path_factory.mktemp("audit") / "data", ("--provider", "cpu")) as decoder:
        sent = decoder.run_encoder(SOURCE, "--audit", 2)
        assert sent.status == 0, sent.stderr
        stream = decoder.wait_until_decoded()
        with decoder.client() as client:
            yield decoder, sent.json, stream, client.quality(stream["id"])


def test_the_quality_table_has_the_figures_of_every_second_snapshot(audited):
    _, sent, stream, groups = audited
    assert [group["kind"] for group in groups] == ["audit", "snapshot", "snapshot"] * 2 + ["audit", "snapshot"]
    assert stream["frames"] == stream["frames_received"] == sent["frames"] == 20 * GROUPS
    snapshots = [group for group in groups if group["kind"] == "snapshot"]
    assert [group["psnr"] is not None for group in snapshots] == [True, False, True, False, True]
    with_figures = snapshots[::2]
    assert stream["audit"]["every"] == 2
    assert stream["audit"]["count"] == 3
    assert stream["audit"]["psnr_lowest"] == pytest.approx(min(group["psnr"] for group in with_figures))
    assert all(0.5 < group["chi2"] < 1.5 for group in snapshots)
    assert stream["noise"]["source"] == "audit"
    assert stream["noise"]["gain"] == pytest.approx(1, abs=0.1)


def test_the_figures_are_those_of_the_truth_the_decoder_never_saw(audited):
    decoder, _, stream, groups = audited
    movie = Movie(MovieSpec(SHAPE, dose=DOSE, seed=3))
    for group in groups:
        if group["psnr"] is None:
            continue
        with decoder.client() as client:
            frames = client.frames(stream["id"], group["first_frame"], group["first_frame"] + 20)
        truth = movie.clean(group["first_frame"], group["first_frame"] + 20)
        psnr = 10 * np.log10(np.percentile(frames, 99.9) ** 2 / np.mean((frames - truth) ** 2))
        assert group["psnr_low"] - 3 < psnr < (group["psnr_high"] or np.inf) + 3


def test_the_raw_frames_lie_in_plain_zarr_and_count_on_the_wire(audited):
    _, sent, stream, _ = audited
    store = zarr.open_group(stream["store"], mode="r")
    counts = Movie(MovieSpec(SHAPE, dose=DOSE, seed=3)).counts(0, 100)
    np.testing.assert_array_equal(store["audit"][:], np.concatenate([counts[start : start + 20] for start in (0, 40, 80)]))
    assert stream["bytes_delivered"] == sent["bytes_in"] == counts.nbytes
    assert sent["wire_ratio"] < 4  # three of five groups cross raw as well
    assert stream["wire_ratio"] == pytest.approx(sent["wire_ratio"], rel=0.02)


def test_metrics_count_them(audited):
    decoder, *_ = audited
    text = httpx.get(f"http://{decoder.http}/metrics").text
    assert "framefold_audit_psnr_db_count 3.0" in text
    assert "framefold_audit_ssim_count 3.0" in text


def test_frames_are_made_anew_while_the_service_runs_and_from_the_command_line(audited):
    decoder, _, stream, before = audited
    address = f"http://{decoder.http}/api/v1/streams/{stream['id']}"
    assert httpx.post(f"{address}/decode", json={"model": "nonsense"}).status_code == 422
    assert httpx.post(f"{address}/decode", json={"model": "gap-tv", "start": 2, "stop": 3}).json() == {"snapshots": 1}

    def remade(_):
        with decoder.client() as client:
            return client.quality(stream["id"])[2]["model"] == "gap-tv"

    decoder.wait_until(remade, "snapshot 1 was decoded again")
    busy = run("framefold-decoder", "decode", stream["id"], "--data", decoder.data)
    assert busy.status == 2
    assert "in use by another process" in busy.stderr
    decoder.stop()
    (remains,) = {group["made_by"]["model"] for group in before if group["made_by"]}
    done = run("framefold-decoder", "decode", stream["id"], "--model", remains, "--data", decoder.data, "--provider", "cpu")
    assert done.status == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [group for group in before if group["kind"] == "snapshot"]
    for name in ("position", "psnr", "ssim", "chi2", "made_by"):
        assert [one[name] for one in told] == [group[name] for group in expected], name
    unknown = run("framefold-decoder", "decode", "0" * 32, "--data", decoder.data)
    assert unknown.status == 2
    assert "is unknown" in unknown.stderr


def test_a_killed_encoder_goes_on_with_its_audit_groups(tmp_path):
    frames = 200
    source = f"sim:?frames={frames}&dose={DOSE}&shape=64x64&seed=4&rate=60"
    options = ("--ratio", 8, "--audit", 2, "--journal", tmp_path / "journal")
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:
        first = decoder.start_encoder(source, *options)
        decoder.wait_until(lambda stream: stream["frames"] >= 40, "40 frames are stored")
        first.kill()
        first.communicate()
        finished = decoder.run_encoder(source, *options)
        assert finished.status == 0, finished.stderr
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "the stream is complete")
        decoder.stop()
    assert (stream["frames"], stream["frames_received"], stream["frames_lost"]) == (frames, frames, 0)
    store = StreamStore(Path(stream["store"]))
    counts = Movie(MovieSpec((64, 64), dose=DOSE, seed=4)).counts(0, frames)
    snapshots = [group for group in store.groups() if group.kind == "snapshot"]
    assert len(snapshots) == frames // 8
    for number, group in enumerate(snapshots):
        audit = store.audit(group.position)
        assert (audit is not None) == (number % 2 == 0)
        if audit is not None:
            np.testing.assert_array_equal(audit, counts[group.first_frame : group.end])
