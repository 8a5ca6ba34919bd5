"""The frame ring: groups in order, whole but for the last, from sources that write and sources that lend."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from framefold_encoder.ring import GROUPS, FrameRing
from framefold_encoder.sources import SourceInfo
from framefold_protocol.errors import InputError

SHAPE = (3, 4)


class Writing:
    """Frames full of their own number, a few at a time; fails at frame `broken`."""

    def __init__(self, count, step=3, broken=None, live=False):
        self.info = SourceInfo("test", SHAPE, np.dtype(np.uint16), count, live=live)
        self.step, self.broken = step, broken
        self.position = 0
        self.targets = set()

    def read_into(self, out):
        self.targets.add(out.__array_interface__["data"][0])
        count = min(self.step, len(out), self.info.frame_count - self.position)
        for k in range(count):
            if self.position == self.broken:
                raise InputError("frame cannot be read")
            out[k] = self.position
            self.position += 1
        return count

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


class Lending(Writing):
    def lend(self, count):
        count = min(count, self.info.frame_count - self.position)
        first, self.position = self.position, self.position + count
        return np.broadcast_to(np.arange(first, first + count, dtype=np.uint16)[:, None, None], (count, *SHAPE)).copy()


@pytest.mark.parametrize("kind", [Writing, Lending])
@pytest.mark.parametrize(("count", "groups"), [(20, [5, 5, 5, 5]), (22, [5, 5, 5, 5, 2]), (3, [3]), (0, [])])
def test_every_frame_comes_once_and_in_order(kind, count, groups):
    seen = []
    with FrameRing(kind(count), 5, threading.Event()) as ring:
        for group in ring:
            seen.append(group.frames[:, 0, 0].tolist())
    assert [len(frames) for frames in seen] == groups
    assert [frame for frames in seen for frame in frames] == list(range(count))


def test_frames_are_written_into_memory_that_is_used_again():
    source = Writing(100, step=5)
    with FrameRing(source, 5, threading.Event()) as ring:
        for _ in ring:
            pass
    assert len(source.targets) == GROUPS


def test_a_group_is_not_overwritten_while_it_is_used():
    with FrameRing(Writing(40), 5, threading.Event()) as ring:
        for k, group in enumerate(ring):
            before = group.frames.copy()
            threading.Event().wait(0.02)  # time for the reader to run ahead
            assert np.array_equal(group.frames, before)
            assert group.frames[0, 0, 0] == 5 * k


def test_frames_before_one_that_cannot_be_read_come_and_then_the_error():
    with FrameRing(Writing(40, step=1, broken=12), 5, threading.Event()) as ring:
        assert [len(group.frames) for group in ring] == [5, 5, 2]
        with pytest.raises(InputError, match="cannot be read"):
            ring.check()


def test_an_interrupt_ends_the_groups():
    stop = threading.Event()
    seen = 0
    with FrameRing(Writing(10**9), 5, stop) as ring:
        for group in ring:
            seen += len(group.frames)
            if seen >= 50:
                stop.set()
    assert 50 <= seen <= 50 + 5 * GROUPS


@pytest.mark.parametrize(
    ("source", "stop_after", "whole"),
    [(Writing(12), None, True), (Lending(10), None, True), (Writing(40), 5, False), (Writing(12, broken=11), None, False)],
)
def test_a_source_is_whole_when_it_ended_by_itself(source, stop_after, whole):
    stop = threading.Event()
    with FrameRing(source, 5, stop) as ring:
        for group in ring:
            if group.first_frame == stop_after:
                stop.set()
        stop.set()  # later it makes no difference
        assert ring.whole == whole


def test_who_waits_for_a_group_in_vain_is_told_and_the_group_is_not_read_on():
    source = Paced(10**6, step=1)

    def refused():
        raise InputError("refused")

    with FrameRing(source, 5, threading.Event(), still_wanted=refused) as ring:
        source.deliver(2)
        threading.Timer(1, source.steps.release, [100]).start()
        with pytest.raises(InputError, match="refused"):
            next(iter(ring))
    assert source.position == 3


def test_leaving_early_ends_the_reader():
    with FrameRing(Writing(10**9), 5, threading.Event()) as ring:
        next(iter(ring))
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


def test_each_group_has_as_many_frames_as_are_asked_for():
    counts = iter([2, 5, 3, 4, 5, 5])
    with FrameRing(Writing(20), 5, threading.Event(), lambda: next(counts)) as ring:
        groups = [(group.first_frame, len(group.frames), group.complete) for group in ring]
    assert groups == [(0, 2, True), (2, 5, True), (7, 3, True), (10, 4, True), (14, 5, True), (19, 1, False)]


class Paced(Writing):
    """Waits before each group until it is told to go on; `waits` is set meanwhile."""

    def __init__(self, count, step=5):
        super().__init__(count, step, live=True)
        self.steps, self.waits = threading.Semaphore(0), threading.Event()

    def read_into(self, out):
        self.waits.set()
        self.steps.acquire()
        self.waits.clear()
        return super().read_into(out)

    def deliver(self, groups):
        """Let the camera finish so many groups, and wait until it begins the next one."""
        for _ in range(groups):
            assert self.waits.wait(10)
            self.waits.clear()
            self.steps.release()
        assert self.waits.wait(10)


def test_a_live_source_never_waits_and_keeps_the_newest():
    source = Paced(10**6)
    with FrameRing(source, 5, threading.Event()) as ring:
        groups = iter(ring)
        source.deliver(1)
        first = next(groups)
        source.deliver(7)  # nobody takes them: all but the last are lost
        kept = first.frames.copy()
        second = next(groups)
        assert (first.first_frame, second.first_frame) == (0, 35)
        assert np.array_equal(kept[:, 0, 0], range(5))
        assert np.array_equal(second.frames[:, 0, 0], range(35, 40))
        source.deliver(1)
        assert next(groups).first_frame == 40
        source.info = replace(source.info, frame_count=45)
        source.steps.release(3)


def test_the_last_group_of_a_live_source_is_never_lost():
    source = Paced(15)
    with FrameRing(source, 5, threading.Event()) as ring:
        groups = iter(ring)
        source.deliver(1)
        first = next(groups)
        source.deliver(2)  # the third group pushes the second out
        source.steps.release()
        rest = [(group.first_frame, len(group.frames)) for group in groups]
    assert first.first_frame == 0
    assert rest == [(10, 5)]
