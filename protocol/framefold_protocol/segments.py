"""The segment file of a journal: its bytes, made and read back. Little-endian; which segments there are is `disk_journal.py`'s.

segment = magic version mark run first length checksum metadata record*

magic     8 bytes   "FFOLDJNL"
version   u32       1
mark      u32 u64   CRC-32 of the next 8 bytes; everything before this offset was on the disk once: hole or damage there
                    is no torn write. The only bytes that are ever overwritten
run       u64       which opening of the journal wrote the segment, from 1
first     u64       position of the first record
length    u32       bytes of the metadata
checksum  u32       CRC-32 of magic, version, run, first, length and metadata
metadata  bytes     whose journal it is; the caller's

record = position length[2] body-checksum head-checksum body

position  u64       the first record's is `first`, the others follow
length    u32 u64   bytes of the message's first and second part; the third has 4
checksums u32 u32   CRC-32 of the body (the three parts), CRC-32 of the 24 bytes before this one
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from framefold_protocol.checksum import crc32
from framefold_protocol.durable import disk_errors
from framefold_protocol.errors import LocalProtocolError, StoreError
from framefold_protocol.wire import Parts

MAGIC = b"FFOLDJNL"
VERSION = 1
_SUFFIX = ".journal"
_START = struct.Struct("<8sI")
_MARK = struct.Struct("<IQ")
_REST = struct.Struct("<QQII")
MARK_OFFSET = _START.size
_HEAD_SIZE = MARK_OFFSET + _MARK.size + _REST.size
_RECORD = struct.Struct("<QIQII")
_MAX_METADATA = 64 * 2**20
_RESTORE = "Restore the folder from a backup; or move it away, and do without what it holds"


@dataclass(frozen=True)
class Head:
    """What a segment says of itself."""

    run: int
    first: int
    """Position of its first record."""
    metadata: bytes
    mark: int = 0
    """Offset before which everything was on the disk once; 0: unknown."""

    @property
    def size(self) -> int:
        """Bytes before the first record."""
        return _HEAD_SIZE + len(self.metadata)

    def pack(self) -> bytes:
        """The bytes of a new segment."""
        start, rest = _START.pack(MAGIC, VERSION), struct.pack("<QQI", self.run, self.first, len(self.metadata))
        checksum = struct.pack("<I", crc32(start, rest, self.metadata))
        return b"".join((start, pack_mark(self.size), rest, checksum, self.metadata))


@dataclass(frozen=True)
class Record:
    """Where a message lies in a segment."""

    path: Path
    offset: int
    position: int
    lengths: tuple[int, int, int]
    checksum: int
    """Of its body."""

    @classmethod
    def at(cls, path: Path, offset: int, head: bytes) -> Record:
        """The record whose first 28 bytes are `head`."""
        position, first, second, checksum, _ = _RECORD.unpack(head)
        return cls(path, offset, position, (first, second, 4), checksum)

    @staticmethod
    def bytes_of(parts: Parts) -> int:
        """Bytes that a message takes in a segment. Raises `LocalProtocolError` unless it has a message's three parts."""
        if len(parts) != 3 or len(parts[2]) != 4:
            raise LocalProtocolError(f"journal keeps messages of three parts, not of {[len(part) for part in parts]} bytes")
        return _RECORD.size + sum(map(len, parts))

    @property
    def size(self) -> int:
        """Bytes it takes."""
        return _RECORD.size + sum(self.lengths)

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.size


@dataclass(frozen=True)
class Segment:
    """A segment that was read: its head, and its records in order."""

    path: Path
    head: Head
    records: list[Record]
    clean: bool
    """Whether nothing but reserved space is behind the records."""

    @property
    def end(self) -> int:
        """The position behind its last record."""
        return self.head.first + len(self.records)

    @property
    def size(self) -> int:
        """Bytes up to the end of its last record."""
        return self.records[-1].end if self.records else self.head.size


def segment_path(folder: Path, first: int) -> Path:
    """Where the segment that begins with a position is."""
    return folder / f"{first:020d}{_SUFFIX}"


def segment_paths(folder: Path) -> list[Path]:
    """The segments in a folder, in order."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def pack_mark(offset: int) -> bytes:
    """The mark's 12 bytes, for `MARK_OFFSET`. They lie within one sector of the disk, so that they change as one."""
    packed = struct.pack("<Q", offset)
    return struct.pack("<I", crc32(packed)) + packed


def pack_record(position: int, parts: Parts) -> list[bytes]:
    """A record's bytes: its head, and the message's parts as they are."""
    fields = struct.pack("<QIQI", position, len(parts[0]), len(parts[1]), crc32(*parts))
    return [fields + struct.pack("<I", crc32(fields)), *parts]


def read_segments(folder: Path) -> list[Segment]:
    """All segments of a journal, every record's head checked, and the bodies of those that may be half-written.

    Raises `StoreError` for what is not a whole journal: foreign or damaged files, another version, a missing segment.
    """
    paths = segment_paths(folder)
    if not paths:
        raise StoreError(f"folder {folder} holds no journal", hint="Check the path; segments are called POSITION.journal")
    heads = [read_head(path) for path in paths]
    for path, head in zip(paths, heads, strict=True):
        if head.metadata != heads[-1].metadata or path != segment_path(folder, head.first):
            message = f"journal segment {path} begins with position {head.first} of a stream, expected that of its name"
            raise StoreError(f"{message}, and the same stream in the whole folder", hint="Move what does not belong there")
    ends: list[int | None] = [*(later.first for _, later in pairwise(heads)), None]
    return [_read_segment(path, head, end) for path, head, end in zip(paths, heads, ends, strict=True)]


def read_head(path: Path) -> Head:
    """What a segment says of itself. Raises `StoreError` when it is not a whole one of this version."""
    with path.open("rb") as file:
        found = file.read(_HEAD_SIZE)
        if len(found) < _HEAD_SIZE or not found.startswith(MAGIC):
            raise StoreError(f"{path} starts with {found[:8]!r}, expected a journal segment ({MAGIC!r})", hint=_RESTORE)
        _, version = _START.unpack_from(found)
        if version != VERSION:
            hint = "Run the framefold version that wrote it"
            raise StoreError(f"journal segment {path} has format version {version}, expected {VERSION}", hint=hint)
        run, first, length, checksum = _REST.unpack(found[-_REST.size :])
        metadata = file.read(min(length, _MAX_METADATA))
    if crc32(found[: _START.size], found[-_REST.size : -4], metadata) != checksum:
        raise StoreError(f"journal segment {path} is damaged at offset 0: its head fails its checksum", hint=_RESTORE)
    mark_checksum, mark = _MARK.unpack_from(found, MARK_OFFSET)
    return Head(run, first, metadata, mark if crc32(struct.pack("<Q", mark)) == mark_checksum else 0)


def read_record(record: Record) -> Parts:
    """A message again. Raises `StoreError` when its bytes have changed, or are gone."""
    with disk_errors(f"reading journal segment {record.path}"), record.path.open("rb", buffering=0) as file:
        return _read_body(record, file.fileno())


def _read_segment(path: Path, head: Head, end: int | None) -> Segment:
    """The records up to position `end`, where the next segment begins; None: this is the last, up to where writing ended."""
    records: list[Record] = []
    with path.open("rb", buffering=0) as file:
        offset = head.size
        while head.first + len(records) != end:
            confirmed = end is not None or offset < head.mark
            record = _read_record(path, file.fileno(), offset, head.first + len(records), with_body=not confirmed)
            if record is None and confirmed:
                raise _damaged(path, offset, head.first + len(records), end)
            if record is None:
                return Segment(path, head, records, clean=not any(_pread(file.fileno(), _RECORD.size, offset)))
            records.append(record)
            offset = record.end
    return Segment(path, head, records, clean=True)


def _read_record(path: Path, descriptor: int, offset: int, position: int, with_body: bool) -> Record | None:
    """The record of a position, if it is at an offset; `with_body`: and if its body is whole."""
    found = os.pread(descriptor, _RECORD.size, offset)
    if len(found) < _RECORD.size or crc32(found[:-4]) != struct.unpack("<I", found[-4:])[0]:
        return None
    record = Record.at(path, offset, found)
    if record.position != position or record.end > os.fstat(descriptor).st_size:
        return None
    try:
        if with_body:
            _read_body(record, descriptor)
    except StoreError:
        return None
    return record


def _read_body(record: Record, descriptor: int) -> Parts:
    offset, parts = record.end - sum(record.lengths), []
    for length in record.lengths:
        parts.append(_pread(descriptor, length, offset))
        offset += length
    if [len(part) for part in parts] != list(record.lengths) or crc32(*parts) != record.checksum:
        raise _damaged(record.path, record.offset, record.position)
    return parts


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """As many bytes, fewer at the file's end; the system gives at most 2 GiB at once."""
    found = os.pread(descriptor, length, offset)
    while len(found) < length and (more := os.pread(descriptor, length - len(found), offset + len(found))):
        found += more
    return found


def _damaged(path: Path, offset: int, position: int, end: int | None = None) -> StoreError:
    missing = f", and the next segment begins with position {end}" if end is not None else ""
    message = f"journal segment {path} is damaged at offset {offset}: there is no whole record of position {position}"
    return StoreError(message + missing, hint=_RESTORE)
