"""Who may use the link: CURVE on its socket, the folder of allowed client keys, and the thread that answers for them (ZAP).

The transport asks for every connection (ZeroMQ RFC 27); the folder is looked at again then and every `_TICK_MS`, so that a key
is allowed or removed without a restart. Without keys, which only loopback may be, everybody is let in, under the name "".
The thread also counts connections and failed handshakes, which the socket's monitor tells of.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from framefold_decoder.metrics import Metrics
from framefold_protocol.errors import RemoteProtocolError, SettingsError
from framefold_protocol.keys import PUBLIC_SUFFIX, KeyPair, read_public_key
from framefold_protocol.messages import StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)
_TICK_MS = 200
_HANDSHAKE_MS = 10_000
"""For how long a peer that says nothing, or a byte at a time, may hold a connection."""
_BACKLOG = 1000
"""Connections that wait to be accepted; with the usual 100 a burst makes an encoder wait for seconds."""
_RARELY_S = 60.0
_KINDS = 1000
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


@dataclass(frozen=True)
class Door:
    """What the link asks of who comes in."""

    key: KeyPair | None = None
    """The decoder's own; None: the link has no keys."""
    allowed_keys: Path | None = None
    """Folder of the public keys that may connect; with `key`."""
    max_message_mb: int = 512
    """Largest payload, in MB (10^6 bytes)."""
    max_mask_bits: int = 2**29
    """Of one stream's mask cells together."""

    def check_sizes(self, stream: StreamMetadata) -> None:
        """Raise `RemoteProtocolError` (code `too-large`) when a snapshot of the stream may not fit into a message."""
        largest = stream.ratio * int(np.iinfo(stream.dtype).max)
        size = math.prod(stream.shape) * next(bits for bits in (16, 32, 64) if largest < 2**bits) // 8
        if size > self.max_message_mb * 10**6:
            message = f"frames of {stream.shape[0]} x {stream.shape[1]} pixels make snapshots of up to {size:,} bytes"
            hint = "Raise max_message_mb of the decoder, or stream smaller frames"
            raise RemoteProtocolError(f"{message}, limit {self.max_message_mb} MB", code="too-large", hint=hint)


LOOPBACK = Door()
"""No keys."""


class Gatekeeper:
    """Guards one ROUTER socket: `start` before it is bound, `close` after it was closed and before its context is."""

    def __init__(self, router: zmq.Socket[bytes], door: Door, metrics: Metrics) -> None:
        self._router = router
        self._keys = AllowedKeys(door.allowed_keys) if door.key and door.allowed_keys else None
        self._metrics = metrics
        self._rarely = Rarely()
        self._connections: set[int] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gatekeeper", daemon=True)
        metrics.connections.set_function(lambda: len(self._connections))
        router.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        router.setsockopt(zmq.BACKLOG, _BACKLOG)
        router.setsockopt(zmq.MAXMSGSIZE, 2 * door.max_message_mb * 10**6)  # what is not worth an answer
        if door.key:
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, door.key.secret.encode())
            router.setsockopt(zmq.ZAP_DOMAIN, b"framefold")

    def start(self) -> None:
        """Answer for new connections from now on."""
        self._zap = self._router.context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")  # where nobody answers here, the transport lets everybody in
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILED)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether new connections are answered for; when not, none is let in."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def receive(self) -> tuple[bytes, str | None, Parts]:
        """The router's next message: its connection, the name of that one's key (None: no longer allowed), its parts.

        Raises `zmq.Again` when there is none.
        """
        first = self._router.recv(zmq.NOBLOCK, copy=False)
        name = self._keys.name(str(first.get("User-Id"))) if self._keys else ""
        return first.bytes, name, self._router.recv_multipart()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._zap, self._monitor):
            poller.register(socket, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(_TICK_MS))
            if self._keys:
                self._keys.refresh()
            if self._zap in ready:
                self._zap.send_multipart(self._answer(*self._zap.recv_multipart()))
            if self._monitor in ready:
                self._count(self._monitor)
        self._zap.close(linger=0)
        self._monitor.close(linger=0)

    def _answer(
        self,
        version: bytes,
        request: bytes,
        domain: bytes,
        address: bytes,
        identity: bytes,
        mechanism: bytes,
        *credentials: bytes,
    ) -> Parts:
        """What the transport asks of a new connection, and whether it may come in."""
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" else ""
        if self._keys and self._keys.name(key) is not None:
            return [version, request, b"200", b"OK", key.encode(), b""]
        self._metrics.refused_keys.inc()
        if self._rarely(key):
            _log.warning("refused key %s from %s: it is not in the folder of allowed keys", key, address.decode())
        return [version, request, b"400", b"this key is not allowed", b"", b""]

    def _count(self, monitor: zmq.Socket[bytes]) -> None:
        event = parse_monitor_message(monitor.recv_multipart())
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._connections.add(event["value"])
        elif event["event"] == zmq.EVENT_DISCONNECTED:
            self._connections.discard(event["value"])
        else:
            self._metrics.failed_handshakes.inc()
            if self._rarely("handshake"):
                _log.warning("a connection failed its handshake: a key that does not fit, no key, or no encoder")


def admitted(key_name: str | None) -> str:
    """The name itself. Raises `RemoteProtocolError` (code `not-allowed`) when the key was removed after it had connected."""
    if key_name is None:
        hint = "Put its public key back into the decoder's folder of allowed keys"
        raise RemoteProtocolError("this encoder's key is no longer allowed", code="not-allowed", hint=hint, retry=True)
    return key_name


class AllowedKeys:
    """The public keys in a folder, `NAME.key` each, as of the last `refresh`. What cannot be read allows nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._names: dict[str, str] = {}
        self.refresh()

    def name(self, key: str) -> str | None:
        """The name of an allowed key, Z85; None when it is not allowed."""
        return self._names.get(key)

    def refresh(self) -> None:
        """Read the folder again if it has changed."""
        try:
            seen = sorted(self._files())
        except OSError as error:
            seen = []
            if seen != self._seen:
                _log.error("nobody may connect: the allowed keys cannot be read: %s", error)
        if seen != self._seen:
            self._seen = seen
            keys = [(_public_key(path), path.stem) for path, *_ in seen]
            self._names = {key: name for key, name in reversed(keys) if key}  # of two names the first has the key
            _log.info(
                "allowed keys: %s", ", ".join(sorted(self._names.values())) or f"none; copy public keys to {self._folder}"
            )

    def _files(self) -> Iterator[tuple[Path, int, int, int]]:
        """The key files, and what changes when one is replaced."""
        for path in self._folder.iterdir():
            if path.suffix == PUBLIC_SUFFIX:
                with suppress(FileNotFoundError):  # removed in this moment
                    stat = path.stat()
                    yield path, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _public_key(path: Path) -> str | None:
    try:
        return read_public_key(path, "allowed_keys")
    except SettingsError as error:
        _log.error("%s", error)
        return None


class Rarely:
    """Whether to say something again: once in a while a kind, so that no peer can fill the log."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def __call__(self, kind: str) -> bool:
        """True the first time, and when the last True was long ago."""
        now = time.monotonic()
        if now - self._said.get(kind, -math.inf) < _RARELY_S:
            return False
        if len(self._said) >= _KINDS:
            self._said.clear()
        self._said[kind] = now
        return True
