"""The detector's noise, measured on the frames that pass: what nobody told, the frames themselves do, by photon transfer.

A few blocks of a few groups are enough: the first is looked at before it is folded, then the second, fourth, eighth ... All
that was seen counts, so that the noise is known better and better, and a bad beginning is forgotten.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_protocol.anscombe import GAINS
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import FEWEST_FRAMES, SIDE, Moments, fit, moments

BLOCKS = 16
"""Down and across the frame that a look takes, at most: the gain is known to 1 % from the first on."""
MOST_FRAMES = 20
"""Of a group that a look takes: it takes milliseconds, and a camera does not wait."""
CHANGE = 0.02
"""Of the variance at mean brightness: what is less is no news."""
_GOLDEN = 0.6180339887498949

Frames = npt.NDArray[np.unsignedinteger]


class NoiseMeter:
    """Looks at groups, and knows the noise model of one frame."""

    def __init__(self) -> None:
        self.noise: NoiseModel | None = None
        """None: the frames have not told it yet."""
        self._seen: list[Moments] = []
        self._groups = 0
        self._next = 1

    def look(self, frames: Frames) -> bool:
        """Whether the noise became known, or known otherwise, by one more group (B, H, W)."""
        if len(frames) < FEWEST_FRAMES:
            return False
        self._groups += 1
        if self._groups < self._next:
            return False
        self._next = 2 * self._groups
        shift = self._groups * _GOLDEN % 1  # other blocks each time
        down, across = (_evenly(side, shift) for side in frames.shape[1:])
        for rows in down:  # a row of blocks at a time takes little memory
            self._seen.append(moments(frames[:MOST_FRAMES, rows[:, None], across.ravel()]))
        found = fit(self._seen)
        if not found or not GAINS[0] <= found.noise.counts_per_electron <= GAINS[1]:
            return False
        news = self.noise is None or self._differs(found.noise, self.noise)
        if news:
            self.noise = found.noise
        return news

    def _differs(self, one: NoiseModel, other: NoiseModel) -> bool:
        mean = np.array([np.mean(np.concatenate([seen.mean for seen in self._seen]))])
        variance, before = (float(noise.variance(mean)[0]) for noise in (one, other))
        return abs(variance - before) > CHANGE * before


def _evenly(side: int, shift: float) -> npt.NDArray[np.intp]:
    """The pixels of up to `BLOCKS` blocks along an axis of `side` pixels: (blocks, SIDE)."""
    count = side // SIDE
    starts = np.arange(count) if count <= BLOCKS else ((np.arange(BLOCKS) + shift) * count / BLOCKS).astype(np.intp)
    return SIDE * starts[:, None] + np.arange(SIDE)
