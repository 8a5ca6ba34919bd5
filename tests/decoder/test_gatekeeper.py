"""Who is let in and what a peer may cost, with real sockets and keys: the link's other streams never notice."""

import logging
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from test_downlink import SHAPE, SPEC, STREAM, Peer, snapshot

from framefold_decoder import downlink, mask_check
from framefold_decoder.downlink import Downlink
from framefold_decoder.gatekeeper import Door
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_protocol import wire
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.keys import KeyPair, write_key_files
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Ack, Done, End, Error, Hello, Welcome
from processes import free_port

OTHER = replace(STREAM, stream_id="b" * 32)


def new_keys() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def count(metric) -> float:
    return metric.collect()[0].samples[0].value


def eventually(condition, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class KeyedPeer(Peer):
    """An encoder made of its bare socket and keys."""

    def __init__(self, endpoint: str, keys: KeyPair, decoder: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.curve_publickey = keys.public.encode()
        self.socket.curve_secretkey = keys.secret.encode()
        self.socket.curve_serverkey = decoder.encode()
        self.socket.connect(endpoint)


@pytest.fixture
def allowed(tmp_path):
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


class Link:
    """A guarded downlink, and peers with keys for it."""

    def __init__(self, library: Library, allowed: Path) -> None:
        self.keys = new_keys()
        self.metrics = Metrics()
        self.allowed = allowed
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        door = Door(self.keys, allowed)
        self.downlink = Downlink(self.endpoint, library, 8, None, lambda: None, door, self.metrics)

    def allow(self, name: str, keys: KeyPair | None = None) -> KeyPair:
        keys = keys or new_keys()
        (self.allowed / f"{name}.key").unlink(missing_ok=True)
        _, secret = write_key_files(self.allowed, name, keys)
        secret.unlink()
        return keys

    def peer(self, keys: KeyPair) -> KeyedPeer:
        return KeyedPeer(self.endpoint, keys, self.keys.public)


@pytest.fixture
def link(library, allowed):
    link = Link(library, allowed)
    with link.downlink:
        yield link


@pytest.fixture
def open_link(library):
    """A link without keys, as on loopback."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    metrics = Metrics()
    with Downlink(endpoint, library, 8, None, lambda: None, Door(max_message_mb=128, max_mask_bits=2**24), metrics):
        yield endpoint, metrics


def streams_whole(peer: Peer, stream=STREAM) -> None:
    peer.says(Hello(stream))
    peer.hears_until(Welcome)
    peer.says(snapshot(0), End(1, 4))
    assert peer.hears_until(Done) == Done(1)


def test_an_allowed_key_streams_and_is_named(link, library, caplog):
    caplog.set_level(logging.INFO)
    with link.peer(link.allow("cam1")).socket as socket:
        peer = Peer.__new__(Peer)
        peer.socket = socket
        streams_whole(peer)
    assert library.catalogue.owner(STREAM.stream_id) == "cam1"
    assert "key cam1" in caplog.text


def test_a_key_that_is_not_allowed_does_not_come_in_until_it_is(link, library, caplog):
    keys = new_keys()
    with link.peer(keys).socket as socket:
        with suppress(zmq.Again):  # it was refused before it could say anything: a send that waits would wait for ever
            socket.send_multipart(wire.encode(Hello(STREAM)), zmq.DONTWAIT)
        eventually(lambda: count(link.metrics.refused_keys) == 1, "the key is refused")
    assert library.catalogue.streams() == []
    assert f"refused key {keys.public}" in caplog.text
    link.allow("cam1", keys)
    with (peer := link.peer(keys)).socket:
        streams_whole(peer)


@pytest.mark.parametrize("stranger", ["no keys", "another decoder's key", "no ZeroMQ"])
def test_who_has_no_keys_fails_the_handshake_and_others_stream(link, stranger):
    if stranger == "no keys":
        outsider = Peer(link.endpoint)
    elif stranger == "another decoder's key":
        outsider = KeyedPeer(link.endpoint, link.allow("cam1"), new_keys().public)
    else:
        outsider = Peer.__new__(Peer)
        outsider.socket = zmq.Context.instance().socket(zmq.STREAM)
        outsider.socket.connect(link.endpoint)
        outsider.socket.send_multipart([outsider.socket.recv_multipart()[0], b"\xff" + bytes(8) + b"\x7f" + b"x" * 54])
    with outsider.socket:
        eventually(lambda: count(link.metrics.failed_handshakes) >= 1, "a handshake fails")
        with (peer := link.peer(link.allow("cam2"))).socket:
            streams_whole(peer)
    assert count(link.metrics.refused_keys) == 0


def test_a_removed_key_is_shut_out_in_mid_stream_and_goes_on_when_it_is_back(link, library):
    keys = link.allow("cam1")
    with (peer := link.peer(keys)).socket:
        peer.says(Hello(STREAM), snapshot(0))
        peer.hears_until(Ack)
        (link.allowed / "cam1.key").unlink()
        position, error = 1, None
        while error is None:  # messages that were read before the folder was looked at are stored
            peer.says(snapshot(position))
            answer = peer.hears()
            position, error = (position + 1, None) if isinstance(answer, Ack) else (position, answer)
        assert (error.code, error.retry) == ("not-allowed", True)
        eventually(lambda: library.catalogue.stream(STREAM.stream_id).position == position, "what was acknowledged is stored")
        link.allow("cam1", keys)
        answer = error
        while isinstance(answer, Error):
            assert answer.code == "not-allowed"
            peer.says(Hello(STREAM))
            answer = peer.hears()
        assert answer.position == position
        peer.says(End(position, 4 * position))
        peer.hears_until(Done)


def test_another_key_cannot_take_a_stream_over_not_even_after_a_restart(library, allowed):
    link = Link(library, allowed)
    owner, thief = link.allow("cam1"), link.allow("cam2")
    with link.downlink, (peer := link.peer(owner)).socket, (other := link.peer(thief)).socket:
        peer.says(Hello(STREAM), snapshot(0))
        peer.hears_until(Ack)
        other.says(Hello(STREAM))
        error = other.hears()
        assert (error.code, error.retry) == ("other-key", False)
        assert "'cam1'" in error.message
        peer.says(snapshot(1))  # its session never ended
        assert peer.hears_until(Ack).position == 2
    again = Link(library, allowed)
    with again.downlink, (other := again.peer(thief)).socket, (peer := again.peer(owner)).socket:
        other.says(Hello(STREAM))
        assert other.hears().code == "other-key"
        peer.says(Hello(STREAM))
        assert peer.hears().position == 2


def test_a_stream_of_a_key_is_not_opened_without_keys(library, allowed):
    link = Link(library, allowed)
    with link.downlink, (peer := link.peer(link.allow("cam1"))).socket:
        peer.says(Hello(STREAM))
        peer.hears_until(Welcome)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with Downlink(endpoint, library, 8, None, lambda: None), (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM))
        assert peer.hears().code == "other-key"


def test_a_replaced_key_keeps_its_name_and_streams(link, library):
    with (peer := link.peer(link.allow("cam1"))).socket:
        peer.says(Hello(STREAM), snapshot(0))
        peer.hears_until(Ack)
        with (renewed := link.peer(link.allow("cam1"))).socket:
            renewed.says(Hello(STREAM))
            assert renewed.hears_until(Welcome).position == 1
            assert peer.hears_until(Error).code == "superseded"
            peer.says(snapshot(1))
            assert peer.hears_until(Error).code == "not-allowed"


def test_a_damaged_key_file_and_a_secret_one_allow_nothing_and_hinder_nobody(link, caplog):
    (link.allowed / "broken.key").write_text("no key")
    keys = new_keys()
    (link.allowed / "secret.key").write_text(f'public-key = "{keys.public}"\nsecret-key = "{keys.secret}"\n')
    with (peer := link.peer(link.allow("cam1"))).socket, link.peer(keys).socket:
        streams_whole(peer)
        eventually(lambda: count(link.metrics.refused_keys) == 1, "the secret file's key is refused")
    assert "broken.key is not a key file" in caplog.text
    assert "secret.key holds a secret key" in caplog.text


def test_a_folder_that_is_gone_allows_nobody_until_it_is_back(link, caplog):
    keys = link.allow("cam1")
    with (peer := link.peer(keys)).socket:
        streams_whole(peer)
    link.allowed.rename(link.allowed.with_name("away"))
    with link.peer(keys).socket:
        eventually(lambda: count(link.metrics.refused_keys) >= 1, "the key is refused")
    assert "allowed keys cannot be read" in caplog.text
    link.allowed.with_name("away").rename(link.allowed)
    with (peer := link.peer(keys)).socket:
        streams_whole(peer, OTHER)


def hello(**changes) -> Hello:
    return Hello(replace(STREAM, **changes))


HUGE = MaskSpec(ratio=256, period=4096)


@pytest.mark.parametrize(
    ("message", "code", "named"),
    [
        (hello(families=(HUGE,)), "mask-size", "max_mask_bits"),
        (hello(families=(HUGE,) * 256, mask_digests=("",) * 256), "mask-size", "max_mask_bits"),
        (hello(families=(MaskSpec(ratio=20, period=0),), shape=(2000, 2000)), "mask-size", "80000000"),
        (hello(shape=(9000, 9000)), "too-large", "max_message_mb"),
        (hello(shape=(60_000, 60_000), dtype="uint32"), "too-large", "28,800,000,000"),
    ],
)
def test_what_is_too_large_is_refused_by_name_before_anything_is_made(open_link, library, message, code, named):
    endpoint, _ = open_link
    with (peer := Peer(endpoint)).socket:
        peer.says(message)
        error = peer.hears()
        assert (error.code, error.retry) == (code, False)
        assert named in error.message
        streams_whole(peer, OTHER)
    assert library.catalogue.stream(STREAM.stream_id) is None


def test_large_masks_are_derived_beside_the_link(open_link, library, monkeypatch):
    endpoint, _ = open_link
    shape, spec = (600, 700), MaskSpec("random", ratio=20, period=0)
    go_on = threading.Event()

    def slow(*arguments):
        assert go_on.wait(30)
        return derive_masks(*arguments)

    monkeypatch.setattr(mask_check, "derive_masks", slow)
    monkeypatch.setattr(mask_check, "_AT_ONCE_BITS", 0)
    stream = replace(STREAM, shape=shape, families=(spec,), mask_digests=(derive_masks(spec, shape).digest,))
    with (peer := Peer(endpoint)).socket, (other := Peer(endpoint)).socket:
        peer.says(Hello(stream))
        assert peer.hears().code == "busy"
        monkeypatch.setattr(mask_check, "_AT_ONCE_BITS", 2**22)
        for _ in range(3):  # it may ask as often as it likes
            peer.says(Hello(stream))
            error = peer.hears()
            assert (error.code, error.retry) == ("busy", True)
        monkeypatch.setattr(mask_check, "derive_masks", derive_masks)
        streams_whole(other, OTHER)  # the link goes on
        go_on.set()
        answer = error
        while isinstance(answer, Error):
            assert answer.code == "busy"
            peer.says(Hello(stream))
            answer = peer.hears()
        assert answer == Welcome(0, 8)


def test_derived_digests_are_remembered_and_masks_of_a_file_are_not(tmp_path, monkeypatch):
    import numpy as np

    derived = []
    monkeypatch.setattr(mask_check, "derive_masks", lambda *a: derived.append(a) or derive_masks(*a))
    check = mask_check.MaskCheck(tmp_path, 2**24)
    for stream in (STREAM, OTHER, STREAM):
        check.check(stream)
    assert len(derived) == 1
    masks = np.ones((4, *SHAPE), np.uint8)
    spec = MaskSpec("file", 4, file="m.npy")
    for value in (1, 0):
        masks[0, 0, 0] = value
        np.save(tmp_path / "m.npy", masks)
        digest = derive_masks(spec, SHAPE, tmp_path).digest
        check.check(replace(STREAM, families=(spec,), mask_digests=(digest,)))
    with pytest.raises(RemoteProtocolError, match="not the encoder's"):
        check.check(replace(STREAM, families=(SPEC, spec), mask_digests=(STREAM.mask_digests[0], "0" * 64)))


def test_peers_that_never_open_a_stream_leave_nothing(open_link):
    endpoint, metrics = open_link
    peers = [Peer(endpoint) for _ in range(200)]
    for peer in peers:
        peer.says([b"garbage"])
    for peer in peers:
        assert peer.hears().code == "malformed"
    eventually(lambda: count(metrics.open_streams) == 0, "all sessions are forgotten")
    for peer in peers:
        peer.socket.close()
    eventually(lambda: count(metrics.connections) == 0, "all connections are gone")


def test_open_streams_are_bounded(open_link, monkeypatch):
    monkeypatch.setattr(downlink, "_MAX_SESSIONS", 3)
    endpoint, metrics = open_link
    with ExitStack() as stack:
        peers = [Peer(endpoint) for _ in range(4)]
        for number, peer in enumerate(peers):
            stack.enter_context(peer.socket)
            peer.says(hello(stream_id=f"{number:032x}"))
        answers = [peer.hears() for peer in peers]
        assert answers.count(Welcome(0, 8)) == 3
        late = next(number for number, answer in enumerate(answers) if isinstance(answer, Error))
        assert (answers[late].code, answers[late].retry) == ("too-many-streams", True)
        eventually(lambda: count(metrics.open_streams) == 3, "the fourth is forgotten")
        peers[late - 1].says(End(0, 0))
        peers[late - 1].hears_until(Done)
        peers[late].says(hello(stream_id=f"{late:032x}"))
        assert peers[late].hears() == Welcome(0, 8)


def test_a_silent_session_is_forgotten_and_taken_up_again(open_link, monkeypatch):
    endpoint, metrics = open_link
    with (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM), snapshot(0))
        peer.hears_until(Ack)
        monkeypatch.setattr(downlink, "_SILENT_S", 0.0)
        eventually(lambda: count(metrics.open_streams) == 0, "the session is forgotten")
        monkeypatch.undo()
        peer.says(snapshot(1))
        error = peer.hears()
        assert (error.code, error.retry) == ("no-session", True)
        peer.says(Hello(STREAM))
        assert peer.hears() == Welcome(1, 8)


def test_a_message_beyond_all_limits_costs_its_sender_the_connection(open_link):
    endpoint, metrics = open_link
    with (peer := Peer(endpoint)).socket, (other := Peer(endpoint)).socket:
        streams_whole(other)
        eventually(lambda: count(metrics.connections) == 2, "both are connected")
        peer.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        peer.says([b"x", bytes(2 * 128 * 10**6 + 1), b"crc!"])
        eventually(lambda: count(metrics.connections) == 1, "it is cut")
        streams_whole(other, OTHER)
