"""What arrives while a stream is being closed, what a crash or a passing fault leaves behind: nothing acknowledged is lost."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import msgpack
import numpy as np
import pytest
from test_downlink import SHAPE, STREAM, Peer, snapshot

from framefold_decoder import arrival, arrivals
from framefold_decoder.arrivals import hello_of
from framefold_decoder.downlink import Downlink
from framefold_protocol import payload, wire
from framefold_protocol.disk_journal import DiskJournal
from framefold_protocol.errors import StoreError
from framefold_protocol.messages import Ack, Done, End, Error, Hello, Welcome
from processes import free_port


@pytest.fixture
def journal(library):
    """Left by a decoder that was killed: one snapshot of a stream, on the disk and not in the library."""
    library.add_stream(STREAM)
    folder = library.folder / "journal" / STREAM.stream_id
    journal = DiskJournal.create(folder, msgpack.packb({"hello": hello_of(STREAM)}), 10**6)
    journal.append(wire.encode(snapshot(0)))
    journal.sync()
    journal.close()
    return folder


def open_downlink(library):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    return endpoint, Downlink(endpoint, library, 8, None, lambda: None)


def ended_by(endpoint, run):
    """An encoder that sends one snapshot and the end, and is gone."""
    with (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM, run, 1), snapshot(0), End(1, 4))
        peer.hears_until(Ack)


def test_an_encoder_that_is_back_before_its_stream_is_closed_goes_on(library, monkeypatch):
    stored = threading.Event()
    put = library.put
    monkeypatch.setattr(library, "put", lambda *arguments: (stored.wait(20), put(*arguments)))
    endpoint, downlink = open_downlink(library)
    with downlink, (peer := Peer(endpoint)).socket:
        ended_by(endpoint, 1)
        peer.says(Hello(STREAM, 2, 1))
        assert peer.hears_until(Welcome).position == 1
        stored.set()
        time.sleep(0.5)  # long enough to be closed where run 1 had ended it
        peer.says(snapshot(1), End(2, 8))
        assert peer.hears_until(Done) == Done(2)
    record = library.catalogue.stream(STREAM.stream_id)
    assert (record.state, record.position, record.frames) == ("complete", 2, 8)


def test_an_encoder_that_is_back_while_its_stream_is_being_closed_hears_where_it_ended(library, monkeypatch):
    closing, closed = threading.Event(), threading.Event()
    finish = library.finish
    monkeypatch.setattr(library, "finish", lambda *arguments: (closing.set(), closed.wait(20), finish(*arguments)))
    endpoint, downlink = open_downlink(library)
    with downlink, (peer := Peer(endpoint)).socket:
        ended_by(endpoint, 1)
        assert closing.wait(20)
        peer.says(Hello(STREAM, 2, 1))
        error = peer.hears_until(Error)
        assert (error.code, error.retry) == ("busy", True)
        closed.set()
        attempt = 2
        answer = error
        while not isinstance(answer, Done):  # the closing takes a moment
            assert answer.code == "busy"
            peer.says(Hello(STREAM, 2, attempt))
            answer, attempt = peer.hears(), attempt + 1
        assert answer == Done(1)
    assert not (library.folder / "journal" / STREAM.stream_id).exists()


def test_a_journal_that_reaches_beyond_a_closed_stream_is_kept_and_told(library, journal):
    library.finish(STREAM.stream_id, 0, 0)
    _, downlink = open_downlink(library)
    with downlink:
        (problem,) = downlink.problems()
    assert "holds positions 0 to 0, but in the catalogue the stream is complete, stored up to position 0" in problem
    assert DiskJournal.exists(journal)


def test_a_decoder_killed_while_it_made_a_journal_makes_it_again(library):
    library.add_stream(STREAM)
    folder = library.folder / "journal" / STREAM.stream_id
    killed = f"""
import os, signal
from pathlib import Path
from framefold_protocol import segment_writer
from framefold_protocol.disk_journal import DiskJournal
class Killed:
    def __getattr__(self, name):
        return getattr(os, name)
    def fsync(self, descriptor):
        os.kill(os.getpid(), signal.SIGKILL)
segment_writer.os = Killed()
DiskJournal.create(Path({str(folder)!r}), b"", 10**6)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert folder.is_dir()
    endpoint, downlink = open_downlink(library)
    with downlink, (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM), snapshot(0), End(1, 4))
        assert peer.hears_until(Done) == Done(1)


@pytest.mark.parametrize("fails", ["catalogue", "journal"])
def test_a_journal_that_cannot_be_taken_up_at_first_is_taken_up_later(library, journal, monkeypatch, fails):
    def refuse(*_):
        cause = OSError(errno.EMFILE, "Too many open files")
        raise StoreError("refused for now") from cause

    with monkeypatch.context() as patch:
        if fails == "catalogue":
            patch.setattr(library.catalogue, "stream", refuse)
        else:
            patch.setattr(arrivals, "Arrival", refuse)
        _, downlink = open_downlink(library)
        downlink.__enter__()
        assert "refused for now" in downlink.problems()[0]
    deadline = time.monotonic() + 20
    while library.catalogue.stream(STREAM.stream_id).position == 0:
        assert time.monotonic() < deadline, downlink.problems()
        time.sleep(0.02)
    downlink.__exit__(None, None, None)
    assert downlink.problems() == []


def test_a_batch_is_bounded_by_what_its_pixels_take_not_by_their_bytes_on_the_wire(library, monkeypatch):
    monkeypatch.setattr(arrival, "_BATCH_BYTES", 5 * SHAPE[0] * SHAPE[1] * 2)
    batches, put = [], library.put
    monkeypatch.setattr(
        library, "put", lambda stream_id, batch, size: (batches.append(len(batch)), put(stream_id, batch, size))
    )
    dark = vars(payload.pack(np.zeros(SHAPE, np.uint16)))
    library.add_stream(STREAM)
    journal = DiskJournal.create(library.folder / "journal" / STREAM.stream_id, msgpack.packb({}), 10**6)
    for position in range(20):
        journal.append(wire.encode(snapshot(position, **dark)))
    journal.sync()
    journal.close()
    _, downlink = open_downlink(library)
    with downlink:
        pass
    assert batches == [5] * 4


def test_what_came_beside_a_batch_that_was_not_stored_is_counted_once_it_is(library, monkeypatch):
    put, refused = library.put, []

    def full_at_first(*arguments):
        if not refused:
            refused.append(arguments)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(*arguments)

    monkeypatch.setattr(library, "put", full_at_first)
    endpoint, downlink = open_downlink(library)
    messages = [Hello(STREAM), snapshot(0), snapshot(0), End(1, 4)]
    with downlink, (peer := Peer(endpoint)).socket:
        peer.says(*messages)
        peer.hears_until(Done)
    sent = sum(wire.size(wire.encode(message)) for message in messages[:3])
    assert library.catalogue.stream(STREAM.stream_id).bytes_received >= sent
