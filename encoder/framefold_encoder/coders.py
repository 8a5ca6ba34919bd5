"""Threads that turn folded groups into messages, side by side, and give the messages out in order.

The memory for the sums is theirs and goes round: fresh memory for every group would cost half as much as the fold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Self

import numpy as np

from framefold_encoder.folding import Memory
from framefold_encoder.memory import zeros
from framefold_protocol.wire import Parts

_LOOK_S = 0.002
"""How often one who waits for a message looks whether there is something else to do."""


class Coders:
    """As many threads as asked for, and one piece of memory more than threads. A context manager."""

    def __init__(self, threads: int, memory_bytes: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "coder")
        self._free: SimpleQueue[Memory] = SimpleQueue()
        self._under_way: deque[Future[Parts]] = deque()
        for _ in range(threads + 1):
            self._free.put(zeros((memory_bytes,), np.dtype(np.uint8)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown()

    def memory(self) -> Memory:
        """Memory for the next sums; waits until a thread is done with some."""
        return self._free.get()

    def submit(self, code: Callable[[], Parts], memory: Memory | None = None) -> None:
        """Make a message of what lies in `memory`, which is free again after that."""

        def run() -> Parts:
            try:
                return code()
            finally:
                if memory is not None:
                    self._free.put(memory)

        self._under_way.append(self._pool.submit(run))

    def finished(self, idle: Callable[[], bool] = lambda: False) -> Iterator[Parts]:
        """The next messages, as far as they are made; waits for them while more than there are threads are under way, and
        as long as there is nothing else to do: `idle` says so."""
        while self._under_way and (len(self._under_way) > self._threads or self._made(self._under_way[0], idle)):
            yield self._under_way.popleft().result()

    def _made(self, message: Future[Parts], idle: Callable[[], bool]) -> bool:
        while not message.done() and idle():
            wait([message], _LOOK_S)
        return message.done()

    def rest(self) -> Iterator[Parts]:
        """All messages that are left, each when it is made."""
        while self._under_way:
            yield self._under_way.popleft().result()
