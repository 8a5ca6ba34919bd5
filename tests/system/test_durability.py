"""N sent = N stored between real processes that are killed: once each, in order, with one summary of the whole stream."""

import shutil
import signal
import time

import numpy as np
import pytest
import zarr

from framefold_client import ClientError
from processes import Decoder, finish, run
from refolding import refolded

SHAPE, GROUPS = (48, 70), 60


@pytest.fixture
def movie(tmp_path):
    counts = np.random.default_rng(0).poisson(20, (20 * GROUPS + 3, *SHAPE)).astype(np.uint8)
    np.save(tmp_path / "movie.npy", counts)
    return counts, f"file:{tmp_path / 'movie.npy'}"


def check(decoder, finished, counts):
    """The only stream there is holds every frame once, the encoder says so, and `verify` agrees."""
    summary = finished.json
    assert finished.status == 0, finished.stderr
    assert (summary["frames"], summary["snapshots"], summary["gaps"]) == (len(counts), GROUPS, 0)
    with decoder.client() as client:
        (stream,) = client.streams()
        store = zarr.open(client.stream(stream["id"])["store"], mode="r")
    assert (stream["id"], stream["state"]) == (summary["stream_id"], "complete")
    assert (stream["positions"], stream["frames"], stream["snapshots"]) == (GROUPS + 1, len(counts), GROUPS)
    groups = counts[: 20 * GROUPS].reshape(GROUPS, 20, *SHAPE)
    assert np.array_equal(store["snapshots"][:], refolded(groups, store["block_maps"][:]))
    assert np.array_equal(store["raw"][:], counts[20 * GROUPS :])
    decoder.stop()
    verified = run("framefold-decoder", "verify", "--data", decoder.data)
    assert verified.status == 0, verified.stdout
    assert "nothing is missing or damaged" in verified.stdout


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_in_mid_stream_both_go_on_and_store_everything_once(tmp_path, movie):
    counts, source = movie
    options = ("--journal", tmp_path / "journal")
    with Decoder(tmp_path / "data", ("--model", "none", "--credit", 2)) as decoder:
        encoder = decoder.start_encoder(source, *options)
        decoder.wait_until(lambda stream: stream["positions"] >= 1, "something stored")
        encoder.kill()
        encoder.communicate()
        decoder.stop(signal.SIGKILL)
        decoder.start()
        finished = finish(decoder.start_encoder(source, *options))
        check(decoder, finished, counts)


def test_what_was_journalled_while_the_decoder_was_away_outlives_the_encoder(tmp_path, movie):
    counts, source = movie
    options = ("--journal", tmp_path / "journal")
    decoder = Decoder(tmp_path / "data", ("--model", "none"))
    encoder = decoder.start_encoder(source, *options)
    until(lambda: any(path.stat().st_size > 100_000 for path in tmp_path.glob("journal/*/*.journal")))
    encoder.kill()
    encoder.communicate()
    with decoder:
        finished = finish(decoder.start_encoder(source, *options))
        assert "taking up stream" in finished.stderr
        check(decoder, finished, counts)


def test_of_two_encoders_with_copies_of_one_journal_one_stores_the_stream(tmp_path, movie):
    counts, source = movie
    decoder = Decoder(tmp_path / "data", ("--model", "none", "--credit", 1))
    encoder = decoder.start_encoder(source, "--journal", tmp_path / "journal")
    until(lambda: any(path.stat().st_size > 100_000 for path in tmp_path.glob("journal/*/*.journal")))
    encoder.kill()
    encoder.communicate()
    shutil.copytree(tmp_path / "journal", tmp_path / "copy")
    with decoder:
        both = [decoder.start_encoder(source, "--journal", tmp_path / name) for name in ("journal", "copy")]
        finished = [finish(each) for each in both]
        assert 0 in [each.status for each in finished], [each.stderr for each in finished]
        assert all(each.status == 0 or "Another encoder sends this stream" in each.stderr for each in finished)
        check(decoder, next(each for each in finished if each.status == 0), counts)


def test_another_source_does_not_go_on_with_the_stream(tmp_path, movie):
    _, source = movie
    decoder = Decoder(tmp_path / "data")
    encoder = decoder.start_encoder(source, "--journal", tmp_path / "journal")
    until(lambda: any(tmp_path.glob("journal/*/*.journal")))
    encoder.kill()
    encoder.communicate()
    np.save(tmp_path / "movie.npy", np.ones((20 * GROUPS + 3, *SHAPE), np.uint8))
    refused = finish(decoder.start_encoder(source, "--journal", tmp_path / "journal"))
    assert refused.status == 2
    assert "whose version is" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_deleted_stream_is_gone_and_its_encoder_is_told(tmp_path, movie):
    _, source = movie
    options = ("--journal", tmp_path / "journal")
    with Decoder(tmp_path / "data", ("--model", "none", "--credit", 2)) as decoder:
        other = decoder.run_encoder(source).json["stream_id"]
        encoder = decoder.start_encoder(source, *options)
        sent = decoder.wait_until(
            lambda stream: stream["state"] == "receiving" and stream["positions"] >= 1, "something stored"
        )
        with decoder.client() as client, pytest.raises(ClientError, match="is being sent"):
            client.delete(sent["id"])
        encoder.kill()
        finish(encoder)
        decoder.stop()
        deleted = run("framefold-decoder", "delete", sent["id"], "--data", decoder.data)
        assert deleted.status == 0, deleted.stderr
        again = run("framefold-decoder", "delete", sent["id"], "--data", decoder.data)
        assert again.status == 2
        assert "is unknown" in again.stderr
        decoder.start()
        with decoder.client() as client:
            assert [stream["id"] for stream in client.streams()] == [other]
            refused = decoder.run_encoder(source, *options)
            assert refused.status == 2
            assert "was deleted at the decoder" in refused.stderr
            client.delete(other)
            assert client.streams() == []
        decoder.stop()
        assert list((decoder.data / "streams").iterdir()) == []
        assert run("framefold-decoder", "verify", "--data", decoder.data).status == 0
