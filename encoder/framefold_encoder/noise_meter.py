"""The detector's noise, measured on the frames that pass: what nobody told, the frames themselves do, by photon transfer.

A few blocks of a few groups are enough: the first is looked at before it is folded, then the second, fourth, eighth ... All
that was seen counts, so that the noise is known better and better, and a bad beginning is forgotten.
"""

from __future__ import annotations

import logging

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
        self._news = self._assuming = self._checked = False
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
        elif found and (self.noise is None or abs(self._variance(found) / self._variance(self.noise) - 1) > CHANGE):
            self.noise, self._news = found, True
            _log.info("the source does not tell its gain: measured %s", found)
        elif self.noise is None and not self._assuming:
            self._assuming = True
            hint = "until frames tell it; if that is wrong, set counts_per_electron"
            _log.info("the source does not tell its gain: 1 count per electron is assumed, %s", hint)

    def news(self) -> NoiseModel | None:
        """The noise, where it was measured anew since the last call."""
        news, self._news = self.noise if self._news else None, False
        return news

    def _compare(self, found: NoiseModel) -> None:
        assert self.noise is not None, "it was told"
        times = self._variance(found) / self._variance(self.noise)
        if not 1 / CONTRADICTION <= times <= CONTRADICTION:
            message = "the gain is told to be %g counts per electron, but frames have %.3g times the variance that says: %s; %s"
            _log.warning(message, self._told, times, found, "reconstruction and chi2 go by what is told")

    def _measure(self, frames: Frames) -> NoiseModel | None:
        """What all frames that were looked at tell; None: these were not, or they do not tell."""
        if len(frames) < FEWEST_FRAMES:
            return None
        self._groups += 1
        if self._groups < self._next:
            return None
        self._next = 2 * self._groups
        shift = self._groups * _GOLDEN % 1  # other blocks each time
        down, across = (_evenly(side, shift) for side in frames.shape[1:])
        for rows in down:  # a row of blocks at a time takes little memory
            self._seen.append(moments(frames[:MOST_FRAMES, rows[:, None], across.ravel()]))
        found = fit(self._seen)
        return found.noise if found and GAINS[0] <= found.noise.counts_per_electron <= GAINS[1] else None

    def _variance(self, noise: NoiseModel) -> float:
        """At the mean brightness of what was looked at, counts^2."""
        mean = np.concatenate([seen.mean for seen in self._seen]).mean(keepdims=True)
        return max(float(noise.variance(mean)[0]), LEAST_VARIANCE)


def _evenly(side: int, shift: float) -> npt.NDArray[np.intp]:
    """The pixels of up to `BLOCKS` blocks along an axis of `side` pixels: (blocks, SIDE)."""
    count = side // SIDE
    starts = np.arange(count) if count <= BLOCKS else ((np.arange(BLOCKS) + shift) * count / BLOCKS).astype(np.intp)
    return SIDE * starts[:, None] + np.arange(SIDE)
