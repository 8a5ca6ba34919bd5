"""The frame ring: a source's frames, read ahead in a thread of its own while the group before is folded.

Two groups of memory, allocated once: the source writes into one, the fold reads the other, nothing is copied in between. A
source that has its frames in memory already lends them instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.base import LendingSource, Source

GROUPS = 2


Frames = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Group:
    """Frames that follow each other, as many as were asked for or, at the source's end, fewer."""

    frames: Frames
    """(n, H, W), valid until the next group is asked for."""
    arrived_ns: int
    """When the first of them was there, nanoseconds since 1970."""
    buffer: Frames
    """The part of the ring it lies in."""


class FrameRing:
    """Groups of `ratio` frames of a source, in order, until it ends or `stop` is set. A context manager; iterate once."""

    def __init__(self, source: Source, ratio: int, stop: threading.Event) -> None:
        self._source = source
        self._ratio = ratio
        self._stop = stop
        self._closing = threading.Event()
        self._free: SimpleQueue[Frames] = SimpleQueue()
        self._full: SimpleQueue[Group | None] = SimpleQueue()
        self._error: Exception | None = None
        for _ in range(GROUPS):
            self._free.put(self._buffer(0 if isinstance(source, LendingSource) else ratio))
        self._thread = threading.Thread(target=self._fill, name="reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._free.put(self._buffer(0))  # wakes the thread
        self._thread.join()

    def __iter__(self) -> Iterator[Group]:
        while (group := self._full.get()) is not None:
            yield group
            self._free.put(group.buffer)

    def check(self) -> None:
        """Raise what ended the source before its end; the groups hold every frame before that."""
        if self._error is not None:
            raise self._error

    def _buffer(self, frames: int) -> Frames:
        return np.zeros((frames, *self._source.info.shape), self._source.info.dtype)

    def _fill(self) -> None:
        complete = True
        while complete and not self._stop.is_set():
            buffer = self._free.get()
            if self._closing.is_set():
                return
            group = self._next(buffer)
            complete = len(group.frames) == self._ratio
            if len(group.frames):
                self._full.put(group)
        self._full.put(None)

    def _next(self, buffer: Frames) -> Group:
        filled, arrived_ns = 0, 0
        try:
            if isinstance(self._source, LendingSource):
                return Group(self._source.lend(self._ratio), time.time_ns(), buffer)
            while filled < self._ratio and not self._stop.is_set():
                count = self._source.read_into(buffer[filled:])
                arrived_ns = arrived_ns or time.time_ns()
                if count == 0:
                    break
                filled += count
        except Exception as error:  # raised by `check`, when what was read before is safe
            self._error = error
        return Group(buffer[:filled], arrived_ns, buffer)
