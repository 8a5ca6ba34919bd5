"""Rows of a frame on several threads: a kernel that releases the GIL, a band of rows for each thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise


def in_bands(kernel: Callable[..., None], arguments: tuple[object, ...], rows: int, threads: int) -> None:
    """Call `kernel(*arguments, start, stop)` for `threads` bands of nearly equal size, rows 0 to `rows` - 1 together."""
    if threads == 1:  # at once: small frames are done sooner than bands are made
        kernel(*arguments, 0, rows)
        return
    bands = list(pairwise(rows * k // threads for k in range(threads + 1)))
    others = [_pool(threads - 1).submit(kernel, *arguments, *band) for band in bands[1:]]
    kernel(*arguments, *bands[0])
    for other in others:
        other.result()


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that the whole process shares."""
    return ThreadPoolExecutor(threads, "fold")
