"""The fold, compiled: `Y = sum_t C_t * X_t`, an exact integer sum, masks packed 64 pixels to a word.

Nothing but loops over arrays that `folding.py` has prepared: contiguous, native byte order, sums that cannot overflow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

_WORD = 64


@njit(nogil=True, cache=True)
def fold_into(
    frames: npt.NDArray[np.unsignedinteger], words: npt.NDArray[np.uint64], sums: npt.NDArray[np.unsignedinteger]
) -> None:
    """Add the masked frames to `sums`.

    frames: (n, H, W) unsigned; words: (n, H, ceil(W / 64)) uint64, bit i of word j is pixel 64 j + i; sums: (H, W) unsigned,
    wide enough for the result.
    """
    n, height, width = frames.shape
    for y in range(height):
        row = sums[y]
        for t in range(n):
            _fold_row(frames[t, y], words[t, y], row, width)


@njit(nogil=True, cache=True, inline="always")
def _fold_row(
    pixels: npt.NDArray[np.unsignedinteger], words: npt.NDArray[np.uint64], row: npt.NDArray[np.unsignedinteger], width: int
) -> None:
    for j in range(words.size):
        word = words[j]
        start = j * _WORD
        for i in range(min(_WORD, width - start)):
            row[start + i] += pixels[start + i] * ((word >> np.uint64(i)) & np.uint64(1))
