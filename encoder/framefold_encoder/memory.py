"""Memory for frames and sums that begins at a cache line. NumPy's own begins 16 bytes behind one: then every vector the fold
reads lies on two lines, and folding frames that are in the cache takes a quarter longer."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from framefold_encoder.kernels import CACHE_LINE

Counts = npt.NDArray[np.unsignedinteger]


def zeros(shape: tuple[int, ...], dtype: np.dtype[np.unsignedinteger]) -> Counts:
    """An array of this shape that begins at a cache line; as with NumPy's, its pages are taken when they are first touched."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)
