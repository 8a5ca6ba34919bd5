"""How much each 64x64 block of a group moves, against the noise that averaging the group would leave: what the fold can afford.

A row of each block is looked at, in all frames, and more of them where blocks are few. The frames are added up in four parts of
the group; where nothing moves, the parts differ by the detector's noise alone, and whatever they differ by more is motion.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from framefold_encoder.bands import in_bands
from framefold_encoder.exposure import SMALLEST_RATIO, Motion, rows_seen
from framefold_encoder.kernels import VISIT, WORD, masked_add
from framefold_protocol.coding import BLOCK, block_map_shape
from framefold_protocol.compiled import compiled
from framefold_protocol.noise import NoiseModel

PARTS = SMALLEST_RATIO
"""Of a group: halves would not see what swings back within it."""
BYTES_PER_THREAD = 2_000_000
"""Of pixels looked at: with less to do, a second thread takes longer to begin than it saves."""

FREE_ORDER = {"reassoc", "contract", "nsz"}
"""Sums of floats in whatever order is fastest: several at a time. It took a quarter to a half off the whole."""

Counts = npt.NDArray[np.unsignedinteger]
COUNTING = NoiseModel()
"""The noise of a detector that counts electrons."""


def motion(frames: Counts, noise: NoiseModel = COUNTING, threads: int = 1, row: int = BLOCK // 2) -> Motion:
    """Motion of each block of one group, (B, H, W) counts in any layout, B at least `PARTS`; `noise` is one frame's.

    `row` of a block, and those at equal distances from it, are looked at: others tell more. Up to three of the frames are not.
    """
    found = np.empty(block_map_shape(frames.shape[1:]), np.float32)
    native = frames.flags.c_contiguous and frames.dtype.isnative
    pixels = frames if native else np.ascontiguousarray(frames, frames.dtype.newbyteorder("="))
    step = BLOCK // rows_seen(found.size)
    useful = max(1, min(threads, pixels.nbytes // step // BYTES_PER_THREAD))
    gain, dark = noise.counts_per_electron, noise.read_noise_counts**2 - noise.counts_per_electron * noise.offset_counts
    in_bands(_motion, (pixels, gain, dark, row % step, step, *_constants(pixels.dtype), found), len(found), useful)
    return found


@cache
def _constants(dtype: np.dtype[np.unsignedinteger]) -> tuple[Counts, Counts]:
    """A mask that lets all through, and a number of the type of sums. Made for every group they took a fifth of the time."""
    kind = np.uint64 if dtype.itemsize > 2 else np.uint32 if dtype.itemsize > 1 else np.uint16
    return np.full(WORD, np.iinfo(dtype).max, dtype), np.zeros(1, kind)


@compiled(fastmath=FREE_ORDER)
def _motion(
    frames: Counts,
    gain: float,
    dark: float,
    first: int,
    step: int,
    ones: Counts,
    kind: Counts,
    found: Motion,
    start: int,
    stop: int,
) -> None:
    """Rows `start` to `stop` - 1 of blocks, `first` of each one's rows of pixels and every `step`-th from there. A pixel's
    variance is gain * counts + `dark`; `ones` is a mask that lets all through; sums are of the type of `kind`."""
    ratio, height, width = frames.shape
    each, columns = ratio // PARTS, found.shape[1]
    sums = np.zeros((PARTS, columns, BLOCK), kind.dtype)  # what is beyond the width stays 0 and adds nothing
    squares, totals = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for row in range(start, stop):
        squares[:], totals[:] = 0.0, 0.0
        lines, top, bottom = 0, row * BLOCK, min((row + 1) * BLOCK, height)
        for y in range(min(top + first, bottom - 1), bottom, step):
            _add_parts(frames, each, y, step, ones, sums)
            _spread(sums, squares, totals)
            lines += 1
        for column in range(columns):
            # of noise, with PARTS - 1 degrees of freedom; a block without a count does not move
            pixels = PARTS * each * lines * min(BLOCK, width - column * BLOCK)
            expected = (gain * totals[column] + dark * pixels) / PARTS * (PARTS - 1)
            excess = squares[column] / expected - 1.0 if expected > 0.0 else 0.0
            found[row, column] = excess * ratio / each  # a part has so many times the noise of the average


@compiled()
def _add_parts(frames: Counts, each: int, y: int, step: int, ones: Counts, sums: Counts) -> None:
    """sums (PARTS, columns, 64): of row y, `each` frames to a part. Prefetches the row that is looked at next, `step` below."""
    _, height, width = frames.shape
    pixels, totals = frames.reshape(-1), sums.reshape(-1)
    strides, ahead = (height * width, 0), step * width * frames.itemsize
    for part in range(PARTS):
        line, t, stop = totals[part * sums[0].size :], part * each, (part + 1) * each
        while t < stop:
            row, count, anew = pixels[(t * height + y) * width :], min(VISIT, stop - t), t == part * each
            for j in range(width // WORD):
                masked_add(line, row, ones, j * WORD, 0, strides, count, ahead, anew)
            for x in range(width // WORD * WORD, width):
                if anew:
                    sums[part, x // BLOCK, x % BLOCK] = 0
                for k in range(count):
                    sums[part, x // BLOCK, x % BLOCK] += frames[t + k, y, x]
            t += count


@compiled(fastmath=FREE_ORDER)
def _spread(sums: Counts, squares: Motion, totals: Motion) -> None:
    """Add each block's squared deviations of the sums (4, columns, 64) of a row from their mean, and the sums themselves."""
    for column in range(sums.shape[1]):
        square = total = np.float32(0.0)
        for x in range(BLOCK):
            a, b = np.float32(sums[0, column, x]), np.float32(sums[1, column, x])
            c, d = np.float32(sums[2, column, x]), np.float32(sums[3, column, x])
            four = a + b + c + d
            mean = four * np.float32(0.25)
            square += (a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2 + (d - mean) ** 2
            total += four
        squares[column] += square
        totals[column] += total
