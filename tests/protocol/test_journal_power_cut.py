"""Power cuts: what the journal asked of the disk is recorded, cut off anywhere, and opened again.

The disk of the simulation keeps what was fsynced. Of the rest it keeps any sectors of what was written to files, in any order,
and of changes to the folder the first few, in order, as journaling file systems do. Reserved space reads as zeros.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from framefold_protocol.disk_journal import DiskJournal
from framefold_protocol.segments import segment_paths

LIMIT = 400_000
SECTOR = 512


def message(number: int, size: int) -> list[bytes]:
    return [b"header %d" % number, random.Random(number).randbytes(size), b"sum!"]


@dataclass
class File:
    safe: bytes = b""
    """What the disk has for sure."""
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    """Offset and sectors that it may or may not have."""

    def write(self, offset: int, data: bytes) -> None:
        while data:
            length = SECTOR - offset % SECTOR
            self.writes.append((offset, data[:length]))
            offset, data = offset + length, data[length:]

    def kept(self, keep: Callable[[], bool]) -> bytes:
        content = bytearray(self.safe)
        for offset, data in self.writes:
            if keep():
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
        return bytes(content)

    def sync(self) -> None:
        self.safe, self.writes = self.kept(lambda: True), []


@dataclass
class Disk:
    """Files by number, the folder's names, and what was asked of it, step by step."""

    files: list[File] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[str, str, int]] = field(default_factory=list)
    """To the folder, not fsynced: ("set", name, file) and ("drop", name, -1)."""

    def apply(self, change: tuple[str, str, int]) -> None:
        verb, name, file = change
        if verb == "set":
            self.names[name] = file
        else:
            self.names.pop(name, None)

    def sync_folder(self) -> None:
        for change in self.changes:
            self.apply(change)
        self.changes = []

    def crash(self, folder: Path, chance: random.Random) -> None:
        """What is found at the next start."""
        share = chance.choice([0, 0.5, 1])
        survivor = Disk(names=dict(self.names))
        for change in self.changes[: chance.randint(0, len(self.changes))]:
            survivor.apply(change)
        folder.mkdir()
        for name, file in survivor.names.items():
            (folder / name).write_bytes(self.files[file].kept(lambda: chance.random() < share))


class Recorder:
    """The operating system as the journal sees it; `steps` are what it was asked, as functions of a `Disk`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Callable[[Disk], None]] = []
        self._folder, self._open, self._files, self._names = str(folder), {}, 0, {}
        self._real = {name: getattr(os, name) for name in dir(self) if not name.startswith("_") and hasattr(os, name)}
        for name in self._real:
            monkeypatch.setattr(os, name, getattr(self, name))

    def _name(self, path: object) -> str | None:
        folder, name = os.path.split(os.fspath(path))
        return name if folder == self._folder and name != "lock" else None

    def open(self, path, flags, *mode, **options):
        descriptor = self._real["open"](path, flags, *mode, **options)
        if os.fspath(path) == self._folder:
            self._open[descriptor] = "folder"
        elif (name := self._name(path)) and flags & os.O_CREAT:
            number = self._names[name] = self._open[descriptor] = self._files
            self._files += 1
            self.steps.append(lambda disk: (disk.files.append(File()), disk.changes.append(("set", name, number))))
        return descriptor

    def close(self, descriptor):
        self._open.pop(descriptor, None)
        self._real["close"](descriptor)

    def pwritev(self, descriptor, buffers, offset):
        written = self._real["pwritev"](descriptor, buffers, offset)
        self._write(descriptor, offset, b"".join(buffers)[:written])
        return written

    def pwrite(self, descriptor, data, offset):
        self._write(descriptor, offset, bytes(data))
        return self._real["pwrite"](descriptor, data, offset)

    def _write(self, descriptor, offset, data):
        number = self._open[descriptor]
        self.steps.append(lambda disk: disk.files[number].write(offset, data))

    def posix_fallocate(self, descriptor, offset, length):
        self._real["posix_fallocate"](descriptor, offset, length)
        self._write(descriptor, offset + length - 1, b"\0")

    def ftruncate(self, descriptor, length):
        self._real["ftruncate"](descriptor, length)  # only ever gives back what is behind the last record

    def fsync(self, descriptor):
        target = self._open.get(descriptor)
        if target == "folder":
            self.steps.append(Disk.sync_folder)
        elif target is not None:
            self.steps.append(lambda disk: disk.files[target].sync())

    def fdatasync(self, descriptor):
        self.fsync(descriptor)

    def replace(self, source, target):
        self._real["replace"](source, target)
        old, new = self._name(source), self._name(target)
        number = self._names[new] = self._names.pop(old)
        self.steps.append(lambda disk: disk.changes.extend([("drop", old, -1), ("set", new, number)]))

    def unlink(self, path, **options):
        self._real["unlink"](path, **options)
        if name := self._name(path):
            self.steps.append(lambda disk: disk.changes.append(("drop", name, -1)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting for the real disk; less space reserved, so that there is less of it to copy."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    monkeypatch.setattr("framefold_protocol.segment_writer._RESERVED_BYTES", 50_000)


@dataclass(frozen=True)
class Promise:
    """What holds when this many steps have been asked of the disk."""

    steps: int
    synced: int
    released: int


def a_life(folder: Path, recorder: Recorder, seed: int) -> tuple[list[list[bytes]], list[Promise]]:
    """A journal used at random, restarts in between; returns all messages and what was promised when."""
    chance = random.Random(seed)
    messages, promises = [], [Promise(0, 0, 0)]
    journal = DiskJournal.create(folder, b"stream", LIMIT)
    released = 0
    for _ in range(80):
        match chance.choice(["append", "append", "sync", "sync", "release", "restart"]):
            case "append":
                for _ in range(chance.randint(1, 4)):
                    messages.append(message(len(messages), chance.choice([0, 300, 5000, 40_000])))
                    journal.append(messages[-1])
            case "sync":
                journal.sync()
            case "release":
                released = max(released, chance.randint(0, journal.synced))
                journal.release(released)
            case "restart":
                journal.sync()
                journal.close()
                journal = DiskJournal.open(folder, LIMIT)
        promises.append(Promise(len(recorder.steps), journal.synced, released))
    journal.close()
    return messages, promises


@pytest.mark.parametrize("seed", range(6))
def test_nothing_synced_is_lost_and_nothing_is_invented_wherever_the_power_is_cut(tmp_path, monkeypatch, seed):
    folder = tmp_path / "journal"
    with monkeypatch.context() as patch:
        recorder = Recorder(folder, patch)
        messages, promises = a_life(folder, recorder, seed)
    assert len(recorder.steps) > 100
    chance, disk = random.Random(seed), Disk()
    for count, step in enumerate([lambda disk: None, *recorder.steps]):
        step(disk)
        before = [promise for promise in promises if promise.steps <= count][-1]
        releasing = next((promise.released for promise in promises if promise.steps > count), before.released)
        for attempt in range(4):
            after = tmp_path / f"{count}-{attempt}"
            disk.crash(after, chance)
            check(after, messages, before.synced, releasing)


def check(folder, messages, synced, released):
    if not segment_paths(folder):
        assert synced == 0
        return
    journal = DiskJournal.open(folder, LIMIT)
    assert synced <= journal.end <= len(messages)
    assert journal.start <= released
    for position in range(journal.start, journal.end):
        assert journal.read(position) == messages[position]
    end = journal.end
    journal.append([b"after", b"", b"sum!"])
    journal.sync()
    journal.close()
    journal = DiskJournal.open(folder, LIMIT)
    assert journal.end == end + 1
    assert journal.last() == [b"after", b"", b"sum!"]
    journal.close()


def test_cut_at_any_byte_the_last_segment_gives_what_is_whole_before(tmp_path):
    journal = DiskJournal.create(tmp_path / "journal", b"stream", LIMIT)
    ends, messages = [journal._writer.offset], [message(number, 50 * number) for number in range(12)]
    for parts in messages:
        journal.append(parts)
        journal.sync()
        ends.append(journal._writer.offset)
    journal.close()
    (whole,) = (path.read_bytes() for path in segment_paths(journal.folder))
    whole = whole[:12] + bytes(12) + whole[24:]  # as it was before the first mark
    chance = random.Random(1)
    for number, cut in enumerate(
        {*ends, *(end - 1 for end in ends), *(chance.randrange(ends[0], ends[-1]) for _ in range(100))}
    ):
        folder = tmp_path / str(number)
        if cut < ends[0]:
            continue
        folder.mkdir()
        (folder / "00000000000000000000.journal").write_bytes(whole[:cut] + chance.randbytes(40) * chance.randint(0, 1))
        journal = DiskJournal.open(folder, LIMIT)
        assert journal.end == sum(end <= cut for end in ends) - 1
        assert [journal.read(position) for position in range(journal.end)] == messages[: journal.end]
        journal.close()
