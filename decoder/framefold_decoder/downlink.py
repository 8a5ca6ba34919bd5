"""The decoder's end of the link: a thread around a ROUTER socket, with a `DecoderSession` for each peer.

What arrived is stored in batches, so that many snapshots share one wait for the disk; acknowledged is only what is stored.
A peer that sends something wrong is told so and loses its session; the other streams go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import zmq

from framefold_decoder.library import Library
from framefold_decoder.store.metadata import check_metadata
from framefold_protocol import wire
from framefold_protocol.errors import InputError, RemoteProtocolError, SettingsError, StoreError
from framefold_protocol.masks import derive_masks
from framefold_protocol.messages import Data, End, StreamMetadata
from framefold_protocol.session import DecoderSession, Ended, Opened, Received, Refused
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)
_TICK_MS = 200
_BATCH = 64
"""Messages taken from the socket before what they hold is stored."""


@dataclass
class _Peer:
    session: DecoderSession = field(default_factory=DecoderSession)
    arrived: list[Data] = field(default_factory=list)
    """Received, not stored yet."""
    wire_bytes: int = 0
    """Of all messages since something was stored."""

    @property
    def stream_id(self) -> str:
        return self.session.stream.stream_id if self.session.stream else ""


class Downlink:
    """Receives streams into a library. A context manager: leaving it stores what has arrived, then closes the socket."""

    def __init__(
        self, endpoint: str, library: Library, credit: int, mask_folder: Path | None, on_stored: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._library = library
        self._credit = credit
        self._mask_folder = mask_folder
        self._on_stored = on_stored
        self._peers: dict[bytes, _Peer] = {}
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.IPV6, 1)
        self._thread = threading.Thread(target=self._run, name="downlink", daemon=True)

    def __enter__(self) -> Downlink:
        try:
            self._router.bind(self._endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            hint = "Stop the other program, or choose another address with --ingest"
            raise SettingsError(f"cannot listen for encoders on {self._endpoint}: {error.strerror}", hint=hint) from error
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        self._context.destroy(linger=200)  # the last acknowledgements

    @property
    def running(self) -> bool:
        """Whether encoders are served."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._router.poll(_TICK_MS):
                self._take_batch()

    def _take_batch(self) -> None:
        for _ in range(_BATCH):
            try:
                identity, *parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._guarded(self._hear, identity, parts)
        for identity in [identity for identity, peer in self._peers.items() if peer.arrived]:
            self._guarded(self._store, identity)

    def _guarded(self, action: Callable[..., None], identity: bytes, *arguments: Parts) -> None:
        """Whatever a peer does wrong, or the store cannot do for it, ends that peer's session and nothing else."""
        peer = self._peers.setdefault(identity, _Peer())
        try:
            action(identity, peer, *arguments)
        except RemoteProtocolError as error:
            self._refuse(identity, peer, error)
        except InputError as error:  # its mask file is not here
            self._refuse(identity, peer, RemoteProtocolError(error.message, code="mask-file", hint=error.hint))
        except StoreError as error:
            self._refuse(identity, peer, RemoteProtocolError(error.message, code="storage", hint=error.hint, retry=True))
        except Exception as error:  # a bug here must not take the other streams along
            _log.exception("stream %s", peer.stream_id or "(not opened)")
            self._refuse(identity, peer, RemoteProtocolError(f"the decoder failed: {error!r}", code="internal"))

    def _refuse(self, identity: bytes, peer: _Peer, error: RemoteProtocolError) -> None:
        _log.warning("stream %s: %s", peer.stream_id or "(not opened)", error)
        self._send(identity, peer.session.refuse(error))
        del self._peers[identity]

    def _hear(self, identity: bytes, peer: _Peer, parts: Parts) -> None:
        peer.wire_bytes += wire.size(parts)
        match peer.session.receive(parts):
            case Opened(stream):
                self._open(identity, peer, stream)
            case Received(data):
                peer.arrived.append(data)
            case Ended(end):
                self._close(identity, peer, end)
            case Refused(error):
                _log.warning("stream %s: its encoder gave up: %s", peer.stream_id, error.message)
                del self._peers[identity]

    def _open(self, identity: bytes, peer: _Peer, stream: StreamMetadata) -> None:
        for other, older in list(self._peers.items()):
            if other != identity and older.stream_id == stream.stream_id:
                newer = RemoteProtocolError("a newer connection opened the same stream", code="superseded")
                self._refuse(other, older, newer)
        self._store(identity, peer)
        check_metadata(stream)
        self._check_masks(stream)
        record = self._library.add_stream(stream)
        if record.state == "complete":
            self._send(identity, peer.session.done(record.position))
            return
        _log.info("stream %s (%s) from position %d", stream.stream_id, stream.name, record.position)
        self._send(identity, peer.session.welcome(record.position, record.frames, self._credit))

    def _check_masks(self, stream: StreamMetadata) -> None:
        for spec, digest in zip(stream.families, stream.mask_digests, strict=True):
            if derive_masks(spec, stream.shape, self._mask_folder).digest != digest:
                message = f"masks {spec} are not the encoder's: digest {digest[:16]}... expected here"
                raise RemoteProtocolError(message, code="mask-hash", hint="Use the same framefold and mask files on both sides")

    def _store(self, identity: bytes, peer: _Peer) -> None:
        if peer.arrived:
            batch, peer.arrived = peer.arrived, []
            self._library.put(peer.stream_id, batch, peer.wire_bytes)
            peer.wire_bytes = 0
            self._send(identity, peer.session.acknowledge(batch[-1].position + 1, self._credit))
            self._on_stored()

    def _close(self, identity: bytes, peer: _Peer, end: End) -> None:
        self._store(identity, peer)
        self._library.finish(peer.stream_id, end.position, end.frames)
        _log.info("stream %s is complete: %d frames", peer.stream_id, end.frames)
        self._send(identity, peer.session.done(end.position))
        del self._peers[identity]
        self._on_stored()

    def _send(self, identity: bytes, parts: Parts) -> None:
        self._router.send_multipart([identity, *parts])  # ROUTER drops what is for a peer that has gone
