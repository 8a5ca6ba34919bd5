"""What a group is better folded as: cut where the scene becomes another, for summed together neither of the two would come
back sharp, and in shorter parts where it moves against expectation.

Every pixel's counts before a frame are held against those after it, where the two differ most. When something jumped, that
difference is all there is to a pixel's changes but noise; of a steady drift it is three quarters at most, and a cut would not
help. How much noise there is, the differences of successive frames tell (J. von Neumann, Ann. Math. Stat. 12, 367, 1941), so
neither gain nor offset need be known. A few rows are enough: the whole frame is cut, or none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from numba import njit

from framefold_encoder.motion import FREE_ORDER

SHORTEST = 2
"""Frames before and after: the fewest that nets are trained on."""
PIXELS = 1 << 15
"""That are looked at, about, in rows that are evenly spread, unless one in `LEAST_STEP` is fewer."""
LEAST_STEP = 8
ABOVE = 1.0
"""A jump makes at least this much of the noise's error in the plain average."""
SHARP = 0.85
"""Share of all change that a jump makes."""

Counts = npt.NDArray[np.unsignedinteger]


def parts(frames: Counts, least: int, moves: Callable[[Counts], bool]) -> Iterator[Counts]:
    """The group (B, H, W), cut in two where the scene becomes another; each scene that `moves` in equal parts of at least
    `least` frames, if it has as many as two of them. `least` is what bytes ask for: more are read where nothing moved."""
    at = cut(frames)
    for scene in (frames[:at], frames[at:]) if at else (frames,):
        count = len(scene) // least
        yield from np.array_split(scene, count if count > 1 and moves(scene) else 1)


def cut(frames: Counts) -> int:
    """The frame of a group (B, H, W) from which on the scene is another, `SHORTEST` to B - `SHORTEST`; 0: it is one scene."""
    ratio, height, width = frames.shape
    if ratio < 2 * SHORTEST:
        return 0
    step = max(LEAST_STEP, height * width // PIXELS)
    rows = np.ascontiguousarray(frames[:, step // 2 :: step], frames.dtype.newbyteorder("="))
    between, changes = np.zeros(ratio, np.float64), np.zeros(2, np.float64)
    _measure(rows, between, changes)
    all_change, noise = changes[0], changes[1] / 2 / (ratio - 1)
    t = np.arange(SHORTEST, ratio - SHORTEST + 1)
    jumps = between[t] / (t * (ratio - t) * ratio) - noise
    best = int(jumps.argmax())
    sharp = jumps[best] >= SHARP * (all_change - (ratio - 1) * noise)
    return int(t[best]) if sharp and jumps[best] > ABOVE * noise else 0


@njit(nogil=True, cache=True, fastmath=FREE_ORDER)
def _measure(rows: Counts, between: npt.NDArray[np.float64], changes: npt.NDArray[np.float64]) -> None:
    """Add, of all pixels of `rows` (B, h, W): (B times the first t frames - t times all)^2 to between[t]; to `changes` the
    squared deviations from the mean, and the squared differences of successive frames."""
    ratio, height, width = rows.shape
    whole, before = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        whole[:] = 0
        squares = differences = np.float32(0)
        for t in range(ratio):
            for x in range(width):
                value = np.float32(rows[t, y, x])
                whole[x] += value
                squares += value * value
        for t in range(1, ratio):
            for x in range(width):
                difference = np.float32(rows[t, y, x]) - np.float32(rows[t - 1, y, x])
                differences += difference * difference
        means = np.float32(0)
        for x in range(width):
            means += whole[x] * whole[x]
        changes[0] += squares - means / np.float32(ratio)
        changes[1] += differences
        before[:] = 0
        for t in range(1, ratio):
            unlike = np.float32(0)
            for x in range(width):
                before[x] += np.float32(rows[t - 1, y, x])
                deviation = np.float32(ratio) * before[x] - np.float32(t) * whole[x]
                unlike += deviation * deviation
            between[t] += unlike
