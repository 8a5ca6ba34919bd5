"""One stream that is arriving: what of it is on the disk in its journal, and what of that in the library.

The link's thread calls the methods, the mover's only `move`.
"""

from __future__ import annotations

import logging
import threading
import time

from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.store.incoming import check_order, pixels_size, unpack
from framefold_protocol import wire
from framefold_protocol.disk_journal import DiskJournal
from framefold_protocol.errors import FramefoldError, RemoteProtocolError, StoreError
from framefold_protocol.messages import Audit, Data, End, Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)
RETRY_S = 1.0
"""After the disk refused something, it is asked again so soon."""
_BATCH = 64
"""Positions that are stored together, sharing their waits for the disk."""
_BATCH_BYTES = 128 * 2**20
"""Of the pixels in a batch, decoded: however few bytes they came in."""


class Arrival:
    """A stream, from its welcome to its end or to its encoder's next silence."""

    def __init__(self, stream: StreamMetadata, journal: DiskJournal, record: StreamRecord) -> None:
        self.stream = stream
        self.journal = journal
        self.stored = record.position
        """Everything before it is in the library."""
        last = journal.last() if journal.end > record.position else None
        self.frames = record.frames if last is None else _end_frame(last)
        """Frames before `position`."""
        self.complete = False
        """Whether the store is whole and closed; nothing is taken any more."""
        self._end: End | None = None
        self._closing = False
        self._lock = threading.Lock()  # what is taken, and whether that was all, is decided one at a time; counts, too
        self._problems: dict[str, str] = {}
        self._other_bytes = 0
        self._sync_again = self._move_again = 0.0
        journal.release(record.position)

    @property
    def position(self) -> int:
        """The next position."""
        return self.journal.end

    @property
    def synced(self) -> int:
        """Everything before it is on the disk."""
        return self.journal.synced

    @property
    def idle(self) -> bool:
        """Whether everything that arrived is in the library, and the stream may go on later."""
        return self._end is None and self.stored == self.journal.end

    @property
    def problems(self) -> list[str]:
        """What keeps it from being written; empty when all is well."""
        return [f"stream {self.stream.stream_id} waits: {problem}" for problem in list(self._problems.values())]

    def take(self, data: Data, parts: Parts) -> None:
        """The next position. Raises `RemoteProtocolError` when its pixels are not what its header and the stream promise, and
        when the stream is being closed."""
        check_order([data], self.frames)
        unpack(data, self.stream)
        with self._lock:
            self._check_open()
            self.journal.append(parts)
        self.frames += data.frames

    def ends(self, end: End) -> None:
        """The stream has this many positions and frames, all of them here."""
        with self._lock:
            self._end = end

    def goes_on(self) -> None:
        """Its encoder is here again, and will say anew where it ends. Raises `RemoteProtocolError` when it is being closed."""
        with self._lock:
            self._check_open()
            self._end = None

    def _check_open(self) -> None:
        if self._closing:
            hint = "Say hello again: it will be complete"
            raise RemoteProtocolError("the stream was ended, and is being closed", code="busy", hint=hint, retry=True)

    def count(self, wire_bytes: int) -> None:
        """Of a message that is not the next position."""
        with self._lock:
            self._other_bytes += wire_bytes

    def sync(self) -> None:
        """Put what was taken on the disk. Without room it stays in memory, `problems` say so, and a later call tries again."""
        if self.journal.synced == self.journal.end or time.monotonic() < self._sync_again:
            return
        try:
            self.journal.sync()
        except StoreError as error:
            self._sync_again = time.monotonic() + RETRY_S
            self._complain("journal", error)
        else:
            self._well("journal")

    def move(self, library: Library, metrics: Metrics) -> bool:
        """Store a batch of what is synced, or close the stream; whether anything was to do and done."""
        if self.complete or time.monotonic() < self._move_again:
            return False
        try:
            moved = self._store_batch(library, metrics) or self._finish(library)
        except Exception as error:  # whatever one stream meets must not keep the others waiting
            self._move_again = time.monotonic() + RETRY_S
            self._complain("library", error)
            return False
        self._well("library")
        return moved

    def _store_batch(self, library: Library, metrics: Metrics) -> bool:
        batch: list[Data] = []
        pixel_bytes = wire_bytes = 0
        first, end = self.stored, self.journal.synced
        while first + len(batch) < min(end, first + _BATCH) and pixel_bytes < _BATCH_BYTES:
            parts = self.journal.read(first + len(batch))
            batch.append(_data(parts))
            pixel_bytes += pixels_size(batch[-1], self.stream)
            wire_bytes += wire.size(parts)
        if not batch:
            return False
        other_bytes = self._other_bytes
        library.put(self.stream.stream_id, batch, wire_bytes + other_bytes)
        metrics.stored(batch, wire_bytes + other_bytes)
        with self._lock:
            self._other_bytes -= other_bytes
        self.stored = first + len(batch)
        self.journal.release(self.stored)
        return True

    def _finish(self, library: Library) -> bool:
        with self._lock:
            end = self._end
            if end is None or not self.stored == self.journal.end == end.position:
                return False
            self._closing = True
        library.finish(self.stream.stream_id, end.position, end.frames)
        _log.info("stream %s is complete: %d frames", self.stream.stream_id, end.frames)
        self.complete = True
        return True

    def _well(self, what: str) -> None:
        if self._problems.pop(what, None):
            _log.info("stream %s goes on", self.stream.stream_id)

    def _complain(self, what: str, error: Exception) -> None:
        if what not in self._problems:
            known = isinstance(error, FramefoldError)
            _log.error("stream %s waits: %s", self.stream.stream_id, error, exc_info=not known)
        self._problems[what] = str(error)


def _data(parts: Parts) -> Data:
    message = wire.decode(parts)
    assert isinstance(message, Snapshot | RawFrames | Audit | Gap), "only these are taken"
    return message


def _end_frame(parts: Parts) -> int:
    data = _data(parts)
    return data.first_frame + data.frames
