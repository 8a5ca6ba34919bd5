"""The encoder's end of the link against peers that are lost at a bad moment, or are not what they should be."""

import socket
import threading
import time
from contextlib import closing

import numpy as np
import zmq

from framefold_decoder.downlink import Downlink
from framefold_decoder.gatekeeper import Door
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_encoder.uplink import Uplink
from framefold_protocol import payload, wire
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.keys import KeyPair, LinkKeys
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Snapshot, StreamMetadata
from framefold_protocol.session import DecoderSession
from processes import free_port

SHAPE, SPEC = (20, 30), MaskSpec(ratio=4, period=16)
STREAM = StreamMetadata("a" * 32, "test", SHAPE, "uint8", (SPEC,), (derive_masks(SPEC, SHAPE).digest,), 0)
SNAPSHOT = Snapshot(0, 0, 4, 0, "uint16", payload.CODEC, payload.encode(np.ones(SHAPE, np.uint16)))


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
