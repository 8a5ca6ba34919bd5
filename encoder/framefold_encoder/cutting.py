"""What a group is better folded as: cut where the scene becomes another, for summed together neither of the two would come
back sharp, and in shorter parts where it moves against expectation.

Every pixel's counts before a frame are held against those after it, where the two differ most. When something jumped, the step
from the last frame before to the first after is as large as the difference of the two sides; of a drift it is a part. Both are
measured by what still changes on either side, noise and motion alike, so neither gain nor offset need be known. A few rows are
enough: the whole frame is cut, or none of it.
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
ABOVE = 1.7
"""A jump's error in the plain average, over that of noise and motion on either side; frames that come twice make 1.0 to 1.5."""
SHARP = 0.7
"""Share of the difference of the two sides that the step between them makes; of chance it is a few tenths."""

Counts = npt.NDArray[np.unsignedinteger]
Sums = npt.NDArray[np.float64]


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
    between, steps, squares = np.zeros(ratio), np.zeros(ratio), np.zeros(1)
    _measure(rows, between, steps, squares)
    t = np.arange(SHORTEST, ratio - SHORTEST + 1)
    weight = t * (ratio - t) / ratio
    jump = between[t] / (ratio**2 * weight)  # its part of the squared deviations from the mean
    rest = (squares - jump) / (ratio - 2)
    jump, sharp = jump - rest, weight * (steps[t] - 2 * rest)
    best = int(jump.argmax())
    return int(t[best]) if jump[best] > ABOVE * rest[best] and sharp[best] > SHARP * jump[best] else 0


@njit(nogil=True, cache=True, fastmath=FREE_ORDER)
def _measure(rows: Counts, between: Sums, steps: Sums, squares: Sums) -> None:
    """Add, of all pixels of `rows` (B, h, W): to between[t] (B times the first t frames - t times all)^2, to steps[t] the
    squared difference of frames t - 1 and t, and to `squares` the squared deviations from the mean."""
    ratio, height, width = rows.shape
    whole, before = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        whole[:] = 0
        for t in range(ratio):
            for x in range(width):
                whole[x] += np.float32(rows[t, y, x])
        before[:] = 0
        for t in range(ratio):
            unlike = step = deviations = np.float32(0)
            for x in range(width):
                value, mean = np.float32(rows[t, y, x]), whole[x] / np.float32(ratio)
                deviations += (value - mean) * (value - mean)
                deviation = np.float32(ratio) * before[x] - np.float32(t) * whole[x]
                unlike += deviation * deviation
                change = value - np.float32(rows[t - 1 if t else 0, y, x])
                step += change * change
                before[x] += value
            between[t] += unlike
            steps[t] += step
            squares[0] += deviations
