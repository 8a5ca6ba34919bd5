"""Rounding reconstructed frames to what their noise allows, so that they compress. Frames that were sent raw are never rounded.

A frame's pixel of x counts carries noise of sigma^2 = gain * (x - offset) + read noise^2. Rounding to a power-of-two step of at
most sigma / 16 moves it by at most sigma / 32: one part in 3000 of its variance. Below 1/64 electron the step stays that of
1/64 electron. A step per binade of x makes the trailing mantissa bits zero, which Blosc's byte shuffle turns into runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_protocol.compiled import compiled
from framefold_protocol.noise import NoiseModel

Frames = npt.NDArray[np.float32]

NOISE_FRACTION = 32
"""The error is at most sigma over this."""
FLOOR_ELECTRONS = 1 / 64
"""Pixels below this many electrons are rounded as if they had it."""


def round_below_noise(frames: Frames, noise: NoiseModel | None = None) -> Frames:
    """Round frames in detector counts, any shape, float32, by their detector's noise; None: a counting detector's.

    Signs stay, NaN stays NaN; rounding twice changes nothing more.
    """
    flat = np.ascontiguousarray(frames).reshape(-1)
    rounded = np.empty_like(flat)
    _round(flat, flat.view(np.uint32), _steps(noise or NoiseModel()), rounded)
    return rounded.reshape(frames.shape)


@compiled()
def _round(frames: Frames, bits: npt.NDArray[np.uint32], steps: Frames, rounded: Frames) -> None:
    """All flat; `bits` are the frames'. Compiled: every frame that is stored goes through here."""
    for i in range(len(frames)):
        step = steps[bits[i] >> 23 & 0xFF]  # by the float's exponent field
        rounded[i] = np.rint(frames[i] / step) * step


def _steps(noise: NoiseModel) -> Frames:
    """The step for each exponent field e, from the binade's smallest value 2^(e - 127): (256,) float32 powers of two."""
    counts = np.exp2(np.arange(256.0) - 127)
    gain, signal = noise.counts_per_electron, counts - noise.offset_counts
    sigma = np.sqrt(gain * np.maximum(signal, FLOOR_ELECTRONS * gain) + noise.read_noise_counts**2 + 1e-30)
    steps: Frames = np.exp2(np.floor(np.log2(2 * sigma / NOISE_FRACTION))).astype(np.float32)
    return steps
