"""How much each 64x64 block of a group moves, against the noise that averaging the group would leave: what the fold can afford.

Two rows of each block are looked at, in all frames. The frames are added up in four parts of the group; where nothing moves,
the parts differ by shot noise alone (the variance of electrons is their mean), and whatever they differ by more is motion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from framefold_encoder.bands import in_bands
from framefold_encoder.exposure import SMALLEST_RATIO, Motion
from framefold_encoder.kernels import VISIT, WORD, masked_add
from framefold_protocol.coding import BLOCK, block_map_shape

PARTS = SMALLEST_RATIO
"""Of a group: halves would not see what swings back within it."""
ROW_STEP = 32
"""One row in so many: a thirty-second of the fold's reads, and 128 pixels of each block."""
BYTES_PER_THREAD = 2_000_000
"""Of pixels looked at: with less to do, a second thread takes longer to begin than it saves."""

FREE_ORDER = {"reassoc", "contract", "nsz"}
"""Sums of floats in whatever order is fastest: several at a time. It took a quarter to a half off the whole."""

_add_one = masked_add(1, 0)  # the rows are far apart: what lies ahead is not read
_add_several = masked_add(VISIT, 0)

Counts = npt.NDArray[np.unsignedinteger]


def motion(frames: Counts, counts_per_electron: float = 1.0, threads: int = 1) -> Motion:
    """Motion of each block of one group, (B, H, W) counts in any layout, B at least `PARTS`.

    Up to three of the frames are not looked at. What a detector adds besides shot noise (read noise, offset) is not known here.
    """
    kind = np.uint64 if frames.itemsize > 2 else np.uint32 if frames.itemsize > 1 else np.uint16
    found = np.empty(block_map_shape(frames.shape[1:]), np.float32)
    native = np.ascontiguousarray(frames, frames.dtype.newbyteorder("="))
    ones = np.full(WORD, np.iinfo(native.dtype).max, native.dtype)
    useful = max(1, min(threads, native.nbytes // ROW_STEP // BYTES_PER_THREAD))
    in_bands(_motion, (native, counts_per_electron, ones, np.zeros(1, kind), found), len(found), useful)
    return found


@njit(nogil=True, cache=True, fastmath=FREE_ORDER)
def _motion(frames: Counts, gain: float, ones: Counts, kind: Counts, found: Motion, start: int, stop: int) -> None:
    """Rows `start` to `stop` - 1 of blocks; `ones` is a mask that lets all through; sums are of the type of `kind`."""
    ratio, height, width = frames.shape
    each = ratio // PARTS
    sums = np.empty((PARTS, width), kind.dtype)
    squares, totals = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(start, stop):
        squares[:], totals[:] = 0.0, 0.0
        top, bottom = row * BLOCK, min((row + 1) * BLOCK, height)
        for y in range(min(top + ROW_STEP // 2, bottom - 1), bottom, ROW_STEP):
            _add_parts(frames, each, y, ones, sums)
            _spread(sums[0], sums[1], sums[2], sums[3], squares, totals)
        for column in range(found.shape[1]):
            deviation = total = 0.0
            for x in range(column * BLOCK, min((column + 1) * BLOCK, width)):
                deviation += squares[x]
                total += totals[x]
            # of shot noise, with PARTS - 1 degrees of freedom; a block without a count does not move
            expected = gain * total / PARTS * (PARTS - 1)
            excess = deviation / expected - 1.0 if expected > 0.0 else 0.0
            found[row, column] = excess * ratio / each  # a part has so many times the noise of the average


@njit(nogil=True, cache=True)
def _add_parts(frames, each, y, ones, sums):  # type: ignore[no-untyped-def]
    """sums (PARTS, W): of row y, `each` frames to a part."""
    _, height, width = frames.shape
    sums[:] = 0
    pixels, totals, size = frames.reshape(-1), sums.reshape(-1), height * width
    for part in range(PARTS):
        t, stop = part * each, (part + 1) * each
        while t < stop:
            start = (t * height + y) * width
            several = t + VISIT <= stop
            for j in range(width // WORD):
                if several:
                    _add_several(totals[part * width :], pixels[start:], ones, j * WORD, 0, size, 0)
                else:
                    _add_one(totals[part * width :], pixels[start:], ones, j * WORD, 0, size, 0)
            for k in range(VISIT if several else 1):
                for x in range(width // WORD * WORD, width):
                    sums[part, x] += frames[t + k, y, x]
            t += VISIT if several else 1


@njit(nogil=True, cache=True, fastmath=FREE_ORDER)
def _spread(a: Counts, b: Counts, c: Counts, d: Counts, squares: Motion, totals: Motion) -> None:
    """Add the squared deviations of a row's four sums from their mean, and the sums themselves; (W,) each."""
    for x in range(len(a)):
        total = np.float32(a[x]) + np.float32(b[x]) + np.float32(c[x]) + np.float32(d[x])
        mean = total * np.float32(0.25)
        e, f, g, h = np.float32(a[x]) - mean, np.float32(b[x]) - mean, np.float32(c[x]) - mean, np.float32(d[x]) - mean
        squares[x] += e * e + f * f + g * g + h * h
        totals[x] += total
