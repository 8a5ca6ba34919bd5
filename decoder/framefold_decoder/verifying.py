"""Whether a data folder holds what its catalogue says: every file there, every checksum right, every journal whole. Read-only.

Checked are the catalogue (SQLite's own integrity check), each store's tables against it, each stored array file by file through
its CRC-32C, and every record of the journals through its CRC-32. Frames that are damaged can be reconstructed again; the
snapshots they came from cannot be had again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.storage import LocalStore

from framefold_decoder.catalogue import Catalogue, StreamRecord
from framefold_decoder.store.arrays import file_of
from framefold_decoder.store.group_table import Group, GroupTable, Kind
from framefold_decoder.store.metadata import from_json
from framefold_protocol import wire
from framefold_protocol.durable import disk_errors, lock_folder
from framefold_protocol.errors import FramefoldError, InputError, RemoteProtocolError, StoreError
from framefold_protocol.segments import read_record, read_segments, segment_paths

_ARRAYS = {Kind.SNAPSHOT: "snapshots", Kind.RAW: "raw", Kind.AUDIT: "audit"}
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, TypeError, FramefoldError)
"""What Zarr, its codecs and framefold raise of files that are not as they should be."""


@dataclass
class Findings:
    """What was looked at, and what is wrong."""

    streams: int = 0
    snapshots: int = 0
    raw_frames: int = 0
    """Of raw and of audit groups."""
    frames: int = 0
    """Reconstructed."""
    journal_messages: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        checked = (
            f"{self.streams} streams: {self.snapshots} snapshots, {self.raw_frames} raw frames, {self.frames} reconstructed "
            f"frames, {self.journal_messages} messages in journals"
        )
        return f"{checked}; {f'{len(self.problems)} problems' if self.problems else 'nothing is missing or damaged'}"


def verify(data: Path, stream_id: str | None = None) -> Findings:
    """Check a data folder that no decoder has open, or one stream of it.

    Raises `StoreError` when it cannot be checked, `InputError` when the stream is unknown.
    """
    if not (data / "catalogue.sqlite").is_file():
        raise StoreError(f"{data} holds no catalogue", hint="Name a data folder of framefold-decoder with --data")
    with disk_errors(f"opening data folder {data}"):
        lock = lock_folder(data)
    if lock is None:
        raise StoreError(f"data folder {data} is in use by a decoder", hint="Stop it first: what is being written changes")
    with lock:
        found = Findings()
        records, deleted = _catalogue(data / "catalogue.sqlite", found)
        if stream_id is not None and stream_id not in records:
            raise InputError(f"stream {stream_id!r} is unknown", hint=f"Known are: {', '.join(records) or 'none'}")
        for record in records.values():
            if stream_id in (None, record.metadata.stream_id):
                _check(f"stream {record.metadata.stream_id}", found, _check_stream, data, record)
        for path in sorted((data / "streams").glob("*.zarr")):
            if path.stem not in (*records, *deleted) and stream_id is None:
                _check(f"store {path}", found, _check_stray, path)
        for folder in sorted((data / "journal").glob(stream_id or "*")):
            if segment_paths(folder) and folder.name not in deleted:  # else it was being made, or deleted
                _check(f"journal {folder}", found, _check_journal, folder, records.get(folder.name))
        return found


def _check(where: str, found: Findings, check: Callable[..., None], *arguments: object) -> None:
    try:
        check(found, *arguments)
    except _DAMAGE as error:
        found.problems.append(f"{where}: {error}")


def _catalogue(path: Path, found: Findings) -> tuple[dict[str, StreamRecord], list[str]]:
    """The streams by id, the oldest first; and the ids of deleted ones, whose files the next start of a decoder deletes."""
    log = path.with_name(f"{path.name}-wal").exists()  # of a decoder that was killed; SQLite keeps an index beside it
    url = f"{path.resolve().as_uri()}?{'mode=ro' if log else 'immutable=1'}"
    try:
        with closing(sqlite3.connect(url, uri=True)) as database:
            found.problems += [f"catalogue: {row[0]}" for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
    except sqlite3.Error as error:
        raise StoreError(f"catalogue {path} cannot be read: {error}", hint="Restore it from a backup") from error
    catalogue = Catalogue(f"sqlite:///{url}&uri=true")
    try:
        return {record.metadata.stream_id: record for record in reversed(catalogue.streams())}, catalogue.deleted()
    finally:
        catalogue.close()


def _check_stream(found: Findings, data: Path, record: StreamRecord) -> None:
    found.streams += 1
    stream_id = record.metadata.stream_id
    path = data / "streams" / f"{stream_id}.zarr"
    store = zarr.open_group(LocalStore(path, read_only=True), mode="r")
    described = cast("dict[str, Any]", store.attrs["framefold"])
    table = GroupTable(cast("zarr.Group", store["groups"]), path, record.position)
    groups = [table[position] for position in range(record.position)]
    problems = [*_compare(record, described, groups), *_check_groups(found, path, store, groups)]
    found.problems += [f"stream {stream_id}: {problem}" for problem in problems]


def _compare(record: StreamRecord, described: dict[str, Any], groups: list[Group]) -> Iterator[str]:
    """The store's own account against the catalogue's."""
    if from_json(described["stream"], "the store") != record.metadata:
        yield "its store has other metadata than the catalogue"
    if (record.state == "complete") > bool(described["complete"]):
        yield "its store is not closed, though the catalogue calls it complete"
    frame = 0
    for group in groups:
        if group.first_frame != frame:
            yield f"position {group.position} begins at frame {group.first_frame}, expected {frame}"
        frame = group.end
    for name, held in (("frames", frame), ("snapshots", sum(group.kind is Kind.SNAPSHOT for group in groups))):
        if held != getattr(record, name):
            yield f"its store holds {held} {name}, the catalogue {getattr(record, name)}"


def _check_groups(found: Findings, path: Path, store: zarr.Group, groups: list[Group]) -> Iterator[str]:
    arrays: dict[str, zarr.Array[Any]] = dict(store.arrays())
    for group in groups:
        count = 1 if group.kind is Kind.SNAPSHOT else group.frames
        for name in (_ARRAYS.get(group.kind), "block_maps" if group.kind is Kind.SNAPSHOT else None):
            if name in arrays:
                for index in range(group.index, group.index + count):
                    yield from _check_item(path / name, arrays[name], index, group.position)
        found.snapshots += group.kind is Kind.SNAPSHOT
        found.raw_frames += group.frames if group.kind in (Kind.RAW, Kind.AUDIT) else 0
        if group.readable and group.kind in (Kind.SNAPSHOT, Kind.RAW):
            found.frames += group.frames if group.kind is Kind.SNAPSHOT else 0
            yield from _check_frames(arrays["frames"], group)


def _check_item(folder: Path, array: zarr.Array[Any], index: int, position: int) -> Iterator[str]:
    """An item that has a file of its own."""
    file = file_of(folder, array, index)
    try:
        if not file.is_file():
            yield f"position {position}: {file} is missing"
        else:
            _ = array[index]
    except _DAMAGE as error:
        yield f"position {position}: {file} is damaged: {error}"


def _check_frames(array: zarr.Array[Any], group: Group) -> Iterator[str]:
    try:
        if np.isnan(array[group.first_frame : group.end]).any():
            yield f"position {group.position}: of its frames {group.first_frame} to {group.end - 1} some are missing"
    except _DAMAGE as error:
        yield f"position {group.position}: its frames {group.first_frame} to {group.end - 1} are damaged: {error}"


def _check_stray(found: Findings, path: Path) -> None:
    """A store the catalogue does not know; an empty one is what a crash leaves behind, and is used when the stream comes."""
    store = zarr.open_group(LocalStore(path, read_only=True), mode="r")
    if rows := len(GroupTable(cast("zarr.Group", store["groups"]), path, None)):
        found.problems.append(f"store {path} holds {rows} positions, but the catalogue does not know the stream")


def _check_journal(found: Findings, folder: Path, record: StreamRecord | None) -> None:
    segments = read_segments(folder)
    start = segments[0].head.first
    if record is None or start > record.position:
        stored = "does not know the stream" if record is None else f"has positions up to {record.position}"
        found.problems.append(f"journal {folder} begins with position {start}, but the catalogue {stored}")
    for entry in (entry for segment in segments for entry in segment.records):
        found.journal_messages += 1
        try:
            wire.decode(read_record(entry))
        except (StoreError, RemoteProtocolError) as error:
            found.problems.append(f"journal {folder}, position {entry.position}: {error}")
