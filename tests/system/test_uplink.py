"""The encoder's end of the link against peers that are lost at a bad moment, or are not what they should be."""

import socket
import threading
import time
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest
import zmq

from framefold_decoder.downlink import Downlink
from framefold_decoder.gatekeeper import Door
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_encoder.uplink import Uplink
from framefold_protocol import payload, wire
from framefold_protocol.errors import FramefoldError, RemoteProtocolError
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.keys import KeyPair, LinkKeys
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Snapshot, StreamMetadata
from framefold_protocol.session import DecoderSession, Ended, Opened, Received
from framefold_protocol.wire import Reader
from processes import free_port

SHAPE, SPEC = (20, 30), MaskSpec(ratio=4, period=16)
STREAM = StreamMetadata("a" * 32, "test", SHAPE, "uint8", (SPEC,), (derive_masks(SPEC, SHAPE).digest,), 0)
SNAPSHOT = Snapshot(0, 0, 4, 0, **vars(payload.pack(np.ones(SHAPE, np.uint16))))


class Interrupting(MemoryJournal):
    """Calls `interrupt` when what is to be sent is read from it."""

    def read(self, position):
        self.interrupt()
        return super().read(position)


def test_a_decoder_that_is_gone_between_poll_and_send_keeps_nobody_waiting():
    router = zmq.Context.instance().socket(zmq.ROUTER)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    journal, gone = Interrupting(10**6), threading.Event()

    def interrupt():
        if not gone.is_set():
            router.close(linger=0)
            time.sleep(0.5)  # until the encoder's end has noticed
            gone.set()

    journal.interrupt = interrupt

    def run():
        with Uplink(STREAM, endpoint, journal, silence_s=60) as uplink:
            session = DecoderSession()
            identity, *hello = router.recv_multipart()
            session.receive(hello)
            router.send_multipart([identity, *session.welcome(0, 0, 8)])
            assert uplink.put(wire.encode(SNAPSHOT), 10)
            assert gone.wait(20)
            assert not uplink.finish(4, 0.3)

    encoder = threading.Thread(target=run, daemon=True)
    encoder.start()
    encoder.join(30)
    assert not encoder.is_alive()


def test_a_connection_that_stays_silent_is_replaced_and_not_more_often_than_that():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with Uplink(STREAM, endpoint, MemoryJournal(10**6), silence_s=1):
            accepted, connections = [], []
            for _ in range(3):
                connections.append(listener.accept()[0])
                accepted.append(time.monotonic())
        for connection in connections:
            connection.close()
    assert accepted[1] - accepted[0] > 1.3  # the first silence is followed by a second
    assert accepted[2] - accepted[1] > 0.5


def test_a_decoder_that_cannot_read_what_is_written_today_ends_the_stream_with_what_to_do():
    router = zmq.Context.instance().socket(zmq.ROUTER)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    old = DecoderSession(Reader(versions=(1, 2)))
    with Uplink(STREAM, endpoint, MemoryJournal(10**6), silence_s=60) as uplink:
        identity, *hello = router.recv_multipart()
        with pytest.raises(RemoteProtocolError) as caught:
            old.receive(hello)
        router.send_multipart([identity, *old.refuse(caught.value)])
        with pytest.raises(FramefoldError, match=r"version is 3, expected 1 to 2\. Update framefold on the older side"):
            uplink.finish(0, 20)
    router.close(linger=0)


class Way:
    """To a port through a firewall, which may forget a connection: what comes on it then goes nowhere, and nobody is told."""

    def __init__(self, port):
        self.port = port
        self.forgotten, self.sockets, self.closing = [], [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.closing.is_set():
            with suppress(OSError):
                near, far = self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.port))
                self.sockets += near, far
                self.forgotten.append(threading.Event())
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self.forward, args=(*ends, self.forgotten[-1]), daemon=True).start()

    def forward(self, near, far, forgotten):
        with suppress(OSError):
            while data := near.recv(2**16):
                if forgotten.is_set():
                    self.closing.wait()
                far.sendall(data)

    def close(self):
        self.closing.set()
        for end in (self.listener, *self.sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def serve(router, stored):
    """A decoder that stores in a list, until the stream ends."""
    sessions = defaultdict(DecoderSession)
    while True:
        identity, *parts = router.recv_multipart()
        session = sessions[identity]
        match session.receive(parts):
            case Opened():
                answer = session.welcome(len(stored), 4 * len(stored), 30)
            case Received(data):
                stored.append(data)
                answer = session.acknowledge(len(stored), 30)
            case Ended():
                router.send_multipart([identity, *session.done(len(stored))])
                return
        router.send_multipart([identity, *answer])


def test_a_connection_a_firewall_forgets_with_much_on_its_way_is_replaced_once():
    stored, much = [], bytes(4_000_000)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        decoder = threading.Thread(target=serve, args=(router, stored), daemon=True)
        with (
            closing(Way(router.bind_to_random_port("tcp://127.0.0.1"))) as way,
            Uplink(STREAM, way.endpoint, MemoryJournal(10**9), silence_s=2) as uplink,
        ):
            decoder.start()
            assert uplink.put(wire.encode(SNAPSHOT), 10)
            eventually(lambda: stored)
            way.forgotten[0].set()
            for k in range(1, 20):
                assert uplink.put(wire.encode(replace(SNAPSHOT, position=k, first_frame=4 * k, payload=much)), 10)
            assert uplink.finish(80, 30)
            decoder.join()
            assert len(way.forgotten) == 2
    assert [data.position for data in stored] == list(range(20))


def test_a_slow_decoder_that_is_alive_keeps_its_connection():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        session, peers, hellos = DecoderSession(), set(), 0
        with Uplink(STREAM, endpoint, MemoryJournal(10**6), silence_s=1) as uplink:
            assert uplink.put(wire.encode(SNAPSHOT), 10)
            deadline = time.monotonic() + 6
            while time.monotonic() < deadline:
                if not router.poll(100):
                    continue
                identity, *parts = router.recv_multipart()
                peers.add(identity)
                if isinstance(session.receive(parts), Opened):
                    hellos += 1
                    time.sleep(1.2)  # longer than the encoder has patience
                    router.send_multipart([identity, *session.welcome(0, 0, 8)])
        assert hellos > 2
        assert len(peers) == 1


def new_keys() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def eventually(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_reason_not_to_be_let_in_is_told_once(tmp_path, caplog):
    port, own, decoder = free_port(), new_keys(), new_keys()

    def told(words):
        return sum(words in record.getMessage() for record in caplog.records)

    with Uplink(STREAM, f"tcp://127.0.0.1:{port}", MemoryJournal(10**6), 60, LinkKeys(own, decoder.public)):
        with socket.create_server(("127.0.0.1", port)) as stranger:
            stranger.settimeout(10)
            while not told("or is no decoder"):
                stranger.accept()[0].close()
        (tmp_path / "allowed").mkdir()
        door, metrics = Door(decoder, tmp_path / "allowed"), Metrics()
        with (
            closing(Library.open(tmp_path / "data")) as library,
            Downlink(f"tcp://0.0.0.0:{port}", library, 8, None, lambda: None, door, metrics),
        ):
            eventually(lambda: told("does not allow this encoder's key"))
            eventually(lambda: metrics.refused_keys.collect()[0].samples[0].value >= 3)
    assert told("or is no decoder") == told("does not allow") == 1
