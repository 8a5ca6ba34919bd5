"""The detector's noise, measured on the frames that pass: what nobody told, the frames themselves do, by photon transfer.

A few blocks of a few groups are enough: the first is looked at before it is folded, then the second, fourth, eighth ... All
that was seen counts, so that the noise is known better and better, and a bad beginning is forgotten.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import numpy.typing as npt

from framefold_protocol.anscombe import GAINS
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import FEWEST_FRAMES, SIDE, Moments, fit, moments

BLOCKS = 16
"""Down and across the frame that a look at `MOST_FRAMES` takes, more of fewer: the gain is known to 1 % from the first on."""
MOST_FRAMES = 20
"""Of a group that a look takes: it takes milliseconds, and a camera does not wait."""
CHANGE = 0.01
"""Of the variance at mean brightness: what is less is no news to the decoder."""
CONTRADICTION = 1.5
"""Times the variance that a told gain says, or less than its inverse, are worth a warning; motion takes some for noise."""
LEAST_VARIANCE = 1e-6
"""Counts^2: of a mean below the offset there would be none."""
_log = logging.getLogger(__name__)
_GOLDEN = 0.6180339887498949

Frames = npt.NDArray[np.unsignedinteger]


class NoiseMeter:
    """Looks at groups, and knows the noise model of one frame."""

    def __init__(self, told: float | None = None) -> None:
        """`told`: the gain in counts per electron, where somebody told it. It is believed, offset and read noise are taken for
        none, and a warning says when frames contradict."""
        self.noise = NoiseModel(told) if told else None
        """None: the frames have not told it yet."""
        self._told = told
        self._assuming = self._checked = False
        self._sent: NoiseModel | None = None
        self._seen: list[Moments] = []
        self._groups = 0
        self._next = 1

    def look(self, frames: Frames) -> None:
        """At one more group (B, H, W); what it tells is logged."""
        if self._checked or len(frames) < 2:
            return
        found = self._measure(frames)
        if found and self._told:
            self._checked = True
            self._compare(found)
        elif found:
            self.noise = found
        elif self.noise is None and not self._assuming:
            self._assuming = True
            hint = "until frames tell it; if that is wrong, set counts_per_electron"
            _log.info("the source does not tell its gain: 1 count per electron is assumed, %s", hint)

    def news(self) -> NoiseModel | None:
        """What was measured, for the decoder: None where nobody measured, and where it is what this said before."""
        if self._told or self.noise is self._sent or self.noise is None:
            return None
        if self._sent and abs(self._variance(self.noise) / self._variance(self._sent) - 1) <= CHANGE:
            return None
        self._sent = self.noise
        _log.info("the source does not tell its gain: measured %s", self.noise)
        return self.noise

    def _compare(self, found: NoiseModel) -> None:
        assert self.noise is not None, "it was told"
        times = self._variance(found) / self._variance(self.noise)
        if not 1 / CONTRADICTION <= times <= CONTRADICTION:
            message = "the gain is told to be %g counts per electron, but frames have %.3g times the variance that says: %s; %s"
            hint = "reconstruction and chi2 go by what is told: if it is wrong, leave it out to have it measured"
            _log.warning(message, self._told, times, found, hint)

    def _measure(self, frames: Frames) -> NoiseModel | None:
        """What all frames that were looked at tell; None: these were not, or they do not tell."""
        if len(frames) < FEWEST_FRAMES:
            return None
        self._groups += 1
        if self._groups < self._next:
            return None
        self._next = 2 * self._groups
        shift = self._groups * _GOLDEN % 1  # other blocks each time
        blocks = round(BLOCKS * math.sqrt(MOST_FRAMES / min(len(frames), MOST_FRAMES)))
        down, across = (_evenly(side, blocks, shift) for side in frames.shape[1:])
        for rows in down:  # a row of blocks at a time takes little memory
            self._seen.append(moments(frames[:MOST_FRAMES, rows[:, None], across.ravel()]))
        found = fit(self._seen)
        return found.noise if found and GAINS[0] <= found.noise.counts_per_electron <= GAINS[1] else None

    def _variance(self, noise: NoiseModel) -> float:
        """At the mean brightness of what was looked at, counts^2."""
        mean = np.concatenate([seen.mean for seen in self._seen]).mean(keepdims=True)
        return max(float(noise.variance(mean)[0]), LEAST_VARIANCE)


def _evenly(side: int, most: int, shift: float) -> npt.NDArray[np.intp]:
    """The pixels of up to `most` blocks along an axis of `side` pixels: (blocks, SIDE)."""
    count = side // SIDE
    starts = np.arange(count) if count <= most else ((np.arange(most) + shift) * count / most).astype(np.intp)
    return SIDE * starts[:, None] + np.arange(SIDE)
