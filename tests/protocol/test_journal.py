"""One contract for both journals; then what only the one on disk promises: it outlives its process, refuses what is foreign."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefold_protocol import disk_journal, wire
from framefold_protocol.disk_journal import DiskJournal, JournalInUse
from framefold_protocol.errors import LocalProtocolError, StoreError
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.messages import Gap
from framefold_protocol.segments import MARK_OFFSET, read_segments, segment_paths


def message(number: int, size: int = 10) -> wire.Parts:
    return [b"header %d" % number, number.to_bytes(4, "little") * (size // 4), b"sum!"]


class JournalContract:
    """What the sessions need of any journal."""

    @pytest.fixture
    def journal(self, tmp_path):
        raise NotImplementedError

    def test_messages_come_back_under_their_positions(self, journal):
        assert [journal.append(message(number)) for number in range(3)] == [0, 1, 2]
        journal.sync()
        assert (journal.start, journal.synced, journal.end) == (0, 3, 3)
        assert [journal.read(position) for position in range(3)] == [message(0), message(1), message(2)]

    def test_what_is_not_synced_can_be_read(self, journal):
        journal.append(message(0))
        assert journal.end == 1
        assert journal.read(0) == message(0)

    def test_what_is_released_is_gone_and_the_rest_is_not(self, journal):
        for number in range(4):
            journal.append(message(number))
        journal.sync()
        journal.release(3)
        journal.release(1)
        assert (journal.start, journal.end) == (3, 4)
        assert journal.read(3) == message(3)
        for position in (2, 4):
            with pytest.raises(LocalProtocolError, match=f"holds positions 3 to 3, not {position}"):
                journal.read(position)

    def test_full_until_something_is_released_and_one_message_always_fits(self, journal):
        assert not journal.full
        journal.append(message(0, 200_000))
        journal.sync()
        assert journal.full
        assert 1 < journal.fill < 3
        journal.release(1)
        assert not journal.full
        assert journal.fill == 0

    def test_the_newest_message_is_known_when_everything_is_released(self, journal):
        assert journal.last() is None
        for number in range(3):
            journal.append(message(number))
            assert journal.last() == message(number)
        journal.sync()
        journal.release(3)
        assert journal.last() == message(2)

    def test_more_cannot_be_released_than_there_is(self, journal):
        journal.append(message(0))
        journal.sync()
        journal.release(7)
        assert (journal.start, journal.end) == (1, 1)


LIMIT = 100_000


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self):
        return MemoryJournal(LIMIT)


class TestDiskJournal(JournalContract):
    @pytest.fixture
    def journal(self, tmp_path):
        journal = DiskJournal.create(tmp_path / "a" / "journal", b"whose", LIMIT)
        yield journal
        journal.close()


@pytest.fixture
def folder(tmp_path):
    """A journal with three segments and a position each: 0, 1, 2."""
    journal = DiskJournal.create(tmp_path / "journal", b"whose", LIMIT)
    for number in range(3):
        journal.append(message(number, 70_000))
        journal.sync()
    journal.close()
    assert len(segment_paths(journal.folder)) == 3
    return journal.folder


def test_it_outlives_its_process(folder):
    journal = DiskJournal.open(folder, LIMIT)
    assert (journal.metadata, journal.run, journal.start, journal.synced, journal.end) == (b"whose", 2, 0, 3, 3)
    assert journal.full
    assert [journal.read(position) for position in range(3)] == [message(number, 70_000) for number in range(3)]
    assert journal.last() == message(2, 70_000)
    assert journal.append(message(3)) == 3
    journal.close()
    again = DiskJournal.open(folder, LIMIT)
    assert (again.run, again.end) == (3, 3)  # 3 was never synced
    again.close()


def test_released_segments_are_deleted_but_not_the_newest_message(folder):
    journal = DiskJournal.open(folder, LIMIT)
    journal.release(2)
    assert [path.name for path in segment_paths(folder)] == ["00000000000000000002.journal", "00000000000000000003.journal"]
    journal.release(3)
    journal.close()
    journal = DiskJournal.open(folder, LIMIT)
    assert (journal.start, journal.end) == (2, 3)
    assert journal.last() == message(2, 70_000)
    journal.close()


def test_a_segment_that_cannot_be_deleted_now_is_deleted_later(folder, monkeypatch):
    journal = DiskJournal.open(folder, LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(disk_journal, "sync_folder", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        journal.release(1)
        journal.release(2)
    assert (journal.start, journal.read(2)) == (2, message(2, 70_000))
    journal.release(2)
    assert [path.name for path in segment_paths(folder)] == ["00000000000000000002.journal", "00000000000000000003.journal"]
    journal.close()


def test_many_restarts_without_a_message_leave_one_file(folder):
    for run in range(2, 20):
        journal = DiskJournal.open(folder, LIMIT)
        assert (journal.run, journal.end) == (run, 3)
        journal.close()
    assert len(segment_paths(folder)) == 4


def test_a_journal_may_begin_at_any_position(tmp_path):
    journal = DiskJournal.create(tmp_path, b"", LIMIT, start=1000)
    assert journal.append(message(5)) == 1000
    journal.sync()
    journal.close()
    journal = DiskJournal.open(tmp_path, LIMIT)
    assert (journal.start, journal.end, journal.read(1000)) == (1000, 1001, message(5))
    journal.close()


def test_a_deleted_journal_is_gone(folder):
    journal = DiskJournal.open(folder, LIMIT)
    journal.delete()
    assert not folder.exists()
    assert not DiskJournal.exists(folder)


def test_waiting_for_the_disk_is_bounded_in_memory(tmp_path):
    journal = DiskJournal.create(tmp_path, b"", 10**9, buffer_bytes=50_000)
    journal.append(message(0, 60_000))
    assert journal.full
    assert journal.fill < 0.01
    journal.sync()
    assert not journal.full
    journal.close()


def test_one_process_at_a_time(folder):
    journal = DiskJournal.open(folder, LIMIT)
    program = "import sys; from pathlib import Path; from framefold_protocol.disk_journal import DiskJournal;"
    program += "DiskJournal.open(Path(sys.argv[1]), 10)"
    other = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert f"JournalInUse: journal {folder} is in use by another process" in other.stderr
    with pytest.raises(JournalInUse):
        DiskJournal.open(folder, LIMIT)
    journal.close()
    DiskJournal.open(folder, LIMIT).close()


def test_a_folder_holds_one_journal(folder):
    with pytest.raises(StoreError, match="holds a journal already"):
        DiskJournal.create(folder, b"other", LIMIT)
    with pytest.raises(StoreError, match="holds no journal"):
        DiskJournal.open(folder.parent / "elsewhere", LIMIT) if (folder.parent / "elsewhere").mkdir() is None else None


@pytest.mark.parametrize("cut", [1, 27, 28, 29, 40, 70_000])
def test_a_torn_tail_is_cut_off(folder, cut, caplog):
    *_, last = segment_paths(folder)
    whole = last.read_bytes()
    head = read_segments(folder)[-1].head
    last.write_bytes(whole[:MARK_OFFSET] + bytes(12) + whole[MARK_OFFSET + 12 : head.size + cut])
    with caplog.at_level(logging.WARNING):
        journal = DiskJournal.open(folder, LIMIT)
    assert journal.end == 2
    assert f"cut off {cut} bytes" in caplog.text
    assert journal.append(message(7)) == 2
    journal.sync()
    journal.close()
    journal = DiskJournal.open(folder, LIMIT)
    assert journal.read(2) == message(7)
    journal.close()


def damage_foreign(paths):
    paths[0].write_bytes(b"II*\0 a TIFF file" * 10)
    return paths[0], "expected a journal segment"


def damage_empty(paths):
    paths[1].write_bytes(b"")
    return paths[1], "expected a journal segment"


def damage_version(paths):
    _overwrite(paths[2], 8, b"\2")
    return paths[2], "format version 2, expected 1"


def damage_head(paths):
    _overwrite(paths[2], 24, b"\7")
    return paths[2], "damaged at offset 0"


def damage_record_in_the_middle(paths):
    offset = len(read_segments(paths[0].parent)[0].head.pack())
    _overwrite(paths[0], offset + 3, b"\7")
    return paths[0], f"damaged at offset {offset}: there is no whole record of position 0"


def damage_what_was_marked_as_written(paths):
    offset = read_segments(paths[0].parent)[2].head.size
    _overwrite(paths[2], offset, bytes(28))
    return paths[2], f"damaged at offset {offset}"


def damage_by_shortening(paths):
    os.truncate(paths[2], 100)
    return paths[2], "damaged at offset"


def damage_missing(paths):
    paths[1].unlink()
    return paths[0], "no whole record of position 1, and the next segment begins with position 2"


def damage_name(paths):
    paths[2].rename(paths[2].with_name("00000000000000000009.journal"))
    return paths[2].with_name("00000000000000000009.journal"), "begins with position 2"


def damage_mixed(paths):
    other = DiskJournal.create(paths[0].parent.parent / "other", b"other", LIMIT, start=3)
    other.close()
    (other.folder / "00000000000000000003.journal").rename(paths[0].with_name("00000000000000000003.journal"))
    return paths[0], "the same stream in the whole folder"


def _overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


DAMAGES = [value for name, value in globals().items() if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_foreign_or_damaged_is_refused_and_left_alone(folder, damage):
    path, named = damage(segment_paths(folder))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StoreError, match=named) as caught:
        DiskJournal.open(folder, LIMIT)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_message_that_changed_after_opening_is_not_given_out(folder):
    first = read_segments(folder)[0].records[0]
    _overwrite(first.path, first.end - 1000, b"changed")
    journal = DiskJournal.open(folder, LIMIT)
    with pytest.raises(StoreError, match=f"{first.path} is damaged at offset {first.offset}"):
        journal.read(0)
    assert journal.read(1) == message(1, 70_000)
    journal.close()


def test_only_messages_are_kept(tmp_path):
    journal = DiskJournal.create(tmp_path, b"", LIMIT)
    with pytest.raises(LocalProtocolError, match="three parts"):
        journal.append([b"two", b"parts"])
    assert journal.end == 0
    journal.close()


class Restarts(RuleBasedStateMachine):
    """Any order of operations, closing and opening between: the model is a list of all messages and three numbers."""

    def __init__(self):
        super().__init__()
        self._home = tempfile.TemporaryDirectory()
        self.folder = Path(self._home.name) / "journal"
        self.journal = DiskJournal.create(self.folder, b"stream", LIMIT)
        self.messages, self.start, self.run = [], 0, 1

    def teardown(self):
        self.journal.close()
        self._home.cleanup()

    @rule(size=st.sampled_from([0, 4, 1000, 30_000, 70_000]), count=st.integers(1, 4))
    def append(self, size, count):
        for _ in range(count):
            parts = wire.encode(Gap(len(self.messages), 0, 1, "x" * size))
            assert self.journal.append(parts) == len(self.messages)
            self.messages.append(parts)

    @rule()
    def sync(self):
        self.journal.sync()
        assert self.journal.synced == len(self.messages)

    @rule(share=st.floats(0, 1.1))
    def release(self, share):
        position = round(share * len(self.messages))
        self.journal.release(position)
        self.start = max(self.start, min(position, self.journal.synced))

    @rule()
    def restart(self):
        synced = self.journal.synced
        self.journal.close()
        self._open(synced)

    @rule()
    def crash(self):
        """The process ends without closing: what it wrote is there, so is the space it reserved."""
        synced = self.journal.synced
        self.journal._lock.close()
        os.close(self.journal._writer._descriptor)
        self._open(synced)

    def _open(self, synced):
        self.journal = DiskJournal.open(self.folder, LIMIT)
        del self.messages[synced:]
        self.run += 1
        assert self.journal.start <= self.start
        self.start = self.journal.start

    @precondition(lambda self: self.messages)
    @invariant()
    def newest_is_known(self):
        assert self.journal.last() == self.messages[-1]

    @invariant()
    def everything_kept_is_whole(self):
        assert (self.journal.run, self.journal.start, self.journal.end) == (self.run, self.start, len(self.messages))
        assert self.journal.metadata == b"stream"
        for position in range(self.start, len(self.messages)):
            assert self.journal.read(position) == self.messages[position]

    @invariant()
    def disk_use_is_bounded(self):
        kept = sum(len(part) for parts in self.messages[self.start :] for part in parts)
        used = sum(path.stat().st_size for path in segment_paths(self.folder)[:-1])
        assert used <= kept + 2 * (2**16 + 70_100) + 1000 * len(segment_paths(self.folder))


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
