"""The decoder's end of the link with real sockets: what peers do wrong costs them their session and nothing else."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zmq

from framefold_decoder.downlink import Downlink
from framefold_decoder.metrics import Metrics
from framefold_protocol import payload, wire
from framefold_protocol.errors import SettingsError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Ack, Done, End, Error, Gap, Hello, RawFrames, Snapshot, StreamMetadata, Welcome
from framefold_protocol.segments import read_segments
from processes import free_port

SHAPE = (20, 30)
SPEC = MaskSpec(ratio=4, period=16)
STREAM = StreamMetadata("a" * 32, "test", SHAPE, "uint8", (SPEC,), (derive_masks(SPEC, SHAPE).digest,), 0)


def snapshot(position, **changes):
    sums = np.full(SHAPE, position + 1, np.uint16)
    return replace(Snapshot(position, 4 * position, 4, 0, **vars(payload.pack(sums))), **changes)


class Peer:
    """An encoder made of its bare socket."""

    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def says(self, *messages):
        for message in messages:
            self.socket.send_multipart(message if isinstance(message, list) else wire.encode(message))

    def hears(self):
        assert self.socket.poll(20_000), "no answer"
        return wire.decode(self.socket.recv_multipart())

    def hears_until(self, kind):
        deadline = time.monotonic() + 60
        while not isinstance(message := self.hears(), kind):
            assert time.monotonic() < deadline, f"no {kind.__name__}, but {message}"
        return message


@pytest.fixture
def endpoint(library, tmp_path):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with Downlink(endpoint, library, 8, tmp_path / "masks", lambda: None):
        yield endpoint


@pytest.fixture
def peer(endpoint):
    with (peer := Peer(endpoint)).socket:
        yield peer


def test_a_whole_stream_is_stored(library, peer):
    peer.says(Hello(STREAM))
    assert peer.hears() == Welcome(0, 8)
    tail = np.arange(3 * 600).reshape(3, *SHAPE).astype(np.uint8)
    peer.says(snapshot(0), Gap(1, 4, 10, "disk full"), RawFrames(2, 14, 3, 0, **vars(payload.pack(tail))), End(3, 17))
    assert peer.hears_until(Done) == Done(3)
    record = library.catalogue.stream(STREAM.stream_id)
    assert (record.state, record.position, record.frames, record.frames_received) == ("complete", 3, 17, 7)
    assert [(gap.first_frame, gap.frames, gap.reason) for gap in library.catalogue.gaps(STREAM.stream_id)] == [
        (4, 10, "disk full")
    ]
    store = library.store(STREAM.stream_id)
    assert (store.snapshot(0) == 1).all()
    assert np.array_equal(store.frames(14, 17), tail)


def test_acknowledged_is_what_is_on_the_disk(library, peer):
    peer.says(Hello(STREAM), snapshot(0), snapshot(1))
    acknowledged = 0
    while acknowledged < 2:
        acknowledged = peer.hears_until(Ack).position
        assert read_segments(library.folder / "journal" / STREAM.stream_id)[-1].end >= acknowledged


def test_a_stream_goes_on_after_the_decoder_and_a_complete_one_is_not_asked_for(tmp_path, library):
    for position in range(2):
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        with Downlink(endpoint, library, 8, None, lambda: None), (peer := Peer(endpoint)).socket:
            peer.says(Hello(STREAM))
            assert peer.hears() == Welcome(position, 8)
            peer.says(snapshot(position))
            peer.hears_until(Ack)
            if position == 1:
                peer.says(End(2, 8))
                peer.hears_until(Done)
                peer.says(Hello(STREAM))
                assert peer.hears() == Done(2)


def test_a_hello_right_behind_data_loses_nothing(library, peer):
    peer.says(Hello(STREAM), snapshot(0), Hello(STREAM), snapshot(1), Hello(STREAM), End(2, 8))
    assert peer.hears_until(Done) == Done(2)
    assert library.catalogue.stream(STREAM.stream_id).snapshots == 2


def test_a_welcome_promises_only_what_is_on_the_disk(library, peer, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    peer.says(Hello(STREAM))
    assert peer.hears() == Welcome(0, 8)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", no_room)
        peer.says(snapshot(0), Hello(STREAM))
        assert peer.hears_until(Welcome) == Welcome(0, 8)
    peer.says(snapshot(0), End(1, 4))
    assert peer.hears_until(Done) == Done(1)
    assert library.catalogue.stream(STREAM.stream_id).snapshots == 1


def test_a_full_disk_gets_no_credit_is_told_and_goes_on(library, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    endpoint, metrics = f"tcp://127.0.0.1:{free_port()}", Metrics()
    with Downlink(endpoint, library, 8, None, lambda: None, metrics=metrics) as downlink, (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM))
        peer.hears_until(Welcome)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", no_room)
            peer.says(snapshot(0))
            assert [peer.hears_until(Ack).position for _ in range(2)] == [0, 0]  # repeated: somebody is there
            (problem,) = downlink.problems()
            assert "No space left on device" in problem
            assert b"framefold_waiting_streams 1.0" in metrics.exposition()
        while peer.hears_until(Ack).position == 0:
            pass
        assert downlink.problems() == []
        peer.says(End(1, 4))
        assert peer.hears_until(Done) == Done(1)


def test_a_journal_without_room_to_be_opened_is_taken_up_when_there_is_some(library, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with monkeypatch.context() as patch:
        patch.setattr(library, "put", no_room)
        with Downlink(endpoint, library, 8, None, lambda: None), (peer := Peer(endpoint)).socket:
            peer.says(Hello(STREAM), snapshot(0))
            while peer.hears_until(Ack).position == 0:
                pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", no_room)
        downlink = Downlink(endpoint, library, 8, None, lambda: None).__enter__()
        assert "cannot go on" in downlink.problems()[0]
    with (peer := Peer(endpoint)).socket:
        deadline = time.monotonic() + 20
        while downlink.problems() and time.monotonic() < deadline:
            time.sleep(0.01)
        peer.says(Hello(STREAM), End(1, 4))
        assert peer.hears_until(Done) == Done(1)
    downlink.__exit__(None, None, None)


def test_duplicates_are_stored_once(library, peer):
    peer.says(Hello(STREAM), snapshot(0), snapshot(0), snapshot(1), snapshot(0), End(2, 8))
    peer.hears_until(Done)
    assert library.catalogue.stream(STREAM.stream_id).snapshots == 2


@pytest.mark.parametrize(
    ("messages", "code", "named"),
    [
        ([[b"garbage"]], "malformed", "7"),
        ([[b"\x93123", b"", b"0000"]], "checksum", "checksum"),
        ([snapshot(0)], "no-session", "hello"),
        ([Hello(replace(STREAM, mask_digests=("0" * 64,)))], "mask-hash", "digest"),
        ([Hello(replace(STREAM, mask_digests=()))], "metadata", "mask_digests"),
        ([Hello(replace(STREAM, shape=(0, 4)))], "metadata", "shape"),
        ([Hello(replace(STREAM, dtype="uint64"))], "metadata", "dtype"),
        ([Hello(replace(STREAM, families=(MaskSpec(kind="file", file="m.npy"),)))], "mask-file", "m.npy"),
        ([Hello(STREAM), snapshot(1)], "sequence-jump", "expected 0"),
        ([Hello(STREAM), snapshot(0, payload=b"x" * 50)], "payload", "50 bytes"),
        ([Hello(STREAM), snapshot(0, dtype="float64")], "codec", "float64"),
        ([Hello(STREAM), snapshot(0, block_map=b"\7" * 9)], "metadata", "blocks 9"),
        ([Hello(STREAM), End(1, 4)], "sequence-jump", "end"),
    ],
)
def test_what_is_wrong_is_named_and_the_service_goes_on(library, endpoint, peer, messages, code, named):
    peer.says(*messages)
    error = peer.hears_until(Error)
    assert error.code == code
    assert named in error.message
    with (other := Peer(endpoint)).socket:
        other.says(Hello(replace(STREAM, stream_id="b" * 32)), snapshot(0), End(1, 4))
        other.hears_until(Done)
    record = library.catalogue.stream(STREAM.stream_id)
    assert record is None or record.position == 0


def test_a_known_stream_with_another_description_is_refused(library, peer):
    library.add_stream(STREAM)
    peer.says(Hello(replace(STREAM, name="another")))
    assert peer.hears().code == "metadata"


def test_the_newer_connection_of_a_stream_wins(library, endpoint, peer):
    peer.says(Hello(STREAM), snapshot(0))
    peer.hears_until(Ack)
    with (newer := Peer(endpoint)).socket:
        newer.says(Hello(STREAM))
        assert newer.hears() == Welcome(1, 8)
    assert peer.hears_until(Error).code == "superseded"


def test_an_address_in_use_is_named(library, endpoint):
    with pytest.raises(SettingsError, match=endpoint), Downlink(endpoint, library, 8, None, lambda: None):
        pass


@pytest.mark.parametrize("moment", ["add_stream", "store"])
def test_a_stream_that_is_being_taken_up_is_not_deleted(library, tmp_path, monkeypatch, moment):
    """A request to delete it comes right behind one of the steps from hello to welcome."""
    endpoint, asked = f"tcp://127.0.0.1:{free_port()}", []
    step = getattr(library, moment)

    def then_asked_to_delete(*arguments):
        found = step(*arguments)
        if not asked:
            asked.append(pool.submit(library.delete, STREAM.stream_id, downlink.sending))
            time.sleep(0.3)
        return found

    monkeypatch.setattr(library, moment, then_asked_to_delete)
    with ThreadPoolExecutor(1) as pool, Downlink(endpoint, library, 8, tmp_path / "masks", lambda: None) as downlink:
        with (peer := Peer(endpoint)).socket:
            peer.says(Hello(STREAM))
            assert peer.hears() == Welcome(0, 8)
            assert asked[0].result(20) is False
            peer.says(snapshot(0), End(1, 4))
            assert peer.hears_until(Done) == Done(1)
        deadline = time.monotonic() + 20
        while not library.delete(STREAM.stream_id, downlink.sending):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with (peer := Peer(endpoint)).socket:
            peer.says(Hello(STREAM))
            assert peer.hears_until(Error).code == "deleted"
        assert downlink.problems() == []
