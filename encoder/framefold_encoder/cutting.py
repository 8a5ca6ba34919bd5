"""What a group is better folded as: cut where the scene becomes another, for summed together neither of the two would come
back sharp, and in shorter parts where it moves against expectation.

Every pixel's counts before a frame are held against those after it. When something jumped, the step from the last frame before
to the first after is as large as the difference of the two sides; of a drift it is a part. Both are measured by what still
changes on either side, noise and motion alike, so neither gain nor offset need be known. That is done for each of many pieces
of rows, and a quarter of them must agree: a blinking pixel, a hit or one moving particle cuts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from framefold_encoder.motion import FREE_ORDER
from framefold_protocol.compiled import compiled

FEWEST = 4
"""Frames of a group in which a jump can be told from motion."""
PIECE = 256
"""Pixels of a row that are judged together."""
PIXELS = 1 << 15
"""That are looked at, about, in rows that are evenly spread, unless one in `LEAST_STEP` is fewer."""
LEAST_STEP = 8
AGREEING = 0.25
"""Share of the pieces in which a jump must show."""
ABOVE = 1.7
"""A jump's error in the plain average, over that of noise and motion on either side; frames that come twice make 1.0 to 1.5."""
SHARP = 0.7
"""Share of the difference of the two sides that the step between them makes; of chance it is a few tenths."""

Counts = npt.NDArray[np.unsignedinteger]
Sums = npt.NDArray[np.float64]


def taken_apart(frames: Counts, bears: Callable[[Counts], int]) -> Iterator[Counts]:
    """The group (B, H, W), cut wherever the scene becomes another, and each scene in equal parts of at least as many frames as
    it `bears` in one sum; 0: any number."""
    at = cut(frames)
    if at:
        yield from taken_apart(frames[:at], bears)
        yield from taken_apart(frames[at:], bears)
        return
    borne = bears(frames)
    count = len(frames) // borne if borne else 1
    yield from np.array_split(frames, count) if count > 1 else (frames,)


def cut(frames: Counts) -> int:
    """The frame of a group (B, H, W) from which on the scene is another, 1 to B - 1; 0: it is one, or too short to tell."""
    ratio, height, width = frames.shape
    if ratio < FEWEST:
        return 0
    step = max(LEAST_STEP, height * width // PIXELS)
    rows = np.ascontiguousarray(frames[:, min(step // 2, height - 1) :: step], frames.dtype.newbyteorder("="))
    pieces = rows.shape[1] * -(-width // PIECE)
    between, steps, squares = np.zeros((pieces, ratio)), np.zeros((pieces, ratio)), np.zeros((pieces, 1))
    _measure(rows, between, steps, squares)
    t = np.arange(1, ratio)
    weight = t * (ratio - t) / ratio
    jump = between[:, t] / (ratio**2 * weight)  # its part of the squared deviations from the mean
    rest = np.maximum((squares - jump) / (ratio - 2), 1e-9)
    jump = jump / rest - 1
    common = np.quantile(jump, 1 - AGREEING, axis=0)
    best = int(common.argmax())
    if common[best] <= ABOVE:
        return 0
    agreeing = jump[:, best] > ABOVE
    sharp = weight[best] * (steps[:, t[best]] / rest[:, best] - 2)
    return int(t[best]) if np.median(sharp[agreeing]) > SHARP * np.median(jump[agreeing, best]) else 0


@compiled(fastmath=FREE_ORDER)
def _measure(rows: Counts, between: Sums, steps: Sums, squares: Sums) -> None:
    """Of the pixels of each piece of `rows` (B, h, W): in between[:, t] (B times the first t frames - t times all)^2, in
    steps[:, t] the squared difference of frames t - 1 and t, and in `squares` the squared deviations from the mean."""
    ratio, height, width = rows.shape
    whole, before = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
    piece = 0
    for y in range(height):
        for first in range(0, width, PIECE):
            count = min(PIECE, width - first)
            whole[:], before[:] = 0, 0
            for t in range(ratio):
                for x in range(count):
                    whole[x] += np.float32(rows[t, y, first + x])
            for t in range(ratio):
                unlike = step = deviations = np.float32(0)
                for x in range(count):
                    value, mean = np.float32(rows[t, y, first + x]), whole[x] / np.float32(ratio)
                    deviations += (value - mean) * (value - mean)
                    deviation = np.float32(ratio) * before[x] - np.float32(t) * whole[x]
                    unlike += deviation * deviation
                    change = value - np.float32(rows[t - 1 if t else 0, y, first + x])
                    step += change * change
                    before[x] += value
                between[piece, t], steps[piece, t] = unlike, step
                squares[piece, 0] += deviations
            piece += 1
