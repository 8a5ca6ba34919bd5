"""The decoder's end of the link: a thread around a ROUTER socket, with a `DecoderSession` for each peer.

What arrived goes into the stream's journal in batches, so that many snapshots share one wait for the disk; acknowledged is only
what is on it. While the disk or a journal is full the last acknowledgement is repeated: the encoder hears that somebody is
there, and gets no credit. A peer that sends something wrong is told so and loses its session; the other streams go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import zmq

from framefold_decoder.arrival import Arrival
from framefold_decoder.arrivals import Arrivals
from framefold_decoder.gatekeeper import LOOPBACK, Door, Gatekeeper, Rarely, admitted
from framefold_decoder.library import Library
from framefold_decoder.mask_check import MaskCheck
from framefold_decoder.metrics import Metrics
from framefold_decoder.store.metadata import check_metadata
from framefold_protocol import wire
from framefold_protocol.claims import Claims, superseded
from framefold_protocol.errors import InputError, RemoteProtocolError, SettingsError, StoreError
from framefold_protocol.messages import StreamMetadata
from framefold_protocol.session import DecoderSession, Duplicate, Ended, Opened, Received, Refused
from framefold_protocol.transitions import State
from framefold_protocol.wire import Parts, Reader

_log = logging.getLogger(__name__)
_TICK_MS = 200
_BATCH = 64
"""Messages taken from the socket before the disk is awaited."""
_REPEAT_S = 1.0
"""How often an acknowledgement is repeated that has to wait."""
_RECENT_S = 10.0
"""For so long a refusal to store counts as a problem of now."""
JOURNAL_LIMIT = 10**9
"""Bytes of one stream that may wait for the store."""
_MAX_SESSIONS = 1000
_SILENT_S = 600.0
"""A session without a message for so long is forgotten: an encoder that is still there says hello again."""


@dataclass
class _Peer:
    session: DecoderSession
    arrival: Arrival | None = None
    """Its stream, once it was welcomed."""
    acknowledged: int = 0
    answered: float = 0.0
    """When the last acknowledgement was sent, monotonic seconds."""
    key_name: str = ""
    """Of the key it came with; empty when the link has no keys."""
    heard: float = field(default_factory=time.monotonic)
    """When it last said something, monotonic seconds."""

    @property
    def stream_id(self) -> str:
        return self.session.stream.stream_id if self.session.stream else ""


class Downlink:
    """Receives streams into a library. A context manager: leaving it closes the socket and stores what has arrived."""

    def __init__(
        self,
        endpoint: str,
        library: Library,
        credit: int,
        mask_folder: Path | None,
        on_stored: Callable[[], None],
        door: Door = LOOPBACK,
        metrics: Metrics | None = None,
        journal_limit: int = JOURNAL_LIMIT,
    ) -> None:
        """`journal_limit`: bytes of one stream that may wait for the store."""
        self._endpoint = endpoint
        self._library = library
        self._credit = credit
        self._door = door
        self._metrics = metrics or Metrics()
        self._mask_check = MaskCheck(mask_folder, door.max_mask_bits)
        self._rarely = Rarely()
        self._on_stored = on_stored
        self._reader = Reader(max_payload_bytes=door.max_message_mb * 10**6)
        self._claims: Claims[bytes] = Claims()
        self._arrivals = Arrivals(library, journal_limit, self._moved, self._metrics)
        self._storage_problem = ("", 0.0)
        self._peers: dict[bytes, _Peer] = {}
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._woken, self._bell = (self._context.socket(zmq.PAIR) for _ in range(2))
        self._woken.bind("inproc://bell")
        self._bell.connect("inproc://bell")
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.IPV6, 1)
        self._router.setsockopt(zmq.RCVHWM, credit + 8)  # a peer beyond its credit is not read from
        self._router.setsockopt(zmq.TCP_KEEPALIVE, 1)  # who vanished without a word is forgotten
        for option, value in ((zmq.TCP_KEEPALIVE_IDLE, 30), (zmq.TCP_KEEPALIVE_INTVL, 10), (zmq.TCP_KEEPALIVE_CNT, 3)):
            self._router.setsockopt(option, value)
        self._gatekeeper = Gatekeeper(self._router, door, self._metrics)
        self._metrics.open_streams.set_function(lambda: len(self._peers))
        self._metrics.waiting_streams.set_function(lambda: len(self.problems()))
        self._thread = threading.Thread(target=self._run, name="downlink", daemon=True)

    def __enter__(self) -> Downlink:
        self._gatekeeper.start()
        try:
            self._router.bind(self._endpoint)
        except zmq.ZMQError as error:
            self._gatekeeper.close()
            self._context.destroy(linger=0)
            hint = "Stop the other program, or choose another address with --ingest"
            raise SettingsError(f"cannot listen for encoders on {self._endpoint}: {error.strerror}", hint=hint) from error
        self._arrivals.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        self._router.close(linger=200)  # the last acknowledgements
        self._gatekeeper.close()
        self._arrivals.__exit__(kind, error, trace)
        self._context.destroy(linger=0)

    @property
    def running(self) -> bool:
        """Whether encoders are served."""
        return self._thread.is_alive() and self._gatekeeper.running and self._arrivals.running

    def sending(self, stream_id: str) -> bool:
        """Whether a stream is being received, or stored and closed."""
        return self._arrivals.holds(stream_id)

    def problems(self) -> list[str]:
        """What keeps streams from being stored; empty when all is well."""
        refused, when = self._storage_problem
        recent = [refused] if refused and time.monotonic() - when < _RECENT_S else []
        return recent + self._arrivals.problems()

    def _moved(self) -> None:
        """Called by the thread that moves arrivals to the library."""
        self._on_stored()
        with suppress(zmq.Again):  # it has been rung already
            self._bell.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._router, self._woken):
            poller.register(socket, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(_TICK_MS))
            if self._woken in ready:
                self._woken.recv()
            if self._router in ready:
                self._take_batch()
            self._settle()
            self._forget_silent()

    def _take_batch(self) -> None:
        for _ in range(_BATCH):
            try:
                identity, key_name, parts = self._gatekeeper.receive()
            except zmq.Again:
                break
            self._guarded(self._hear, identity, key_name, parts)

    def _settle(self) -> None:
        """Put on the disk what was taken, answer what is due, forget streams that nobody sends and that are stored."""
        self._arrivals.sync()
        for identity in [identity for identity, peer in self._peers.items() if peer.arrival]:
            self._guarded(self._answer, identity)
        self._arrivals.forget_all_but({peer.stream_id for peer in self._peers.values()})

    def _guarded(self, action: Callable[..., None], identity: bytes, *arguments: object) -> None:
        """Whatever a peer does wrong, or the store cannot do for it, ends that peer's session and nothing else."""
        peer = self._peers.setdefault(identity, _Peer(DecoderSession(self._reader)))
        try:
            action(identity, peer, *arguments)
        except RemoteProtocolError as error:
            self._refuse(identity, peer, error)
        except InputError as error:  # its mask file is not here
            self._refuse(identity, peer, RemoteProtocolError(error.message, code="mask-file", hint=error.hint))
        except StoreError as error:
            self._storage_problem = str(error), time.monotonic()
            self._refuse(identity, peer, RemoteProtocolError(error.message, code="storage", hint=error.hint, retry=True))
        except Exception as error:  # a bug here must not take the other streams along
            _log.exception("stream %s", peer.stream_id or "(not opened)")
            self._refuse(identity, peer, RemoteProtocolError(f"the decoder failed: {error!r}", code="internal"))

    def _refuse(self, identity: bytes, peer: _Peer, error: RemoteProtocolError) -> None:
        self._metrics.refused.labels(error.code).inc()
        if peer.stream_id or self._rarely(error.code):
            _log.warning("stream %s: %s", peer.stream_id or "(not opened)", error)
        self._send(identity, peer.session.refuse(error))
        del self._peers[identity]

    def _forget_silent(self) -> None:
        for identity in [identity for identity, peer in self._peers.items() if time.monotonic() - peer.heard > _SILENT_S]:
            del self._peers[identity]

    def _hear(self, identity: bytes, peer: _Peer, key_name: str | None, parts: Parts) -> None:
        peer.heard, peer.key_name = time.monotonic(), admitted(key_name)
        if len(self._peers) > _MAX_SESSIONS and not peer.stream_id:
            raise RemoteProtocolError(f"{_MAX_SESSIONS} streams are open", code="too-many-streams", retry=True)
        match peer.session.receive(parts):
            case Opened() as opened:
                self._open(identity, peer, opened)
            case Received(data) if peer.arrival:
                peer.arrival.take(data, parts)
                return
            case Duplicate():
                self._metrics.duplicates.inc()
            case Ended(end) if peer.arrival:
                peer.arrival.ends(end)
                self._arrivals.wake()
            case Refused(error):
                _log.warning("stream %s: its encoder gave up: %s", peer.stream_id, error.message)
                del self._peers[identity]
        if peer.arrival:
            peer.arrival.count(wire.size(parts))

    def _open(self, identity: bytes, peer: _Peer, opened: Opened) -> None:
        self._check(peer, opened.stream)
        with self._library.taking_up:
            self._take_up(identity, peer, opened)

    def _take_up(self, identity: bytes, peer: _Peer, opened: Opened) -> None:
        stream = opened.stream
        record = self._library.add_stream(stream, peer.key_name)
        loser = self._claims.take(opened, identity)
        if loser is not None and loser in self._peers:
            self._refuse(loser, self._peers[loser], superseded())
        if record.state == "complete":
            self._send(identity, peer.session.done(record.position))
            self._claims.drop(stream.stream_id, identity)
            return
        peer.arrival = arrival = self._arrivals.open(stream, record)
        peer.acknowledged = 0
        key = f", key {peer.key_name}" if peer.key_name else ""
        _log.info("stream %s (%s%s) from position %d", stream.stream_id, stream.name, key, arrival.position)
        welcome = peer.session.welcome(arrival.position, arrival.frames, self._credit, stored=arrival.synced)
        self._send(identity, welcome)

    def _check(self, peer: _Peer, stream: StreamMetadata) -> None:
        check_metadata(stream)
        self._door.check_sizes(stream)
        self._library.check_owner(stream.stream_id, peer.key_name)
        self._mask_check.check(stream)

    def _answer(self, identity: bytes, peer: _Peer) -> None:
        """Done, an acknowledgement of what is on the disk, or the last one again when the next has to wait."""
        arrival, state, now = peer.arrival, peer.session.state, time.monotonic()
        assert arrival is not None
        if arrival.complete and state is State.ENDING:
            self._send(identity, peer.session.done(arrival.stored))
            self._claims.drop(peer.stream_id, identity)
            del self._peers[identity]
            return
        confirmed = peer.acknowledged if arrival.journal.full else arrival.synced
        waits = peer.acknowledged < arrival.position or state is State.ENDING
        if confirmed > peer.acknowledged or (waits and now - peer.answered > _REPEAT_S):
            peer.acknowledged, peer.answered = max(confirmed, peer.acknowledged), now
            self._send(identity, peer.session.acknowledge(peer.acknowledged, self._credit))

    def _send(self, identity: bytes, parts: Parts) -> None:
        self._router.send_multipart([identity, *parts])  # ROUTER drops what is for a peer that has gone
