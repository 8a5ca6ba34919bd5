"""Background reconstruction: one snapshot that fails does not keep the others waiting."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from framefold_decoder import unfolding
from framefold_decoder.library import Library
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_decoder.unfolding import Unfolder
from framefold_protocol import payload
from framefold_protocol.errors import InputError, ModelError, StoreError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Gap, Snapshot, StreamMetadata

SHAPE = (32, 32)
SPEC = MaskSpec(ratio=4, period=16)
STREAM = StreamMetadata("c" * 32, "test", SHAPE, "uint8", (SPEC,), (derive_masks(SPEC, SHAPE).digest,), 0)


def snapshot(position, arrived_s=0.0):
    sums = np.random.default_rng(position).poisson(20, SHAPE).astype(np.uint16)
    return Snapshot(position, 4 * position, 4, int(arrived_s * 1e9), **vars(payload.pack(sums)))


class FailsOnce(Registry):
    """The real registry, but the second choice fails as a bug would."""

    calls = 0

    def choose(self, name, coding):
        self.calls += 1
        if self.calls == 2:
            raise ZeroDivisionError("a bug")
        return super().choose(name, coding)


@pytest.fixture
def library(tmp_path):
    library = Library.open(tmp_path / "data")
    library.add_stream(STREAM)
    yield library
    library.close()


def decoded(library):
    return set(np.flatnonzero(np.isfinite(library.store(STREAM.stream_id).measures("chi2"))).tolist())


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("never happened")


def test_every_snapshot_is_reconstructed_and_a_failure_stays_alone(library):
    library.put(STREAM.stream_id, [snapshot(k) for k in range(4)], 100)
    library.finish(STREAM.stream_id, 4, 16)
    with Unfolder(library, FailsOnce(), "gap-tv") as unfolder:
        wait_for(lambda: decoded(library) == {0, 2, 3})
        assert unfolder.running
    frames = library.store(STREAM.stream_id).frames(0, 16)
    assert np.isnan(frames[4:8]).all()
    assert np.isfinite(frames[8:]).all()
    assert set(library.catalogue.models()) == {"gap-tv"}


def test_what_failed_is_tried_again_by_the_next_run(library):
    library.put(STREAM.stream_id, [snapshot(0)], 100)
    library.finish(STREAM.stream_id, 1, 4)
    with Unfolder(library, Registry(), "gap-tv") as unfolder:
        unfolder.wake()
        wait_for(lambda: decoded(library) == {0})
    assert library.catalogue.pending() == []


def test_a_request_replaces_frames_and_says_what_is_wrong_with_it(library):
    library.put(STREAM.stream_id, [snapshot(k) for k in range(3)], 100)
    library.finish(STREAM.stream_id, 3, 12)
    store = library.store(STREAM.stream_id)
    for position in range(3):
        library.put_frames(STREAM.stream_id, position, np.ones((4, *SHAPE), np.float32), Quality(9.0), Provenance("old"))
    with Unfolder(library, Registry(), "gap-tv") as unfolder:
        with pytest.raises(ModelError, match="there is no model 'nonsense'"):
            unfolder.request(STREAM.stream_id, "nonsense")
        with pytest.raises(InputError, match=r"positions 7 to 8 of stream c+ hold no snapshot"):
            unfolder.request(STREAM.stream_id, "gap-tv", 7, 9)
        assert unfolder.request(STREAM.stream_id, "gap-tv", 1) == 2
        wait_for(lambda: store.group(2).provenance.model == "gap-tv")
    assert [store.group(position).provenance.model for position in range(3)] == ["old", "gap-tv", "gap-tv"]
    assert (store.frames(0, 4) == 1).all()
    assert not (store.frames(4, 12) == 1).all()
    assert library.catalogue.stream(STREAM.stream_id).decoded == 3


class SlowStore:
    """The real library, but storing frames waits until it may, and fails as often as it is told."""

    def __init__(self, library, failures=0):
        self._library, self.failures = library, failures
        self.may_store, self.begun = threading.Event(), []

    def __getattr__(self, name):
        return getattr(self._library, name)

    def put_frames(self, stream_id, position, *rest):
        self.begun.append(position)
        assert self.may_store.wait(30)
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        self._library.put_frames(stream_id, position, *rest)


def test_a_stream_that_is_deleted_while_it_is_stored_is_no_failure(library, caplog):
    library.put(STREAM.stream_id, [snapshot(0), snapshot(1)], 100)
    library.finish(STREAM.stream_id, 2, 8)
    slow = SlowStore(library)
    with Unfolder(slow, Registry(), "gap-tv") as unfolder:
        wait_for(lambda: slow.begun)
        library.delete(STREAM.stream_id)
        slow.may_store.set()
        wait_for(lambda: not library.catalogue.pending())
        assert unfolder.running
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_next_snapshot_is_reconstructed_while_the_one_before_is_stored(library):
    library.put(STREAM.stream_id, [snapshot(k) for k in range(4)], 100)
    library.finish(STREAM.stream_id, 4, 16)
    slow, registry = SlowStore(library), FailsOnce()
    with Unfolder(slow, registry, "gap-tv"):
        wait_for(lambda: registry.calls == 2 and slow.begun == [0])
        slow.may_store.set()
        wait_for(lambda: decoded(library) == {0, 2, 3})
    assert slow.begun == [0, 2, 3]
    assert registry.calls == 4


def test_frames_that_the_disk_did_not_take_are_made_and_stored_again(library, monkeypatch):
    monkeypatch.setattr("framefold_decoder.unfolding._RETRY_S", 0.1)
    library.put(STREAM.stream_id, [snapshot(k) for k in range(2)], 100)
    library.finish(STREAM.stream_id, 2, 8)
    slow = SlowStore(library, failures=2)
    slow.may_store.set()
    with Unfolder(slow, Registry(), "gap-tv"):
        wait_for(lambda: decoded(library) == {0, 1})
    assert sorted(slow.begun) == [0, 0, 1, 1]


def test_leaving_stores_what_was_reconstructed(library):
    library.put(STREAM.stream_id, [snapshot(0)], 100)
    library.finish(STREAM.stream_id, 1, 4)
    slow = SlowStore(library)
    with Unfolder(slow, Registry(), "gap-tv"):
        wait_for(lambda: slow.begun == [0])
        threading.Timer(0.3, slow.may_store.set).start()
    assert decoded(library) == {0}


def test_streams_have_their_turns_and_those_that_wait_keep_nobody_waiting(library, monkeypatch):
    monkeypatch.setattr(unfolding, "_PATIENCE_S", (1e9, 1e9))
    library.put(STREAM.stream_id, [snapshot(k) for k in range(9)], 100)
    library.finish(STREAM.stream_id, 9, 36)
    for number in range(30):  # running streams, whose last snapshot waits for the next
        running = replace(STREAM, stream_id=f"{number:032x}")
        library.add_stream(running)
        library.put(running.stream_id, [snapshot(0)], 100)
    late = replace(STREAM, stream_id="d" * 32)
    library.add_stream(late)
    library.put(late.stream_id, [snapshot(k) for k in range(3)], 100)
    library.finish(late.stream_id, 3, 12)
    unfolder, order = Unfolder(library, Registry(), "gap-tv"), []
    for _ in range(4):
        stream_id, position, _ = unfolder._next_task()
        order.append(stream_id)
        library.put_frames(stream_id, position, np.ones((4, *SHAPE), np.float32), Quality(1.0), Provenance("gap-tv"))
    assert sorted(order[:2]) == sorted(order[2:]) == [STREAM.stream_id, late.stream_id]


def test_a_snapshot_waits_for_those_after_it_as_long_as_the_stream_s_pace_asks(library, monkeypatch):
    monkeypatch.setattr(unfolding, "_PATIENCE_S", (0.0, 600.0))
    unfolder, made = (
        Unfolder(library, Registry(), "gap-tv"),
        (np.ones((4, *SHAPE), np.float32), Quality(1.0), Provenance("gap-tv")),
    )
    library.put(STREAM.stream_id, [snapshot(k, 1000 + 0.5 * k) for k in range(2)], 100)  # at once: it had waited in a journal
    assert unfolder._next_task() is None
    wait_for(lambda: unfolder._next_task() == (STREAM.stream_id, 0, "gap-tv"))  # nobody comes any more
    library.put(STREAM.stream_id, [snapshot(2, 1100)], 100)
    assert unfolder._next_task() == (STREAM.stream_id, 0, "gap-tv")  # both are here
    library.put_frames(STREAM.stream_id, 0, *made)
    assert unfolder._next_task() is None
    library.put(STREAM.stream_id, [Gap(3, 12, 4, "link down")], 100)
    assert unfolder._next_task() == (STREAM.stream_id, 1, "gap-tv")
    library.put_frames(STREAM.stream_id, 1, *made)
    assert unfolder._next_task() == (STREAM.stream_id, 2, "gap-tv")  # nothing beyond a gap is fed
    library.put_frames(STREAM.stream_id, 2, *made)
    library.put(STREAM.stream_id, [snapshot(4, 1200)], 100)
    assert unfolder._next_task() is None
    library.finish(STREAM.stream_id, 5, 20)
    assert unfolder._next_task() == (STREAM.stream_id, 4, "gap-tv")


def test_what_cannot_be_reconstructed_says_why_until_another_model_does_it(library, caplog):
    class Refusing(Registry):
        def choose(self, name, coding):
            if name == "auto":
                raise ModelError("no model fits")
            return super().choose(name, coding)

    library.put(STREAM.stream_id, [snapshot(0)], 100)
    library.finish(STREAM.stream_id, 1, 4)
    with Unfolder(library, Refusing(), "auto") as unfolder:
        wait_for(lambda: unfolder.problem(STREAM.stream_id, 0))
        assert unfolder.problem(STREAM.stream_id, 0) == "no model fits"
        unfolder.request(STREAM.stream_id, "gap-tv")
        wait_for(lambda: decoded(library) == {0} and unfolder.problem(STREAM.stream_id, 0) is None)
    assert caplog.text.count("no model fits") == 1


def test_a_request_leaves_waiting_those_that_wait_for_their_neighbours(library):
    library.put(STREAM.stream_id, [snapshot(k, k) for k in range(3)], 100)
    store = library.store(STREAM.stream_id)
    with Unfolder(library, Registry(), "gap-tv") as unfolder:
        assert unfolder.request(STREAM.stream_id, "gap-tv") == 3
        wait_for(lambda: 0 in decoded(library))
        library.put(STREAM.stream_id, [snapshot(k, k) for k in range(3, 5)], 100)
        library.finish(STREAM.stream_id, 5, 20)
        unfolder.wake()
        wait_for(lambda: decoded(library) == set(range(5)) and not unfolder._requested)
    settings = [store.group(position).provenance.settings for position in range(5)]
    assert [(one["snapshots_before"], one["snapshots_after"]) for one in settings] == [(0, 2), (1, 2), (2, 2), (2, 1), (2, 0)]


def test_a_long_stream_that_no_model_fits_costs_no_more_for_each_snapshot(library, monkeypatch):
    class Refusing(Registry):
        def choose(self, name, coding):
            raise ModelError("no model fits")

    count, asked, pending = 120, [], library.catalogue.pending

    def noted(*which, **how):
        asked.append(pending(*which, **how))
        return asked[-1]

    monkeypatch.setattr(library.catalogue, "pending", noted)
    library.put(STREAM.stream_id, [snapshot(k) for k in range(count)], 100)
    library.finish(STREAM.stream_id, count, 4 * count)
    with Unfolder(library, Refusing(), "auto") as unfolder:
        wait_for(lambda: unfolder.problem(STREAM.stream_id, count - 1))
    assert sum(map(len, asked)) < 20 * count
