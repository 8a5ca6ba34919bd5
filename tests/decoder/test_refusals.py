"""Whatever a peer does wrong: it is told code and cure, the metrics count it, a running stream goes on and ends well."""

import struct
import zlib
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import zmq

from framefold_decoder.downlink import Downlink
from framefold_decoder.gatekeeper import Door
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_protocol import payload, wire
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import (
    VERSIONS,
    Ack,
    Done,
    End,
    Error,
    Hello,
    RawFrames,
    Snapshot,
    StreamMetadata,
    Welcome,
)
from processes import free_port

SHAPE = (20, 30)
SPEC = MaskSpec(ratio=4, period=16)
STREAM = StreamMetadata("a" * 32, "test", SHAPE, "uint8", (SPEC,), (derive_masks(SPEC, SHAPE).digest,), 0)
RUNNING = replace(STREAM, stream_id="b" * 32)
SUMS = payload.pack(np.ones(SHAPE, np.uint16))
ZEROS = payload.pack(np.zeros((1, 2**20), np.uint8))


def snapshot(position, **changes):
    return replace(Snapshot(position, 4 * position, 4, 0, **vars(SUMS)), **changes)


def sealed(header, body=b""):
    packed = msgpack.packb(header)
    return [packed, body, struct.pack("<I", zlib.crc32(body, zlib.crc32(packed)))]


def header_of(message):
    return msgpack.unpackb(wire.encode(message)[0])


class Peer:
    """An encoder made of its bare socket."""

    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def says(self, *messages):
        for message in messages:
            self.socket.send_multipart(message if isinstance(message, list) else wire.encode(message))

    def hears(self, kind):
        while True:
            assert self.socket.poll(20_000), "no answer"
            if isinstance(message := wire.decode(self.socket.recv_multipart()), kind):
                return message

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()


class Service:
    """A decoder in this process, with the least limits its settings allow, and one stream that runs."""

    def __init__(self, folder):
        self.library = Library.open(folder / "data")
        self.metrics = Metrics()
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        door = Door(max_message_mb=128, max_mask_bits=2**16)
        self.downlink = Downlink(self.endpoint, self.library, 8, folder, lambda: None, door, self.metrics)

    def __enter__(self):
        self.downlink.__enter__()
        self.running = Peer(self.endpoint)
        self.running.says(Hello(RUNNING, 1, 1), snapshot(0))
        self.running.hears(Ack)
        return self

    def __exit__(self, *exc):
        self.running.socket.close()
        self.downlink.__exit__(*exc)
        self.library.close()

    def refused(self):
        """How many sessions were ended, by code, as a scraper reads it."""
        lines = self.metrics.exposition().decode().splitlines()
        found = [line for line in lines if line.startswith("framefold_refused_sessions_total{")]
        return {line.split('"')[1]: float(line.split()[-1]) for line in found}

    def check_that_the_running_stream_ends_well(self):
        self.running.says(snapshot(1), End(2, 8))
        assert self.running.hears(Done) == Done(2)
        assert self.library.catalogue.stream(RUNNING.stream_id).snapshots == 2


@pytest.fixture
def service(tmp_path):
    with Service(tmp_path) as service:
        yield service


HELLO = Hello(STREAM, 1, 1)
WRONG = {
    "parts": ([[b"garbage"]], "malformed", "Update framefold on both sides"),
    "unknown type": ([sealed({"v": 1, "type": "shout"})], "malformed", "Update framefold"),
    "missing field": ([sealed({"v": 1, "type": "end", "position": 0})], "malformed", "Update framefold"),
    "checksum": ([[*wire.encode(HELLO)[:2], b"\0\0\0\0"]], "checksum", "Send it again"),
    "version": ([sealed(header_of(HELLO) | {"v": 9})], "version", "Update framefold on the older side"),
    "header size": ([sealed({"v": 1, "type": "gap", "x": b"\0" * 2**21})], "too-large", "smaller"),
    "payload size": ([HELLO, snapshot(0, payload=bytes(129 * 10**6))], "too-large", "Raise max_message_mb"),
    "snapshot size": ([Hello(replace(STREAM, shape=(9000, 9000)))], "too-large", "Raise max_message_mb"),
    "frames size": ([HELLO, RawFrames(0, 0, 2**20, 0, **vars(ZEROS))], "metadata", "Correct the encoder's settings"),
    "mask hash": ([Hello(replace(STREAM, mask_digests=("0" * 64,)))], "mask-hash", "same framefold and mask files"),
    "mask size": ([Hello(replace(STREAM, families=(MaskSpec(ratio=200, period=0),)))], "mask-size", "Use a mask period"),
    "mask file": ([Hello(replace(STREAM, families=(MaskSpec("file", file="m.npy"),)))], "mask-file", "Put it there"),
    "metadata": ([Hello(replace(STREAM, shape=(0, 4)))], "metadata", "Correct the encoder's settings"),
    "block map": ([HELLO, snapshot(0, block_map=b"\7" * 9)], "metadata", "Correct"),
    "wider sums": ([HELLO, snapshot(0, dtype="uint64")], "metadata", "Correct"),
    "codec": ([HELLO, snapshot(0, codec="zip")], "codec", "Update the decoder"),
    "payload": ([HELLO, snapshot(0, payload=b"x" * 50)], "payload", "Run the encoder again"),
    "no hello": ([snapshot(0)], "no-session", "Say hello first"),
    "position jump": ([HELLO, snapshot(1)], "sequence-jump", "Say hello and resume"),
    "frame jump": ([HELLO, snapshot(0, first_frame=1)], "sequence-jump", "Say hello and resume"),
    "end too early": ([HELLO, End(1, 4)], "sequence-jump", "Say hello and resume"),
    "a decoder's message": ([HELLO, Ack(0, 1)], "out-of-turn", "Say hello first"),
    "two streams": ([HELLO, Hello(replace(STREAM, stream_id="c" * 32))], "out-of-turn", "Use two connections"),
    "another description": ([Hello(replace(RUNNING, name="another"), 2, 1)], "metadata", "start the encoder afresh"),
}


@pytest.mark.parametrize(("messages", "code", "cure"), WRONG.values(), ids=WRONG.keys())
def test_it_is_told_and_counted_and_the_running_stream_goes_on(service, messages, code, cure):
    with Peer(service.endpoint) as peer:
        peer.says(*messages)
        error = peer.hears(Error)
    assert error.code == code
    assert cure in error.message
    assert error.versions == (VERSIONS if code == "version" else None)
    assert service.refused() == {code: 1.0}
    service.check_that_the_running_stream_ends_well()


def test_unknown_fields_are_no_error(service):
    with Peer(service.endpoint) as peer:
        peer.says(sealed(header_of(HELLO) | {"mood": {"of": [1, None, b"day"]}}))
        assert peer.hears(Welcome) == Welcome(0, 8, 1)
    assert service.refused() == {}


def test_of_two_encoders_that_claim_a_stream_the_newer_has_it_and_the_older_is_told(service):
    with Peer(service.endpoint) as newer:
        newer.says(Hello(RUNNING, 2, 1))
        assert newer.hears(Welcome) == Welcome(1, 8, 1)
        error = service.running.hears(Error)
        assert error.code == "superseded"
        assert "stop one of them" in error.message
        with Peer(service.endpoint) as older:
            older.says(Hello(RUNNING, 1, 99))
            assert older.hears(Error).code == "superseded"
        assert service.refused() == {"superseded": 2.0}
        newer.says(snapshot(1), End(2, 8))
        assert newer.hears(Done) == Done(2)


def test_more_streams_than_a_decoder_takes_wait_and_the_running_one_does_not(service, monkeypatch):
    monkeypatch.setattr("framefold_decoder.downlink._MAX_SESSIONS", 1)
    with Peer(service.endpoint) as peer:
        peer.says(HELLO)
        error = peer.hears(Error)
    assert (error.code, error.retry) == ("too-many-streams", True)
    assert service.refused() == {"too-many-streams": 1.0}
    service.check_that_the_running_stream_ends_well()


def test_a_bug_costs_the_stream_that_meets_it(service, monkeypatch):
    monkeypatch.setattr("framefold_decoder.downlink.check_metadata", lambda stream: 1 / 0)
    with Peer(service.endpoint) as peer:
        peer.says(HELLO)
        error = peer.hears(Error)
    assert error.code == "internal"
    assert "Report this" in error.message
    assert service.refused() == {"internal": 1.0}
    service.check_that_the_running_stream_ends_well()
