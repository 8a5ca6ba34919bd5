"""The encoder with a journal folder: the next run goes on where one ended, nothing is sent twice, disks may be full."""

import errno
import os
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import zmq
from test_daemon import RATIO, Camera, Repeated

from framefold_encoder.daemon import Encoder
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.stream_journal import JournalFolder, Tally
from framefold_encoder.uplink import StreamClosed
from framefold_protocol import wire
from framefold_protocol.disk_journal import DiskJournal, JournalInUse
from framefold_protocol.errors import InputError, RemoteProtocolError, StoreError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.messages import Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.session import DecoderSession, Duplicate, Ended, Opened, Received

FRAMES = np.random.default_rng(0).poisson(20, (RATIO, 40, 70)).astype(np.uint8)
COUNT = 10 * RATIO + 7


class Streams:
    """A decoder's streams, in memory."""

    def __init__(self):
        self.stored = defaultdict(list)
        self.done = set()
        self.refused = set()

    def answer(self, session, parts):
        event = session.receive(parts)
        stream_id = session.stream.stream_id
        if stream_id in self.refused:
            return session.refuse(RemoteProtocolError("the stream is another key's", code="other-key"))
        stored = self.stored[stream_id]
        match event:
            case Opened() if stream_id in self.done:
                return session.done(len(stored))
            case Opened():
                return session.welcome(len(stored), sum(data.frames for data in stored), credit=4)
            case Received(data):
                stored.append(data)
                return session.acknowledge(len(stored), credit=4)
            case Duplicate():
                return session.acknowledge(len(stored), credit=4)
            case Ended(end):
                self.done.add(stream_id)
                return session.done(end.position)
        raise AssertionError(event)


@contextmanager
def decoder(silent=None):
    """A decoder that does not answer while `silent`; yields its address and its streams."""
    streams, closing, sessions = Streams(), threading.Event(), defaultdict(DecoderSession)
    router = zmq.Context.instance().socket(zmq.ROUTER)
    router.set_hwm(4)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"

    def serve():
        while not closing.is_set():
            if not router.poll(20) or (silent and silent.is_set()):
                closing.wait(0.005)
                continue
            identity, *parts = router.recv_multipart()
            router.send_multipart([identity, *streams.answer(sessions[identity], parts)])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield endpoint, streams
    finally:
        closing.set()
        thread.join()
        router.close(linger=0)


def only(streams):
    """What is stored of the only stream."""
    (stored,) = streams.stored.values()
    return stored


class Recording(Repeated):
    """A recording that can be read again; sets `stop` after some frames."""

    def __init__(self, frames=FRAMES, count=COUNT, stop=None, stop_after=0, broken=None):
        super().__init__(frames, count, broken)
        self.stop, self.stop_after = stop, stop_after
        self.skipped = 0

    def skip(self, count):
        self.skipped = count
        self.left -= count

    def read_into(self, out):
        if self.stop and self.info.frame_count - self.left >= self.stop_after:
            self.stop.set()
            return 0
        return super().read_into(out)


@pytest.fixture
def silent():
    return threading.Event()


def settings(endpoint, tmp_path, **changes):
    return EncoderSettings(to=endpoint, journal=tmp_path / "journal", linger_s=0, silence_s=0.3, **changes)


def run(source, settings, stop=None, uri="file:movie.npy"):
    return Encoder(source, settings, uri).run(stop or threading.Event())


def run_until(frames, settings, **source):
    """Read so many frames and be gone, with nothing sent."""
    stop = threading.Event()
    return run(Recording(stop=stop, stop_after=frames, **source), settings, stop)


def test_the_next_run_goes_on_where_the_journal_ends(tmp_path, silent):
    with decoder(silent=silent) as (endpoint, streams):
        silent.set()
        first = run_until(3 * RATIO, settings(endpoint, tmp_path))
        assert not first.complete
        silent.clear()
        source = Recording()
        summary = run(source, settings(endpoint, tmp_path))
    stored = only(streams)
    assert source.skipped == 3 * RATIO
    assert summary.stream_id == first.stream_id
    assert (summary.frames, summary.snapshots, summary.gaps, summary.complete) == (COUNT, 10, 0, True)
    assert (summary.bytes_in, dict(summary.ratios)) == (COUNT * 40 * 70, {RATIO: 10})
    assert [data.position for data in stored] == list(range(11))
    assert [data.first_frame for data in stored] == [k * RATIO for k in range(11)]
    assert [type(data) for data in stored] == [Snapshot] * 10 + [RawFrames]


def test_a_source_that_is_stored_is_not_streamed_again_until_it_changes(tmp_path):
    with decoder() as (endpoint, streams):
        first = run(Recording(), settings(endpoint, tmp_path))
        assert run(Recording(), settings(endpoint, tmp_path)) == first
        assert len(only(streams)) == 11
        other = run(Recording(count=RATIO), settings(endpoint, tmp_path))
    assert other.stream_id != first.stream_id
    assert len(streams.stored[other.stream_id]) == 1
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["lock", "stored"]


def test_a_source_that_is_stored_at_one_decoder_is_streamed_to_another(tmp_path):
    found = []
    for _ in range(2):
        with decoder() as (endpoint, streams):
            found.append(run(Recording(), settings(endpoint, tmp_path)))
            assert len(only(streams)) == 11
    assert found[0].stream_id != found[1].stream_id


def test_a_run_killed_before_it_had_said_so_finds_the_stream_stored(tmp_path, monkeypatch):
    with decoder() as (endpoint, streams):
        monkeypatch.setattr(DiskJournal, "delete", lambda self: self.close())
        monkeypatch.setattr("framefold_encoder.stream_journal.JournalFolder.note_stored", lambda *_: None)
        first = run(Recording(), settings(endpoint, tmp_path))
        monkeypatch.undo()
        again = run(Recording(), settings(endpoint, tmp_path))
    assert len(only(streams)) == 11
    assert (again.stream_id, again.frames, again.snapshots, again.complete) == (first.stream_id, COUNT, 10, True)


@pytest.mark.parametrize(
    ("changes", "source", "uri", "named"),
    [
        ({"ratio": 10}, {}, "file:movie.npy", "ratio is 20; now it is 10"),
        ({"coder": "variance-stabilised"}, {}, "file:movie.npy", "coder is lossless; now it is variance-stabilised"),
        ({}, {}, "file:other.npy", "source is file:movie.npy; now it is file:other.npy"),
        ({}, {"count": COUNT + 1}, "file:movie.npy", f"frame_count is {COUNT}; now it is {COUNT + 1}"),
        ({}, {"frames": FRAMES.astype(np.uint16)}, "file:movie.npy", "dtype is uint8; now it is uint16"),
        ({}, {"frames": FRAMES[:, :39].copy()}, "file:movie.npy", r"shape is \(40, 70\); now it is \(39, 70\)"),
    ],
)
def test_another_source_or_other_settings_are_refused_by_name(tmp_path, silent, changes, source, uri, named):
    silent.set()
    with decoder(silent=silent) as (endpoint, _):
        run_until(RATIO, settings(endpoint, tmp_path))
        with pytest.raises(StoreError, match=named):
            run(Recording(**source), settings(endpoint, tmp_path, **changes), uri=uri)
        silent.clear()
        assert run(Recording(), settings(endpoint, tmp_path)).complete


def test_one_encoder_at_a_time_has_a_folder(tmp_path, silent):
    silent.set()
    stop = threading.Event()
    with decoder(silent=silent) as (endpoint, _):
        first = threading.Thread(target=run, args=(Recording(), settings(endpoint, tmp_path), stop))
        first.start()
        while not any((tmp_path / "journal").glob("*/*.journal")):
            assert first.is_alive()
        with pytest.raises(JournalInUse, match="in use by another encoder"):
            run(Recording(), settings(endpoint, tmp_path))
        stop.set()
        first.join()


def test_a_full_journal_makes_a_finite_source_wait(tmp_path, silent):
    frames = np.random.default_rng(0).poisson(20, (RATIO, 256, 256)).astype(np.uint8)
    silent.set()
    with decoder(silent=silent) as (endpoint, streams):
        source = Recording(frames, 200 * RATIO)
        threading.Timer(1.5, silent.clear).start()
        summary = run(source, settings(endpoint, tmp_path, journal_limit_mb=1))
    assert (summary.frames, summary.gaps, summary.complete) == (200 * RATIO, 0, True)
    assert [data.position for data in only(streams)] == list(range(200))


def test_a_full_journal_makes_a_live_source_lose_whole_groups_on_record(tmp_path, silent):
    frames = np.random.default_rng(0).poisson(20, (RATIO, 256, 256)).astype(np.uint8)
    silent.set()
    with decoder(silent=silent) as (endpoint, streams):
        camera = Camera(frames, 200 * RATIO, silent, 5 * RATIO)
        summary = run(camera, settings(endpoint, tmp_path, journal_limit_mb=1))
    stored = only(streams)
    gaps = [data.frames for data in stored if isinstance(data, Gap)]
    assert summary.complete
    assert summary.gaps == sum(gaps) > 0
    assert all(frames % RATIO == 0 for frames in gaps)
    assert np.array_equal(np.cumsum([0, *(data.frames for data in stored)])[:-1], [data.first_frame for data in stored])
    assert sum(data.frames for data in stored) == 205 * RATIO


def test_what_an_earlier_run_of_a_camera_left_ends_there_and_a_new_stream_begins(tmp_path, silent):
    silent.set()
    stop = threading.Event()
    with decoder(silent=silent) as (endpoint, streams):
        first = run(Live(stop=stop, stop_after=2 * RATIO), settings(endpoint, tmp_path), stop)
        assert not first.complete
    left = [path.name for path in (tmp_path / "journal").iterdir() if path.is_dir()]
    assert left == [first.stream_id]
    with decoder() as (endpoint, streams):
        second = run(Live(), settings(endpoint, tmp_path))
    assert second.stream_id != first.stream_id
    assert [data.first_frame for data in streams.stored[first.stream_id]] == [0, RATIO]
    assert sum(data.frames for data in streams.stored[second.stream_id]) == COUNT
    assert not [path for path in (tmp_path / "journal").iterdir() if path.is_dir()]


class Live(Recording):
    """A camera that delivers a recording once."""

    def __init__(self, **options):
        super().__init__(**options)
        self.info = replace(self.info, live=True)


def test_what_an_earlier_run_of_a_camera_left_keeps_no_new_stream_from_beginning(tmp_path, silent, caplog):
    silent.set()
    stop = threading.Event()
    with decoder(silent=silent) as (endpoint, streams):
        first = run(Live(stop=stop, stop_after=2 * RATIO), settings(endpoint, tmp_path), stop)
    with decoder() as (endpoint, streams):
        streams.refused.add(first.stream_id)
        second = run(Live(), settings(endpoint, tmp_path))
    assert second.complete
    assert sum(data.frames for data in streams.stored[second.stream_id]) == COUNT
    assert f"stream {first.stream_id}, left in the journal by an earlier run, stays there" in caplog.text
    assert (tmp_path / "journal" / first.stream_id).is_dir()


def test_a_disk_without_room_is_waited_for(tmp_path, monkeypatch, caplog):
    full = threading.Event()
    write = os.pwritev

    def pwritev(descriptor, buffers, offset):
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, buffers, offset)

    class Filling(Recording):
        def read_into(self, out):
            if self.left == COUNT - 2 * RATIO:
                full.set()
                threading.Timer(0.5, full.clear).start()
            return super().read_into(out)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with decoder() as (endpoint, streams), caplog.at_level("INFO"):
        summary = run(Filling(), settings(endpoint, tmp_path))
    assert summary.complete
    assert [data.position for data in only(streams)] == list(range(11))
    assert "No space left on device" in caplog.text
    assert "the journal goes on" in caplog.text


@pytest.mark.parametrize("heard_late", [False, True])
def test_a_stream_an_interrupt_had_ended_gets_no_more_frames(tmp_path, monkeypatch, silent, heard_late):
    stop = threading.Event()
    with decoder(silent=silent) as (endpoint, streams):
        monkeypatch.setattr(DiskJournal, "delete", lambda self: self.close())
        patient = settings(endpoint, tmp_path).model_copy(update={"linger_s": 20})
        assert run(Recording(stop=stop, stop_after=2 * RATIO), patient, stop).complete
        monkeypatch.undo()
        if heard_late:  # when everything is in the journal
            silent.set()
            threading.Timer(1, silent.clear).start()
        with pytest.raises(StreamClosed, match=f"its first {2 * RATIO} frames are stored, those after are not"):
            run(Recording(), settings(endpoint, tmp_path))
        assert len(only(streams)) == 2
        again = run(Recording(), settings(endpoint, tmp_path))
        assert len(streams.stored[again.stream_id]) == 11


def test_a_recording_read_to_its_end_before_an_interrupt_is_not_streamed_again(tmp_path, silent):
    silent.set()
    stop = threading.Event()
    with decoder(silent=silent) as (endpoint, streams):
        patient = settings(endpoint, tmp_path).model_copy(update={"linger_s": 20})
        threading.Timer(1, stop.set).start()
        threading.Timer(1.5, silent.clear).start()
        assert run(Recording(), patient, stop).complete
        assert run(Recording(), patient).complete
    assert len(only(streams)) == 11


def test_what_is_no_journal_stays_in_the_folder(tmp_path):
    journal = tmp_path / "journal"
    theirs = ["thesis/chapter1/text.tex", "empty.lock/lock", "raw.zarr/zarr.json", "raw.zarr.tally", f"{'a' * 32}/notes.txt"]
    unfinished = [f"{'b' * 32}/lock", f"{'b' * 32}/{0:020}.journal.partial", f"{'b' * 32}.tally"]
    for name in theirs + unfinished:
        (journal / name).parent.mkdir(parents=True, exist_ok=True)
        (journal / name).write_text("years of work")
    (journal / ("c" * 32)).mkdir()
    with decoder() as (endpoint, _):
        assert run(Recording(), settings(endpoint, tmp_path)).complete
        assert run(Recording(), settings(endpoint, tmp_path)).complete  # it is stored already
    left = {str(path.relative_to(journal)) for path in journal.rglob("*") if path.is_file()}
    assert left == {*theirs, "lock", "stored"}
    assert not (journal / ("b" * 32)).exists()
    assert not (journal / ("c" * 32)).exists()


def test_a_journal_whose_stream_was_noted_as_stored_is_deleted(tmp_path, monkeypatch):
    with decoder() as (endpoint, _):
        monkeypatch.setattr(DiskJournal, "delete", lambda self: self.close())
        first = run(Recording(), settings(endpoint, tmp_path))
        monkeypatch.undo()
        assert (tmp_path / "journal" / first.stream_id).is_dir()
        assert run(Recording(), settings(endpoint, tmp_path)) == first
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["lock", "stored"]


def test_a_source_that_fails_ends_its_stream_and_leaves_no_journal(tmp_path):
    with decoder() as (endpoint, streams):
        with pytest.raises(InputError, match="cannot be read"):
            run(Recording(frames=FRAMES[:5], broken=45), settings(endpoint, tmp_path))
        assert [data.frames for data in only(streams)] == [20, 20, 5]
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["lock"]


def test_tallies_come_back_and_damaged_ones_count_nothing():
    tally = Tally()
    for message in (
        Snapshot(0, 0, 20, 0, "uint16", "blosc2", b""),
        Gap(1, 20, 40, "x"),
        Snapshot(2, 60, 10, 0, "uint16", "blosc2", b""),
    ):
        tally = tally.plus(wire.encode(message))
    assert (tally.position, tally.frames, tally.gaps, tally.snapshots, tally.ratios) == (3, 70, 40, 2, {20: 1, 10: 1})
    packed = tally.pack()
    assert Tally.unpack(packed + b"older and longer") == tally
    assert Tally.unpack(packed.replace(b"70", b"71")) == Tally()
    assert Tally.unpack(b"") == Tally()


def test_the_folders_bound_holds_for_all_streams_in_it_together(tmp_path):
    """Each restart of a camera leaves one while the decoder is away."""
    parts = wire.encode(RawFrames(0, 0, 1, 0, "uint8", "planes", bytes(100_000)))
    limits = 1_000_000, 1_000_000
    left = []
    for number in range(3):
        stream = StreamMetadata(f"{number:032x}", "camera", (4, 4), "uint8", (MaskSpec(),), ("",), 0)
        with JournalFolder(tmp_path, {"source": "sim:"}, *limits) as folder:
            old = folder.left()
            journal = folder.create(stream)
            while not journal.full and journal.end < 7:
                journal.append(parts)
                journal.sync()
            left.append(journal.end)
            if number == 2:
                old[0].release(7)
                assert not journal.full
    assert left == [7, 3, 0]
