"""The frame ring: a source's frames, read ahead in a thread of its own while the group before is folded.

Two groups of memory, allocated once: the source writes into one, the fold reads the other, nothing is copied in between. A
source that has its frames in memory already lends them instead. When the fold does not keep up, a finite source waits. A live
one cannot: it has a third group of memory, and when that is full too, the oldest group that waits is given up for newer frames.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from framefold_encoder.memory import zeros
from framefold_encoder.sources.base import LendingSource, Source

GROUPS = 2
LIVE_GROUPS = 3
"""One is folded, the newest whole one waits, one is filled."""

_PATIENCE_S = 0.2
"""How often somebody who waits for a group asks whether it is still wanted."""

Frames = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Group:
    """Frames that follow each other, as many as were asked for or, at the source's end, fewer."""

    frames: Frames
    """(n, H, W), valid until the next group is asked for."""
    first_frame: int
    """Of the source, from 0. What lies between two groups is lost."""
    complete: bool
    """Whether these are all the frames that were asked for."""
    arrived_ns: int
    """When the first of them was there, nanoseconds since 1970."""
    buffer: Frames
    """The part of the ring it lies in."""


class FrameRing:
    """Groups of a source's frames, in order, until it ends or `stop` is set. A context manager; iterate once.

    `largest` bounds the frames of a group; `count`, called by the reader before each group, says how many it gets. `position`
    is the source's: the number of its next frame. `still_wanted`, called every now and then while a group is waited for, raises
    when it is waited for in vain. A source cannot be left while it reads: one that waits for a trigger there is waited for.
    """

    def __init__(
        self,
        source: Source,
        largest: int,
        stop: threading.Event,
        count: Callable[[], int] | None = None,
        position: int = 0,
        still_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._count = count or (lambda: largest)
        self._stop = stop
        self._still_wanted = still_wanted
        self._position = position
        self._error: Exception | None = None
        self._changed = threading.Condition()  # guards what follows
        groups = LIVE_GROUPS if source.info.live else GROUPS
        self._free = [self._buffer(0 if isinstance(source, LendingSource) else largest) for _ in range(groups)]
        self._full: deque[Group] = deque()
        self._ended = self._closing = self._whole = False
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[Group]:
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._full or self._ended, _PATIENCE_S):
                    self._still_wanted()
                if not self._full:
                    return
                group = self._full.popleft()
            yield group
            with self._changed:
                self._free.append(group.buffer)
                self._changed.notify_all()

    @property
    def empty(self) -> bool:
        """Whether the next group would have to be waited for."""
        with self._changed:
            return not self._full and not self._ended

    @property
    def position(self) -> int:
        """Frames of the source that were read, lost ones in; only once the ring is left."""
        return self._position

    @property
    def whole(self) -> bool:
        """Whether the source was read to its end; only once its groups have ended."""
        return self._whole

    def check(self) -> None:
        """Raise what ended the source before its end; the groups hold every frame before that."""
        if self._error is not None:
            raise self._error

    def _buffer(self, frames: int) -> Frames:
        return zeros((frames, *self._source.info.shape), self._source.info.dtype)

    def _read(self) -> None:
        complete = True
        while complete and not self._stop.is_set() and (buffer := self._take_buffer()) is not None:
            group = self._next(buffer, self._count())
            complete = group.complete
            with self._changed:
                if len(group.frames):
                    self._full.append(group)
                    self._changed.notify_all()
        with self._changed:
            # An interrupt that comes later, while the decoder is waited for, leaves the source as whole as it was.
            self._whole = not (complete or self._error or self._stop.is_set() or self._closing)
            self._ended = True
            self._changed.notify_all()

    def _take_buffer(self) -> Frames | None:
        """Memory for the next group; None when there is nobody to read for."""
        with self._changed:
            if self._source.info.live and not self._free:
                return self._full.popleft().buffer
            self._changed.wait_for(lambda: self._free or self._closing)
            return None if self._closing else self._free.pop()

    def _next(self, buffer: Frames, count: int) -> Group:
        first, arrived_ns = self._position, 0
        frames = buffer[:0]
        try:
            if isinstance(self._source, LendingSource):
                frames, arrived_ns = self._source.lend(count), time.time_ns()
            else:
                while len(frames) < count and not (self._stop.is_set() or self._closing):
                    found = self._source.read_into(buffer[len(frames) : count])
                    arrived_ns = arrived_ns or time.time_ns()
                    if found == 0:
                        break
                    frames = buffer[: len(frames) + found]
        except Exception as error:  # raised by `check`, when what was read before is safe
            self._error = error
        self._position += len(frames)
        return Group(frames, first, len(frames) == count, arrived_ns, buffer)
