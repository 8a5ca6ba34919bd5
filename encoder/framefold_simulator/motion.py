"""Motion that repeats seamlessly: sinusoids with a whole number of periods in the loop, so that its end leads into its start.

What moves, and how far, is `scene`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Period = tuple[float, float]
"""Shortest and longest, in frames at speed 1."""

SMOOTH = 0.01
"""Sharpness of a swing that is a plain sinusoid."""


@dataclass(frozen=True)
class Swing:
    """Periodic motions, one per element: `amplitude * sin(...)`, squared off into jumps and rests as `sharpness` grows."""

    amplitude: Array
    harmonic: Array
    phase: Array
    sharpness: Array

    def at(self, turn: float) -> Array:
        """Displacements at `turn` = frame / loop."""
        sine = np.sin(2.0 * np.pi * self.harmonic * turn + self.phase)
        moved: Array = self.amplitude * np.tanh(self.sharpness * sine) / np.tanh(self.sharpness)
        return moved


@dataclass(frozen=True)
class Clock:
    """Turns wishes in frames into whole harmonics of the loop."""

    loop: int
    speed: float

    def wander(self, rng: np.random.Generator, velocity: Array, period: Period, sharpness: Array | float = SMOOTH) -> Swing:
        """Swings of r.m.s. `velocity` per frame (if smooth) at speed 1, and of `period` frames as nearly as the loop allows."""
        harmonic = np.maximum(1.0, self._harmonics(rng, velocity.shape, period))
        amplitude = velocity * self.speed * np.sqrt(2.0) * self.loop / (2.0 * np.pi * harmonic)
        return Swing(amplitude, harmonic, _phases(rng, velocity.shape), np.broadcast_to(sharpness, velocity.shape))

    def cycle(self, rng: np.random.Generator, amplitude: Array, period: Period, sharpness: Array) -> Swing:
        """Swings of a given amplitude, whatever the speed; frozen where the period is too slow for the loop."""
        return Swing(amplitude, self._harmonics(rng, amplitude.shape, period), _phases(rng, amplitude.shape), sharpness)

    def _harmonics(self, rng: np.random.Generator, shape: tuple[int, ...], period: Period) -> Array:
        wished = np.exp(rng.uniform(np.log(period[0]), np.log(period[1]), shape))
        harmonic: Array = np.round(self.loop * self.speed / wished)
        return harmonic


def _phases(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.0, 2.0 * np.pi, shape)
