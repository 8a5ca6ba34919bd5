"""What has arrived of the streams and is not in the library yet: on the disk in a journal each, moved on by a thread.

    arrival = arrivals.open(stream, record)           # link thread: welcome from arrival.position, arrival.frames
    arrival.take(data, parts, wire_bytes)             # refused when it could not be stored later
    arrival.sync()                                    # on the disk up to arrival.synced: acknowledge
    arrival.end = end                                 # ... and arrival.complete once the store is whole and closed

The link waits for one append to one file, however many snapshots arrived; the store's many files and the catalogue are the
thread's. A full disk stops either until there is room: nothing acknowledged is lost, nothing is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType

import msgpack

from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.store.incoming import check_order, unpack
from framefold_protocol import wire
from framefold_protocol.disk_journal import DiskJournal
from framefold_protocol.durable import disk_errors
from framefold_protocol.errors import FramefoldError, StoreError
from framefold_protocol.messages import Audit, Data, End, Gap, Hello, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
"""After the disk refused something, it is asked again so soon."""
_BATCH = 64
"""Positions that are stored together, sharing their waits for the disk."""
_BATCH_BYTES = 32 * 2**20
"""Of coded pixels in a batch; decoded they take a few times as much memory."""


class Arrival:
    """One stream. The link's thread calls the methods, the mover's the ones with an underscore."""

    def __init__(self, stream: StreamMetadata, journal: DiskJournal, record: StreamRecord) -> None:
        self.stream = stream
        self.journal = journal
        self.stored = record.position
        """Everything before it is in the library."""
        last = journal.last() if journal.end > record.position else None
        self.frames = record.frames if last is None else _end_frame(last)
        """Frames before `position`."""
        self.end: End | None = None
        """Set when the stream has this many positions and frames, all of them here."""
        self.complete = False
        """Whether the store is whole and closed; the journal is gone then."""
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
        return self.end is None and self.stored == self.journal.end

    @property
    def problems(self) -> list[str]:
        """What keeps it from being written; empty when all is well."""
        return [f"stream {self.stream.stream_id} waits: {problem}" for problem in list(self._problems.values())]

    def take(self, data: Data, parts: Parts) -> None:
        """The next position. Raises `RemoteProtocolError` when its pixels are not what its header and the stream promise."""
        check_order([data], self.frames)
        unpack(data, self.stream)
        self.journal.append(parts)
        self.frames += data.frames

    def count(self, wire_bytes: int) -> None:
        """Of a message that is not the next position."""
        self._other_bytes += wire_bytes

    def sync(self) -> None:
        """Put what was taken on the disk. Without room it stays in memory, `problems` say so, and a later call tries again."""
        if self.journal.synced == self.journal.end or time.monotonic() < self._sync_again:
            return
        try:
            self.journal.sync()
        except StoreError as error:
            self._sync_again = time.monotonic() + _RETRY_S
            self._complain("journal", error)
        else:
            self._well("journal")

    def _move(self, library: Library, metrics: Metrics) -> bool:
        """Store a batch of what is synced, or close the stream; whether anything was to do and done."""
        if self.complete or time.monotonic() < self._move_again:
            return False
        try:
            moved = self._store_batch(library, metrics) or self._finish(library)
        except Exception as error:  # whatever one stream meets must not keep the others waiting
            self._move_again = time.monotonic() + _RETRY_S
            self._complain("library", error)
            return False
        self._well("library")
        return moved

    def _store_batch(self, library: Library, metrics: Metrics) -> bool:
        batch: list[Data] = []
        coded_bytes = wire_bytes = 0
        first, end = self.stored, self.journal.synced
        while first + len(batch) < min(end, first + _BATCH) and coded_bytes < _BATCH_BYTES:
            parts = self.journal.read(first + len(batch))
            batch.append(_data(parts))
            coded_bytes += len(parts[1])
            wire_bytes += wire.size(parts)
        if not batch:
            return False
        wire_bytes, self._other_bytes = wire_bytes + self._other_bytes, 0
        library.put(self.stream.stream_id, batch, wire_bytes)
        metrics.stored(batch, wire_bytes)
        self.journal.release(first + len(batch))
        self.stored = first + len(batch)
        return True

    def _finish(self, library: Library) -> bool:
        if self.end is None or self.stored != self.end.position:
            return False
        library.finish(self.stream.stream_id, self.end.position, self.end.frames)
        _log.info("stream %s is complete: %d frames", self.stream.stream_id, self.end.frames)
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


class Arrivals:
    """All streams, and the thread that moves them. A context manager: leaving it moves what has arrived, if the disk lets it.

    Only the link's thread opens and forgets streams. `on_moved` is called by the mover's, after each batch.
    """

    def __init__(
        self, library: Library, limit_bytes: int, on_moved: Callable[[], None] = lambda: None, metrics: Metrics | None = None
    ) -> None:
        """`limit_bytes`: of what one stream may have on the disk here."""
        self._library = library
        self._folder = library.folder / "journal"
        self._limit_bytes = limit_bytes
        self._on_moved = on_moved
        self._metrics = metrics or Metrics()
        self._streams: dict[str, Arrival] = {}
        self._broken: dict[str, StoreError] = {}
        self._take_up_again = 0.0
        self._closing = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)

    def __enter__(self) -> Arrivals:
        """Take up what an earlier process left. What cannot be read is left alone, and told in `problems`."""
        self._take_up(sorted(folder.name for folder in self._folder.glob("*")))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._work.set()
        self._thread.join()
        for arrival in self._streams.values():
            arrival.journal.close()

    @property
    def running(self) -> bool:
        """Whether what arrives is moved to the library."""
        return self._thread.is_alive()

    def problems(self) -> list[str]:
        """What keeps streams from being written; empty when all is well."""
        found = [problem for arrival in list(self._streams.values()) for problem in arrival.problems]
        return found + [f"stream {stream_id} cannot go on: {error}" for stream_id, error in self._broken.items()]

    def open(self, stream: StreamMetadata, record: StreamRecord) -> Arrival:
        """A stream that is not complete in the catalogue; `record` is what that says. Raises `StoreError`."""
        stream_id = stream.stream_id
        if error := self._broken.get(stream_id):
            raise StoreError(error.message, hint=error.hint)
        if stream_id not in self._streams:
            self._library.store(stream_id)  # one that cannot be opened is no place to go on
            metadata = msgpack.packb({"hello": hello_of(stream)})
            journal = DiskJournal.create(self._folder / stream_id, metadata, self._limit_bytes, start=record.position)
            self._streams[stream_id] = Arrival(stream, journal, record)
        return self._streams[stream_id]

    def sync(self) -> None:
        """Put what was taken on the disk, as far as it has room."""
        if self._broken and time.monotonic() >= self._take_up_again:
            self._take_up([name for name, error in self._broken.items() if isinstance(error.__cause__, OSError)])
        for arrival in self._streams.values():
            arrival.sync()
        if any(arrival.stored < arrival.synced for arrival in self._streams.values()):
            self.wake()

    def forget_all_but(self, sent: Collection[str]) -> None:
        """Delete the journals of streams that are complete, and of those that are idle and not among the ones being sent."""
        for stream_id, arrival in list(self._streams.items()):
            if arrival.complete or (arrival.idle and stream_id not in sent):
                del self._streams[stream_id]
                _delete(arrival.journal)

    def wake(self) -> None:
        """Something was synced or ended: look for work now."""
        self._work.set()

    def _take_up(self, stream_ids: Iterable[str]) -> None:
        self._take_up_again = time.monotonic() + _RETRY_S
        for stream_id in stream_ids:
            try:
                self._reopen(self._folder / stream_id)
            except StoreError as error:
                if stream_id not in self._broken:
                    _log.error("stream %s cannot go on: %s", stream_id, error)
                self._broken[stream_id] = error
            else:
                self._broken.pop(stream_id, None)

    def _reopen(self, folder: Path) -> None:
        with disk_errors(f"reading journal {folder}"):
            if not DiskJournal.exists(folder):  # it was being made, or deleted
                return _remove_empty(folder)
        journal = DiskJournal.open(folder, self._limit_bytes)
        record = self._library.catalogue.stream(folder.name)
        if record is None or record.position < journal.start:
            journal.close()
            found = "unknown" if record is None else f"stored up to position {record.position}"
            message = f"journal {folder} begins with position {journal.start}, but in the catalogue the stream is {found}"
            raise StoreError(message, hint="Restore catalogue, streams and journal from the same backup")
        if record.state == "complete" or journal.end <= record.position:
            journal.delete()
            return None
        _log.info("stream %s: storing positions %d to %d of its journal", folder.name, record.position, journal.end - 1)
        self._streams[folder.name] = Arrival(record.metadata, journal, record)
        return None

    def _run(self) -> None:
        while True:
            self._work.clear()
            moves = [arrival._move(self._library, self._metrics) for arrival in list(self._streams.values())]
            if any(moves):
                self._on_moved()
            elif self._closing.is_set():
                return
            else:
                self._work.wait(_RETRY_S)


def hello_of(stream: StreamMetadata) -> bytes:
    """A stream's metadata in bytes: the header of its hello."""
    return wire.encode(Hello(stream))[0]


def _data(parts: Parts) -> Data:
    message = wire.decode(parts)
    assert isinstance(message, Snapshot | RawFrames | Audit | Gap), "only these are taken"
    return message


def _end_frame(parts: Parts) -> int:
    data = _data(parts)
    return data.first_frame + data.frames


def _delete(journal: DiskJournal) -> None:
    try:
        journal.delete()
    except StoreError as error:  # its messages are stored: the next start tries again
        _log.warning("%s", error)
        journal.close()


def _remove_empty(folder: Path) -> None:
    (folder / "lock").unlink(missing_ok=True)
    folder.rmdir()
