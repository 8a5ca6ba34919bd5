"""A journal on disk: a folder of segment files, of which the last one grows and the oldest ones are deleted.

    journal = DiskJournal.create(folder, metadata, limit_bytes)     # or .open(folder, limit_bytes)
    journal.append(parts); journal.append(parts)                    # in memory
    journal.sync()                                                  # on the disk, both with one wait: now send, or acknowledge
    journal.release(position)                                       # segments that end before it are deleted

What is synced survives the end of the process and a power cut; what is appended only may survive. An error of `sync` loses
nothing: call it again when the disk has room. `open` cuts off what a crash left half-written; whatever else it cannot read it
refuses and leaves alone. Format: `segments.py`.

`append`, `sync`, `read` and `release` are for one thread each; different ones may run at the same time.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TextIO

from framefold_protocol.durable import PARTIAL, disk_errors, lock_folder, make_folder, sync_folder
from framefold_protocol.errors import LocalProtocolError, StoreError
from framefold_protocol.segment_writer import SegmentWriter
from framefold_protocol.segments import (
    Head,
    Record,
    Segment,
    pack_record,
    read_record,
    read_segments,
    segment_path,
    segment_paths,
)
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)
_SEGMENT_BYTES = 64 * 2**20
"""A segment takes no more records once it has as many; a sixteenth of a journal's limit when that is less."""


class JournalInUse(StoreError):
    """Another process has the journal open."""


class DiskJournal:
    """A `Journal` that outlives its process. Close it; delete it when nothing in it is needed any more."""

    def __init__(
        self, folder: Path, lock: TextIO, segments: list[Segment], head: Head, limit_bytes: int, buffer_bytes: int | None
    ) -> None:
        """Take over what is in the folder and begin a segment; see `create` and `open`."""
        self.folder = folder
        self.metadata = head.metadata
        """Whose journal it is, as told to `create`."""
        self.run = head.run
        """Counts the openings of this journal, the one that made it in."""
        self._lock = lock
        self._limit_bytes = limit_bytes
        self._buffer_bytes = buffer_bytes or limit_bytes
        self._segment_bytes = max(min(_SEGMENT_BYTES, limit_bytes // 16), 2**16)
        self._records = {record.position: record for segment in segments for record in segment.records}
        self._newest = self._records.get(head.first - 1)
        self._pending: dict[int, Parts] = {}
        # Each number is changed by one method only, so that no thread undoes another's count.
        self._start = segments[0].head.first if segments else head.first
        self._synced = self._end = head.first
        self._appended_bytes = self._synced_bytes = sum(record.size for record in self._records.values())
        self._released_bytes = 0
        self._undeletable = False
        self._firsts = [segment.head.first for segment in segments if segment.records]
        self._writer = self._begin_segment()

    @classmethod
    def create(
        cls, folder: Path, metadata: bytes, limit_bytes: int, *, start: int = 0, buffer_bytes: int | None = None
    ) -> DiskJournal:
        """A new journal, the next position `start`, in a folder that holds none; `metadata` is for those who open it.

        `full` says what the limits bound. Raises `StoreError`.
        """
        with disk_errors(f"creating journal {folder}"):
            make_folder(folder)
            lock = _lock(folder)
            try:
                if segment_paths(folder):
                    raise StoreError(f"folder {folder} holds a journal already", hint="Open it, or choose another folder")
                return cls(folder, lock, [], Head(1, start, metadata), limit_bytes, buffer_bytes)
            except BaseException:
                lock.close()
                raise

    @classmethod
    def open(cls, folder: Path, limit_bytes: int, *, buffer_bytes: int | None = None) -> DiskJournal:
        """The journal in a folder, as an earlier process left it. Raises `StoreError`, `JournalInUse` among them."""
        with disk_errors(f"opening journal {folder}"):
            lock = _lock(folder)
            try:
                segments = read_segments(folder)
                newest = segments[-1]
                head = Head(newest.head.run + 1, newest.end, newest.head.metadata)
                _cut_off(newest)
                for partial in folder.glob(f"*{PARTIAL}"):
                    partial.unlink()
                return cls(folder, lock, segments, head, limit_bytes, buffer_bytes)
            except BaseException:
                lock.close()
                raise

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds a journal."""
        return bool(segment_paths(folder))

    @property
    def start(self) -> int:
        """The first position that is kept. After opening it may be one that had been released."""
        return self._start

    @property
    def synced(self) -> int:
        """Everything before this position is on the disk."""
        return self._synced

    @property
    def end(self) -> int:
        """The position the next append gets."""
        return self._end

    @property
    def fill(self) -> float:
        """Share of the limit in use, 0 to 1 and at most one message more."""
        return (self._appended_bytes - self._released_bytes) / self._limit_bytes

    @property
    def full(self) -> bool:
        """Whether the kept messages have reached the limit, or those that are not synced their bound in memory.

        The files may take two segments and a message more than the limit: they are deleted as a whole, the newest one never.
        """
        return self.fill >= 1 or self._appended_bytes - self._synced_bytes >= self._buffer_bytes

    def append(self, parts: Parts) -> int:
        """Keep one message, in memory until `sync`; returns its position."""
        position = self._end
        self._pending[position] = parts
        self._appended_bytes += Record.bytes_of(parts)
        self._end += 1
        return position

    def sync(self) -> None:
        """Put everything appended before on the disk. Raises `StoreError`; the rest is kept, and the next call tries again."""
        end = self._end
        with disk_errors(f"writing journal {self.folder}"):
            while self._synced < end:
                if self._writer.offset >= self._segment_bytes:
                    full, self._writer = self._writer, self._begin_segment()
                    full.close()
                self._write(end)

    def read(self, position: int) -> Parts:
        """The message of a kept position, synced or not. Raises `LocalProtocolError` outside, `StoreError` for damage."""
        if not self._start <= position < self._end:
            raise LocalProtocolError(f"journal holds positions {self._start} to {self._end - 1}, not {position}")
        pending = self._pending.get(position)  # before the record is looked up: `sync` makes that first
        return read_record(self._records[position]) if pending is None else pending

    def last(self) -> Parts | None:
        """The newest message, released or not; None when there never was one. It tells how far the stream had come."""
        if self._end > self._synced:
            return self._pending[self._end - 1]
        return read_record(self._newest) if self._newest else None

    def release(self, position: int) -> None:
        """Forget everything synced before this position. Files are deleted as a whole, that of the newest message never; one
        that the disk does not delete now is tried again later.
        """
        while self._start < min(position, self._synced):
            self._released_bytes += self._records.pop(self._start).size
            self._start += 1
        try:
            while len(self._firsts) > 1 and self._firsts[1] <= min(self._start, self._synced - 1):
                segment_path(self.folder, self._firsts[0]).unlink(missing_ok=True)
                sync_folder(self.folder)  # one by one: a power cut must not leave a hole
                del self._firsts[0]
                self._undeletable = False
        except OSError as error:  # nothing depends on it
            if not self._undeletable:
                _log.warning("journal %s: an old segment cannot be deleted yet: %s", self.folder, error)
            self._undeletable = True

    def close(self) -> None:
        """Let go of the folder; what is not synced is lost. Twice is a no-op."""
        if not self._lock.closed:
            self._writer.close()
            self._lock.close()

    def delete(self) -> None:
        """Delete the journal's files and close it. Raises `StoreError`."""
        with disk_errors(f"deleting journal {self.folder}"):
            for path in segment_paths(self.folder):  # the oldest first: until the last is gone, the rest is a journal
                path.unlink()
            (self.folder / "lock").unlink()
            self.folder.rmdir()
            sync_folder(self.folder.parent)
        self.close()

    def _begin_segment(self) -> SegmentWriter:
        writer = SegmentWriter(self.folder, Head(self.run, self._synced, self.metadata))
        self._firsts.append(self._synced)
        return writer

    def _write(self, end: int) -> None:
        """Some of the messages before position `end`: as many as fit into the segment, and at least one."""
        buffers, records, offset = list[bytes](), list[Record](), self._writer.offset
        for position in range(self._synced, end):
            if records and offset >= self._segment_bytes:
                break
            packed = pack_record(position, self._pending[position])
            records.append(Record.at(self._writer.path, offset, packed[0]))
            buffers += packed
            offset = records[-1].end
        self._writer.write(buffers)
        for record in records:
            self._records[record.position] = self._newest = record
            self._synced_bytes += record.size
            self._synced = record.position + 1
            del self._pending[record.position]


def _lock(folder: Path) -> TextIO:
    if (lock := lock_folder(folder)) is None:
        raise JournalInUse(f"journal {folder} is in use by another process", hint="Stop it, or choose another journal folder")
    return lock


def _cut_off(segment: Segment) -> None:
    """Give back what lies behind a segment's last record: reserved space, or a record a crash left half-written."""
    if rest := segment.path.stat().st_size - segment.size:
        if not segment.clean:
            _log.warning("journal segment %s: cut off %d bytes that a crash left half-written", segment.path, rest)
        os.truncate(segment.path, segment.size)
