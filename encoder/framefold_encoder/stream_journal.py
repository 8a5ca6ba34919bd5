"""The encoder's journal on disk: a stream's messages until the decoder has stored them, what the stream is, how far it came.

    FOLDER/lock             one encoder at a time
    FOLDER/STREAM/          the stream's segments, and whose they are: its metadata and its recipe
    FOLDER/STREAM.tally     what the messages up to a position hold; a crc32 and JSON in one line
    FOLDER/stored           recipe and summary of the last source that was stored whole, and where

Nothing else in the folder is touched: a stream's folder is known by its name, the stream's id, and by what is in it.

A *recipe* says what a stream is made of: source, settings, description. Only an encoder with the same recipe goes on with a
stream. A source that gives the same frames again goes on where the journal ends. A live one cannot: what it delivered meanwhile
is lost and nobody knows how much, so its old stream ends where its journal ends, and a new one begins.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TextIO

import msgpack

from framefold_protocol import wire
from framefold_protocol.checksum import crc32
from framefold_protocol.disk_journal import DiskJournal, JournalInUse
from framefold_protocol.durable import PARTIAL, disk_errors, lock_folder, make_folder, write_durably
from framefold_protocol.errors import RemoteProtocolError, StoreError
from framefold_protocol.messages import Hello, StreamMetadata
from framefold_protocol.segments import segment_paths
from framefold_protocol.wire import Parts

Recipe = Mapping[str, str]
_STREAM_ID = re.compile("[0-9a-f]{32}")
_UNKNOWN = "Restore it from a backup, or move it away and stream the source anew"


@dataclass(frozen=True)
class Tally:
    """What a stream's messages before a position hold."""

    position: int = 0
    frames: int = 0
    """All of them, lost ones among them."""
    gaps: int = 0
    """Frames that are lost."""
    snapshots: int = 0
    ratios: dict[int, int] = field(default_factory=dict)
    """Snapshots of each B."""
    bytes_wire: int = 0
    """Bytes that had been sent by then, repeats included."""

    def plus(self, parts: Parts) -> Tally:
        """With the next message."""
        header = msgpack.unpackb(parts[0])
        kind, frames = header["type"], header.get("frames", 0)
        counted = replace(self, position=self.position + 1, frames=self.frames + frames)
        if kind == "gap":
            return replace(counted, gaps=self.gaps + frames)
        if kind == "snapshot":
            return replace(counted, snapshots=self.snapshots + 1, ratios=self.ratios | {frames: self.ratios.get(frames, 0) + 1})
        return counted

    def pack(self) -> bytes:
        """As a line of text."""
        text = json.dumps(asdict(self)).encode()
        return b"%08x %s\n" % (crc32(text), text)

    @classmethod
    def unpack(cls, packed: bytes) -> Tally:
        """From `pack`; an empty one from anything else."""
        checksum, _, text = packed.partition(b"\n")[0].partition(b" ")
        if checksum != b"%08x" % crc32(text):
            return cls()
        fields = json.loads(text)
        return cls(**fields | {"ratios": {int(ratio): count for ratio, count in fields["ratios"].items()}})


class StreamJournal:
    """A stream's journal, its tally kept beside it. Implements `Journal`."""

    def __init__(self, disk: DiskJournal) -> None:
        """Take up what is in a journal."""
        self._disk = disk
        self.stream, self.recipe = _unpack_metadata(disk)
        self._path = disk.folder.with_name(f"{disk.folder.name}.tally")
        with disk_errors(f"opening {self._path}"):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            self._written = os.pread(self._descriptor, 2**20, 0)
        tally = Tally.unpack(self._written)
        for position in range(max(tally.position, disk.start), disk.end):
            tally = tally.plus(disk.read(position))
        last = disk.last()
        self.tally = replace(tally, position=disk.end, frames=_end_frame(last) if last else 0)
        """Of everything appended."""
        self.bytes_wire = tally.bytes_wire
        """To be kept in the tally; whoever sends sets it."""
        self.beside: Sequence[StreamJournal] = ()
        """Of other streams on the same disk, whose messages count against this journal's bound."""
        self._synced = disk.end

    @classmethod
    def create(cls, folder: Path, stream: StreamMetadata, recipe: Recipe, limit_bytes: int, buffer_bytes: int) -> StreamJournal:
        """A new stream's. Raises `StoreError`."""
        metadata = msgpack.packb({"hello": wire.encode(Hello(stream)), "recipe": dict(recipe)})
        return cls(DiskJournal.create(folder / stream.stream_id, metadata, limit_bytes, buffer_bytes=buffer_bytes))

    @property
    def run(self) -> int:
        """Counts the openings of this journal, from 1."""
        return self._disk.run

    @property
    def start(self) -> int:
        """The first position that is kept."""
        return self._disk.start

    @property
    def synced(self) -> int:
        """Everything before this position is on the disk, and counted in the tally there."""
        return self._synced

    @property
    def end(self) -> int:
        """The position the next append gets."""
        return self._disk.end

    @property
    def fill(self) -> float:
        """Share of its bound that is in use."""
        return self._disk.fill + sum(other.fill for other in self.beside)

    @property
    def full(self) -> bool:
        """Whether its bound on the disk, or that of what is not there yet, is reached."""
        return self._disk.full or self.fill >= 1

    def append(self, parts: Parts) -> int:
        """Keep one message; returns its position."""
        position = self._disk.append(parts)
        self.tally = self.tally.plus(parts)
        return position

    def sync(self) -> None:
        """Put what was appended before on the disk. Raises `StoreError`, after which the next call tries again.

        The tally is not waited for: after a power cut a summary may count too little, a journal never lacks anything.
        """
        tally = replace(self.tally, bytes_wire=self.bytes_wire)
        self._disk.sync()
        packed = tally.pack()
        with disk_errors(f"writing {self._path}"):
            os.pwrite(self._descriptor, packed.ljust(len(self._written)), 0)
        self._written = packed
        self._synced = tally.position

    def read(self, position: int) -> Parts:
        """The message of a kept position."""
        return self._disk.read(position)

    def last(self) -> Parts | None:
        """The newest message."""
        return self._disk.last()

    def release(self, position: int) -> None:
        """Forget everything synced before this position."""
        self._disk.release(position)

    def close(self) -> None:
        """Let go of the files. Twice is a no-op."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._disk.close()

    def delete(self) -> None:
        """Delete it: the decoder has stored the stream. Raises `StoreError`."""
        with disk_errors(f"deleting {self._path}"):
            self._path.unlink(missing_ok=True)
        self._disk.delete()
        self.close()


class JournalFolder:
    """The folder named with `--journal`, of one encoder. A context manager: leaving it closes what is open."""

    def __init__(self, folder: Path, recipe: Recipe, limit_bytes: int, buffer_bytes: int) -> None:
        """`limit_bytes` bounds the messages on the disk, `buffer_bytes` those of a stream that are not there yet."""
        self._folder = folder
        self._recipe = recipe
        self._limits = limit_bytes, buffer_bytes
        self._lock: TextIO | None = None
        self._open: list[StreamJournal] = []

    def __enter__(self) -> Self:
        """Take the folder. Raises `StoreError`: `JournalInUse` when another encoder has it."""
        with disk_errors(f"opening journal folder {self._folder}"):
            if self._folder.is_file():
                hint = "Choose another name with --journal; the folder is made when it is missing"
                raise StoreError(f"journal {self._folder} is a file, expected a folder", hint=hint)
            make_folder(self._folder)
            self._lock = lock_folder(self._folder)
        if self._lock is None:
            hint = "Stop the other encoder, or choose another folder with --journal"
            raise JournalInUse(f"journal folder {self._folder} is in use by another encoder", hint=hint)
        return self

    def __exit__(self, *exc: object) -> None:
        for journal in self._open:
            journal.close()
        if self._lock is not None:
            self._lock.close()

    def stored(self, to: str) -> dict[str, Any] | None:
        """The summary of the source when an earlier run has stored it whole at that decoder; None: there is something to do."""
        try:
            note = json.loads((self._folder / "stored").read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(note, dict) or note.get("recipe") != dict(self._recipe) or note.get("to", to) != to:
            return None
        summary: dict[str, Any] = note["summary"]
        if _STREAM_ID.fullmatch(summary["stream_id"]):
            _remove(self._folder / summary["stream_id"])
        return summary

    def left(self) -> list[StreamJournal]:
        """The journals of streams that are not stored yet. Raises `StoreError` when they are not of this recipe."""
        with disk_errors(f"reading journal folder {self._folder}"):
            folders = sorted(path for path in self._folder.iterdir() if _STREAM_ID.fullmatch(path.name) and path.is_dir())
            journals = [folder for folder in folders if DiskJournal.exists(folder)]
        for folder in folders:
            if folder not in journals:  # it was being made, or deleted
                _remove(folder)
        found = [self._reopen(folder) for folder in journals]
        for journal in found:
            self._check(journal)
        return found

    def create(self, stream: StreamMetadata) -> StreamJournal:
        """A new stream's journal, which has the room that those left leave. Raises `StoreError`."""
        journal = StreamJournal.create(self._folder, stream, self._recipe, *self._limits)
        journal.beside = tuple(self._open)
        return self._opened(journal)

    def note_stored(self, summary: Mapping[str, Any], to: str) -> None:
        """From now on this source is stored there: it will not be streamed there again. Raises `StoreError`."""
        note = json.dumps({"recipe": dict(self._recipe), "to": to, "summary": dict(summary)})
        with disk_errors(f"writing {self._folder / 'stored'}"):
            write_durably(self._folder / "stored", note.encode())

    def _reopen(self, folder: Path) -> StreamJournal:
        limit_bytes, buffer_bytes = self._limits
        return self._opened(StreamJournal(DiskJournal.open(folder, limit_bytes, buffer_bytes=buffer_bytes)))

    def _opened(self, journal: StreamJournal) -> StreamJournal:
        self._open.append(journal)
        return journal

    def _check(self, journal: StreamJournal) -> None:
        was, now = journal.recipe, self._recipe
        for name in {**now, **was}:
            if was.get(name) != now.get(name):
                found = f"whose {name} is {was.get(name)}; now it is {now.get(name)}"
                hint = "Run the encoder as before until that is stored, or choose another folder with --journal"
                raise StoreError(f"journal folder {self._folder} holds a stream not stored yet, {found}", hint=hint)


def _remove(journal: Path) -> None:
    """Delete a journal that is not needed, whole or not, and its tally; a folder with anything else in it stays as it is."""
    with suppress(OSError):
        files = [*journal.glob(f"*{PARTIAL}"), *segment_paths(journal), journal / "lock"]
        if set(journal.iterdir()) <= set(files):
            for path in files:
                path.unlink(missing_ok=True)
            journal.rmdir()
            journal.with_name(f"{journal.name}.tally").unlink(missing_ok=True)


def _unpack_metadata(disk: DiskJournal) -> tuple[StreamMetadata, dict[str, str]]:
    try:
        found = msgpack.unpackb(disk.metadata)
        hello, recipe = wire.decode(found["hello"]), found["recipe"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, RemoteProtocolError) as error:
        raise StoreError(f"journal {disk.folder} is not an encoder's: {error!r}", hint=_UNKNOWN) from error
    if not isinstance(hello, Hello) or not isinstance(recipe, dict):
        raise StoreError(f"journal {disk.folder} is not an encoder's", hint=_UNKNOWN)
    return hello.stream, recipe


def _end_frame(parts: Parts) -> int:
    header = msgpack.unpackb(parts[0])
    return int(header["first_frame"]) + int(header.get("frames", 0))
