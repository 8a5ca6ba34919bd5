"""Rounding reconstructed frames to what their noise allows, so that they compress. Frames that were sent raw are never rounded.

A frame's pixel of x counts carries shot noise of sigma = sqrt(gain * x) counts. Rounding to a power-of-two step of at most
sigma / 16 moves it by at most sigma / 32: one part in 3000 of its variance. Below 1/64 electron the step stays that of 1/64
electron, gain / 128 counts or a little less. A step per binade makes the trailing mantissa bits zero, which Blosc's byte
shuffle turns into runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_protocol.compiled import compiled

Frames = npt.NDArray[np.float32]

NOISE_FRACTION = 32
"""The error is at most sigma over this."""
FLOOR_ELECTRONS = 1 / 64
"""Pixels below this many electrons are rounded as if they had it."""


def round_below_noise(frames: Frames, counts_per_electron: float = 1.0) -> Frames:
    """Round frames in detector counts, any shape, float32. Signs stay, NaN stays NaN; rounding twice changes nothing more."""
    flat = np.ascontiguousarray(frames).reshape(-1)
    rounded = np.empty_like(flat)
    _round(flat, flat.view(np.uint32), _steps(counts_per_electron), rounded)
    return rounded.reshape(frames.shape)


@compiled()
def _round(frames: Frames, bits: npt.NDArray[np.uint32], steps: Frames, rounded: Frames) -> None:
    """All flat; `bits` are the frames'. Compiled: every frame that is stored goes through here."""
    for i in range(len(frames)):
        step = steps[bits[i] >> 23 & 0xFF]  # by the float's exponent field
        rounded[i] = np.rint(frames[i] / step) * step


def _steps(counts_per_electron: float) -> Frames:
    """The step for each exponent field e, from the binade's smallest value 2^(e - 127): (256,) float32 powers of two."""
    counts = np.exp2(np.arange(256.0) - 127)
    sigma = np.sqrt(counts_per_electron * np.maximum(counts, FLOOR_ELECTRONS * counts_per_electron))
    steps: Frames = np.exp2(np.floor(np.log2(2 * sigma / NOISE_FRACTION))).astype(np.float32)
    return steps
