"""Whole streams between real processes: everything sent is stored, served, readable by others, and survives interrupts."""

import re
import signal
import time

import dask.array
import numpy as np
import pytest
import tifffile
import zarr

from framefold_simulator.movie import Movie, MovieSpec
from processes import Decoder, finish, free_port, heard_to_say, run, start
from recordings import evaluation_file
from refolding import refolded


def movie(tmp_path, frames=47, shape=(48, 70)):
    counts = np.random.default_rng(0).poisson(20, (frames, *shape)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "movie.tif", counts)
    return counts, f"file:{tmp_path / 'movie.tif'}"


def test_a_file_is_folded_stored_unfolded_and_served(tmp_path):
    counts, source = movie(tmp_path)
    with Decoder(tmp_path / "data") as decoder, decoder.client() as client:
        finished = decoder.run_encoder(source, "--ratio", 20)
        assert finished.status == 0, finished.stderr
        summary = finished.json
        stream = decoder.wait_until_decoded()
        frames = client.frames(stream["id"], 0, 47)
        chi2 = [group["chi2"] for group in client.quality(stream["id"]) if group["kind"] == "snapshot"]
    assert (summary["frames"], summary["snapshots"], summary["gaps"]) == (47, 2, 0)
    assert summary["bytes_in"] == counts.nbytes
    assert summary["wire_ratio"] == pytest.approx(counts.nbytes / summary["bytes_wire"])
    assert (stream["frames"], stream["snapshots"], stream["gaps"]) == (47, 2, [])
    assert np.array_equal(frames[40:], counts[40:])  # the last 7 came raw
    assert np.abs(frames[:40] - 20).mean() < 3  # uniform illumination: near its mean everywhere
    assert all(0.5 < value < 2 for value in chi2)
    group = zarr.open(stream["store"], mode="r")
    assert group["frames"].shape == (47, 48, 70)
    assert np.array_equal(dask.array.from_zarr(group["frames"])[:].compute(), frames)


@pytest.mark.parametrize("gain", [0.05, 30.0])
def test_frames_of_any_gain_are_explained_without_anybody_telling_it(tmp_path, gain):
    electrons = Movie(MovieSpec((96, 128), dose=100, seed=4)).counts(0, 60)
    counts = np.rint(gain * electrons + np.random.default_rng(0).normal(0, 0.5, electrons.shape) + (gain > 1) * 200)
    tifffile.imwrite(tmp_path / "movie.tif", np.maximum(counts, 0).astype(np.uint16))
    with Decoder(tmp_path / "data") as decoder, decoder.client() as client:
        finished = decoder.run_encoder(f"file:{tmp_path / 'movie.tif'}", "--ratio", 20)
        assert finished.status == 0, finished.stderr
        stream = decoder.wait_until_decoded()
        chi2 = [group["chi2"] for group in client.quality(stream["id"])]
    assert "measured NoiseModel(counts_per_electron=" in finished.stderr
    assert (stream["counts_per_electron"], stream["noise"]["source"]) == (None, "encoder")
    variance = gain * (100 * gain + (gain > 1) * 200 - stream["noise"]["offset"]) + stream["noise"]["read_noise"] ** 2
    assert variance == pytest.approx(100 * gain**2 + 0.25 + 1 / 12, rel=0.2)
    assert all(0.8 < value < 1.2 for value in chi2)


@pytest.mark.recordings
@pytest.mark.parametrize(("name", "frames", "raw"), [("twip_8um", 160, 0), ("au_750c", 96, 16), ("npg_ductile", 9, 9)])
def test_real_recordings_arrive_whole(tmp_path, name, frames, raw):
    path = evaluation_file(f"em/{name}.tif")
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder, decoder.client() as client:
        finished = decoder.run_encoder(f"file:{path}", "--ratio", 20)
        assert finished.status == 0, finished.stderr
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
        assert (finished.json["frames"], stream["frames"], stream["gaps"]) == (frames, frames, [])
        if raw:
            served = client.frames(stream["id"], frames - raw, frames)
            assert np.array_equal(served, tifffile.imread(path)[-raw:])


def test_a_single_frame_arrives_raw(tmp_path):
    counts, source = movie(tmp_path, frames=1)
    with Decoder(tmp_path / "data") as decoder, decoder.client() as client:
        assert decoder.run_encoder(source).status == 0
        stream = decoder.wait_until_decoded()
        assert np.array_equal(client.frame(stream["id"], 0), counts[0])


def test_the_encoder_waits_for_a_decoder_that_is_away(tmp_path):
    counts, source = movie(tmp_path)
    decoder = Decoder(tmp_path / "data", ("--model", "none"))
    encoder = start("framefold-encoder", "run", source, "--to", decoder.link)
    time.sleep(5)
    with decoder:
        finished = finish(encoder)
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
    assert finished.status == 0
    assert finished.stderr.count("does not answer") == 1
    assert finished.stderr.count("is back") == 1
    assert stream["frames"] == len(counts)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_decoder_stopped_in_mid_stream_goes_on_where_it_was(tmp_path, with_signal):
    source = "sim:?shape=64x64&frames=700&rate=200&seed=3"
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:
        encoder = decoder.start_encoder(source)
        decoder.wait_until(lambda stream: stream["frames"] >= 100, "100 frames stored")
        stopped = decoder.stop(with_signal)
        assert stopped.status == (0 if with_signal != signal.SIGKILL else -9)
        assert "Traceback" not in stopped.stderr
        time.sleep(0.5)
        decoder.start()
        finished = finish(encoder)
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
    assert finished.status == 0, finished.stderr
    assert (stream["frames"], stream["snapshots"], stream["gaps"]) == (700, 35, [])
    assert stored_equals_fold(stream["store"], MovieSpec(shape=(64, 64), seed=3), 35)


def stored_equals_fold(path, spec, groups):
    """Every stored snapshot is the exact fold of the frames the simulated detector delivered."""
    store = zarr.open(path, mode="r")
    counts = Movie(spec).counts(0, 20 * groups).reshape(groups, 20, *spec.shape)
    return np.array_equal(store["snapshots"][:], refolded(counts, store["block_maps"][:]))


def test_an_interrupted_encoder_sends_what_it_has_and_ends_the_stream(tmp_path):
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:
        encoder = decoder.start_encoder("sim:?shape=64x64&frames=inf&rate=100")
        decoder.wait_until(lambda stream: stream["frames"] >= 40, "40 frames stored")
        encoder.send_signal(signal.SIGINT)
        finished = finish(encoder)
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
    assert finished.status == 130
    assert "Traceback" not in finished.stderr
    assert finished.json["complete"]
    assert stream["frames"] == finished.json["frames"] >= 40


def test_an_encoder_interrupted_while_the_decoder_is_away_says_what_is_missing(tmp_path):
    (tmp_path / "encoder.toml").write_text("silence_s = 0.5\nlinger_s = 0.5\n")
    options = ("--to", f"tcp://127.0.0.1:{free_port()}", "--config", tmp_path / "encoder.toml")
    encoder = start("framefold-encoder", "run", "sim:?shape=64x64&frames=60&rate=0", *options)
    heard_to_say(encoder, "does not answer")
    encoder.send_signal(signal.SIGINT)
    finished = finish(encoder)
    assert finished.status == 130
    assert not finished.json["complete"]
    assert "NOT every frame" in finished.stdout


def test_a_camera_whose_frames_are_lost_says_so_at_once_and_in_the_end(tmp_path):
    (tmp_path / "encoder.toml").write_text("memory_mb = 1\nsilence_s = 0.5\n")
    decoder = Decoder(tmp_path / "data", ("--model", "none"))
    camera = "sim:?shape=256x256&frames=1600&rate=200&live=1"
    encoder = decoder.start_encoder(camera, "--config", tmp_path / "encoder.toml")
    heard_to_say(encoder, "the memory is full: frames are lost until the decoder takes some")
    with decoder:
        finished = finish(encoder)
        stream = decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
    lost = finished.json["gaps"]
    assert (finished.status, finished.json["complete"]) == (1, True)
    assert "the memory has room again" in finished.stderr
    assert f"every frame but the {lost} lost ones" in finished.stdout
    assert sum(gap["frames"] for gap in stream["gaps"]) == lost > 0


def test_a_camera_that_is_stopped_while_nothing_has_room_says_what_is_on_no_record(tmp_path):
    (tmp_path / "encoder.toml").write_text("memory_mb = 1\nsilence_s = 0.5\nlinger_s = 0.5\n")
    options = ("--to", f"tcp://127.0.0.1:{free_port()}", "--config", tmp_path / "encoder.toml")
    encoder = start("framefold-encoder", "run", "sim:?shape=256x256&frames=inf&rate=200&live=1", *options)
    heard_to_say(encoder, "the memory is full: frames are lost")
    encoder.send_signal(signal.SIGINT)
    finished = finish(encoder)
    assert finished.status == 130
    assert re.search(r"the last \d+ frames or more found no room", finished.stderr)
    assert "the rest is gone with this process" in finished.stdout


def test_two_streams_at_once(tmp_path):
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:
        encoders = [decoder.start_encoder(f"sim:?shape=64x64&frames=200&seed={seed}&rate=400") for seed in (1, 2)]
        summaries = [finish(encoder).json for encoder in encoders]
        with decoder.client() as client:
            streams = {stream["id"]: stream for stream in client.streams()}
    assert len(streams) == 2
    for summary in summaries:
        assert summary["complete"]
        assert streams[summary["stream_id"]]["frames"] == 200


def test_warm_up_compiles_once_for_all(tmp_path, monkeypatch):
    _, source = movie(tmp_path)
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:  # has a cache of its own
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
        finished = run("framefold-encoder", "warm-up")
        assert finished.status == 0
        assert "compiled for this CPU" in finished.stdout
        compiled = {path.name for path in tmp_path.rglob("*.nbc")}
        assert compiled
        assert decoder.run_encoder(source).json["first_group_s"] > 0
        assert decoder.run_encoder(source, "--no-adaptive", "--wire-ratio", "10").json["first_group_s"] > 0
    assert {path.name for path in tmp_path.rglob("*.nbc")} == compiled
