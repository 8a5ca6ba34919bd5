"""Poisson counts about a table of expected values, at random access: any frame, in any order, gives the same counts.

The generator is counter-based: splitmix64 started from (seed, frame, row), one 64-bit word for two neighbouring pixels. Each
32-bit half is turned into a count by inverting the cumulative distribution of the pixel's level, with a guide table (Chen &
Asau 1974) that starts the search at most a step or two away. No scene and no movie here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from framefold_protocol.compiled import compiled

GUIDE_BITS = 8
"""Guide entries per level are 2**GUIDE_BITS: 1024 levels of 256 uint16 stay within a core's L2 cache."""

_TAIL = 2.0**-32
"""Probabilities are resolved to this: a count rarer than it is never drawn."""


@dataclass(frozen=True)
class PoissonTable:
    """Inverse cumulative distributions of `levels` Poisson variables.

    `low` (levels,) is each level's smallest count; `threshold` (levels, width) uint32 the last 32-bit draw that still gives
    count `low + k`; `guide` (levels, 2**GUIDE_BITS) uint16 the smallest k for draws that start with these bits.
    """

    low: npt.NDArray[np.uint32]
    threshold: npt.NDArray[np.uint32]
    guide: npt.NDArray[np.uint16]


def largest_count(mean: float) -> int:
    """Bound on the counts ever drawn at expected value `mean`: what lies above is rarer than 2**-32 (Chernoff's bound)."""
    k = mean
    while mean - k + k * math.log(k / mean) < -math.log(_TAIL):
        k += 1.0
    return math.ceil(k)


def poisson_table(mean: npt.NDArray[np.float32]) -> PoissonTable:
    """Tables for expected values `mean` (levels,) > 0, ascending, in counts per pixel."""
    width = largest_count(float(mean[-1])) - _smallest_count(float(mean[-1])) + 1
    low = np.array([_smallest_count(float(m)) for m in mean], dtype=np.uint32)
    threshold = np.empty((len(mean), width), dtype=np.uint32)
    guide = np.empty((len(mean), 1 << GUIDE_BITS), dtype=np.uint16)
    _fill_table(mean.astype(np.float64), low, threshold, guide)
    return PoissonTable(low, threshold, guide)


def _smallest_count(mean: float) -> int:
    """Below it a count is rarer than 2**-32: P(X <= mean - d) <= exp(-d² / (2 mean))."""
    return max(0, math.floor(mean - math.sqrt(-2.0 * math.log(_TAIL) * mean)))


@compiled()
def _fill_table(
    mean: npt.NDArray[np.float64],
    low: npt.NDArray[np.uint32],
    threshold: npt.NDArray[np.uint32],
    guide: npt.NDArray[np.uint16],
) -> None:
    levels, width = threshold.shape
    probability = np.empty(width)
    for level in range(levels):
        m, first = mean[level], np.int64(low[level])
        probability[0] = math.exp(first * math.log(m) - m - math.lgamma(first + 1.0))
        for k in range(1, width):
            probability[k] = probability[k - 1] * m / (first + k)
        total, below = probability.sum(), 0.0
        for k in range(width):
            below += probability[k] / total
            threshold[level, k] = np.uint32(max(0.0, min(math.floor(below * 2.0**32 + 0.5), 2.0**32) - 1.0))
        threshold[level, width - 1] = np.uint32(0xFFFFFFFF)
        k = 0
        for bucket in range(1 << GUIDE_BITS):
            while np.int64(threshold[level, k]) < np.int64(bucket) << (32 - GUIDE_BITS):
                k += 1
            guide[level, bucket] = k


@numba.njit(inline="always")
def _mix(z: np.uint64) -> np.uint64:
    """The output function of splitmix64 (Steele, Lea & Flood 2014): a bijection of 64-bit words."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(inline="always")
def _count(
    draw: np.uint64,
    level: np.uint64,
    low: npt.NDArray[np.uint32],
    threshold: npt.NDArray[np.uint32],
    guide: npt.NDArray[np.uint16],
) -> np.uint64:
    k = np.uint64(guide[level, draw >> np.uint64(32 - GUIDE_BITS)])
    while draw > np.uint64(threshold[level, k]):
        k += np.uint64(1)
    return k + np.uint64(low[level])


@compiled()
def poisson_into(
    levels: npt.NDArray[np.uint16],
    first: int,
    seed: np.uint64,
    low: npt.NDArray[np.uint32],
    threshold: npt.NDArray[np.uint32],
    guide: npt.NDArray[np.uint16],
    out: npt.NDArray[np.unsignedinteger],
) -> None:
    """Draw frames `first`, `first + 1`, ... into `out` (n, H, W).

    `levels` (loop, h, w) indexes the table; it repeats in time and, where (h, w) is smaller than (H, W), in space. The GIL is
    released.
    """
    loop, tile_height, tile_width = levels.shape
    count, height, width = out.shape
    golden = np.uint64(0x9E3779B97F4A7C15)
    seed_key = _mix(seed + golden)
    for i in range(count):
        frame = first + i
        frame_key = _mix(seed_key + golden * np.uint64(frame))
        for y in range(height):
            state = _mix(frame_key + golden * np.uint64(y))
            tile_row = levels[frame % loop, y % tile_height]
            row = out[i, y]
            column = 0
            for x in range(width):
                if x & 1 == 0:
                    state += golden
                    word = _mix(state)
                    draw = word >> np.uint64(32)
                else:
                    draw = word & np.uint64(0xFFFFFFFF)
                row[x] = _count(draw, np.uint64(tile_row[column]), low, threshold, guide)
                column += 1
                if column == tile_width:
                    column = 0
