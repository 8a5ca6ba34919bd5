"""What has arrived of the streams and is not in the library yet: on the disk in a journal each, moved on by a thread.

    arrival = arrivals.open(stream, record)           # link thread: welcome from arrival.position, arrival.frames
    arrival.take(data, parts)                         # refused when it could not be stored later
    arrival.sync()                                    # on the disk up to arrival.synced: acknowledge
    arrival.ends(end)                                 # ... and arrival.complete once the store is whole and closed

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

from framefold_decoder.arrival import RETRY_S, Arrival
from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_protocol import wire
from framefold_protocol.disk_journal import DiskJournal, JournalInUse
from framefold_protocol.durable import PARTIAL, disk_errors
from framefold_protocol.errors import StoreError
from framefold_protocol.messages import Hello, StreamMetadata

_log = logging.getLogger(__name__)


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

    def holds(self, stream_id: str) -> bool:
        """Whether a stream is being sent, or what arrived of it is not all stored; from any thread."""
        return stream_id in self._streams

    def open(self, stream: StreamMetadata, record: StreamRecord) -> Arrival:
        """A stream that is not complete in the catalogue; `record` is what that says. Raises `StoreError`, and
        `RemoteProtocolError` while the stream is being closed."""
        stream_id = stream.stream_id
        if error := self._broken.get(stream_id):
            raise StoreError(error.message, hint=error.hint)
        if stream_id not in self._streams:
            self._library.store(stream_id)  # one that cannot be opened is no place to go on
            metadata = msgpack.packb({"hello": hello_of(stream)})
            journal = DiskJournal.create(self._folder / stream_id, metadata, self._limit_bytes, start=record.position)
            self._streams[stream_id] = _arrival(stream, journal, record)
        self._streams[stream_id].goes_on()
        return self._streams[stream_id]

    def sync(self) -> None:
        """Put what was taken on the disk, as far as it has room."""
        if self._broken and time.monotonic() >= self._take_up_again:
            gone = [name for name in self._broken if not (self._folder / name).exists()]  # deleted with its stream
            self._take_up([*gone, *(name for name, error in self._broken.items() if _may_pass(error))])
        for arrival in self._streams.values():
            arrival.sync()
        if any(arrival.stored < arrival.synced for arrival in self._streams.values()):
            self.wake()

    def forget_all_but(self, sent: Collection[str]) -> None:
        """Delete the journals of streams that are complete, and of those that are idle and not among the ones being sent."""
        for stream_id, arrival in list(self._streams.items()):
            if arrival.complete or (arrival.idle and stream_id not in sent):
                _delete(arrival.journal)
                del self._streams[stream_id]

    def wake(self) -> None:
        """Something was synced or ended: look for work now."""
        self._work.set()

    def _take_up(self, stream_ids: Iterable[str]) -> None:
        self._take_up_again = time.monotonic() + RETRY_S
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
                if folder.exists():
                    _remove_empty(folder)
                return
        record = self._library.catalogue.stream(folder.name)
        journal = DiskJournal.open(folder, self._limit_bytes)
        try:
            if (
                record is None
                or record.position < journal.start
                or (record.state == "complete" and journal.end > record.position)
            ):
                found = "unknown" if record is None else f"{record.state}, stored up to position {record.position}"
                kept = f"holds positions {journal.start} to {journal.end - 1}"
                message = f"journal {folder} {kept}, but in the catalogue the stream is {found}"
                raise StoreError(message, hint="Restore catalogue, streams and journal from the same backup")
            if journal.end <= record.position:
                journal.delete()
                return
            _log.info("stream %s: storing positions %d to %d of its journal", folder.name, record.position, journal.end - 1)
            self._streams[folder.name] = Arrival(record.metadata, journal, record)
        except BaseException:
            journal.close()
            raise

    def _run(self) -> None:
        while True:
            self._work.clear()
            moves = [arrival.move(self._library, self._metrics) for arrival in list(self._streams.values())]
            if any(moves):
                self._on_moved()
            elif self._closing.is_set():
                return
            else:
                self._work.wait(RETRY_S)


def hello_of(stream: StreamMetadata) -> bytes:
    """A stream's metadata in bytes: the header of its hello."""
    return wire.encode(Hello(stream))[0]


def _delete(journal: DiskJournal) -> None:
    try:
        journal.delete()
    except StoreError as error:  # its messages are stored: the next start tries again
        _log.warning("%s", error)
        journal.close()


def _remove_empty(folder: Path) -> None:
    for leftover in (folder / "lock", *folder.glob(f"*{PARTIAL}")):
        leftover.unlink(missing_ok=True)
    folder.rmdir()


def _arrival(stream: StreamMetadata, journal: DiskJournal, record: StreamRecord) -> Arrival:
    try:
        return Arrival(stream, journal, record)
    except BaseException:
        journal.close()
        raise


def _may_pass(error: StoreError) -> bool:
    """Whether what could not be read may be readable later: the system or the database refused, or somebody has it open."""
    return error.__cause__ is not None or isinstance(error, JournalInUse)
