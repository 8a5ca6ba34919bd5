"""Frames that a library decompresses chunk by chunk: HDF5 and Zarr (and a Fortran-ordered .npy, chunks of one frame).

A chunk may span many frames. Asking for them one by one would decompress it anew each time, so whole chunks are fetched and
kept, up to `SLAB_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

SLAB_BYTES = 256 << 20
"""Memory spent at most on frames fetched ahead. Longer chunks are decompressed more than once instead."""

Fetch = Callable[[int, npt.NDArray[np.integer[Any]]], None]
"""`fetch(start, out)` fills `out` (n, H, W) with frames start to start + n."""


class ChunkedFrames:
    """Frames fetched in runs of `depth`, the frames of one chunk."""

    def __init__(
        self,
        fetch: Fetch,
        close: Callable[[], None],
        *,
        shape: tuple[int, int, int],
        stored: np.dtype[np.integer[Any]],
        depth: int = 1,
    ) -> None:
        self._fetch = fetch
        self._close = close
        self._count, height, width = shape
        self._depth = max(1, min(depth, self._count, SLAB_BYTES // (height * width * stored.itemsize)))
        self._slab = np.empty((self._depth if self._depth > 1 else 0, height, width), stored)
        self._slab_start = -1

    def read(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        """Fill `out` (n, H, W) with frames start to start + n."""
        while len(out):
            ahead = start % self._depth
            if ahead == 0 and len(out) >= self._depth:
                done = len(out) // self._depth * self._depth
                self._fetch(start, out[:done])
            else:
                done = min(self._depth - ahead, len(out))
                out[:done] = self._slab_from(start - ahead)[ahead : ahead + done]
            start, out = start + done, out[done:]

    def _slab_from(self, start: int) -> npt.NDArray[np.integer[Any]]:
        if self._slab_start != start:
            self._slab_start = -1  # a fetch that fails leaves half a slab
            self._fetch(start, self._slab[: self._count - start])
            self._slab_start = start
        return self._slab

    def close(self) -> None:
        """Release the file."""
        self._close()
