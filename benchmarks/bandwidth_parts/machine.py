"""What the machine can do at best: how fast memory is read and copied. And how all timings are taken.

Memory shared with other programs gets slower and faster by tens of per cent within seconds. So what is compared is measured in
turns, round by round, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]
Rounds = dict[str, list[float]]
"""GB/s of each action in each round."""

COPY_BYTES = 128 << 20
"""Copied at most in one go: far more than any cache holds."""


@njit(nogil=True)
def _sum(words: Words) -> np.uint64:
    """Two halves side by side: one stream of reads leaves a core waiting, three or more were no faster."""
    half = len(words) // 2
    first = second = np.uint64(0)
    for i in range(half):
        first += words[i]
        second += words[half + i]
    return first + second


class Memory:
    """Reads and copies an array on a number of threads, each its own part."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def read(self, array: Array) -> int:
        """Sum the array's bytes as 64-bit words: each goes through a core once, nothing is written."""
        words = array.reshape(-1).view(np.uint8)[: array.nbytes // 8 * 8].view(np.uint64)
        return int(sum(int(part) for part in self._pool.map(_sum, self._parts(words))))

    def copy(self, target: Array, source: Array) -> None:
        """Copy bytes of `source`, as many as `target` has."""
        flat = source.reshape(-1).view(np.uint8)[: target.nbytes]
        list(self._pool.map(np.copyto, self._parts(target.reshape(-1).view(np.uint8)), self._parts(flat)))

    def _parts(self, flat: Array) -> list[Array]:
        return [flat[a:b] for a, b in pairwise(len(flat) * k // self._threads for k in range(self._threads + 1))]


def compare(actions: Mapping[str, tuple[int, Callable[[], object]]], rounds: int) -> Rounds:
    """GB/s of actions measured in turns. `actions`: the bytes each takes in, and what to call; a first round is not counted."""
    speeds: Rounds = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, (size, action) in actions.items():
            start = time.perf_counter()
            action()
            if turn:
                speeds[name].append(size / (time.perf_counter() - start) / 1e9)
    return speeds


def ratio(speeds: Rounds, above: str, below: str) -> float:
    """Median over the rounds of one action's speed over another's."""
    return statistics.median(a / b for a, b in zip(speeds[above], speeds[below], strict=True))


def memory_actions(array: Array, threads: tuple[int, ...]) -> dict[str, tuple[int, Callable[[], object]]]:
    """`read N` and `memcpy N` of an array, for each number of threads N."""
    target = np.ones(min(array.nbytes, COPY_BYTES), np.uint8)
    actions: dict[str, tuple[int, Callable[[], object]]] = {}
    for count in threads:
        memory = Memory(count)
        actions[f"read {count}"] = array.nbytes, partial(memory.read, array)
        actions[f"memcpy {count}"] = target.nbytes, partial(memory.copy, target, array)
    return actions
