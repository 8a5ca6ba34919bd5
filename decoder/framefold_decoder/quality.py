"""How far frames can be trusted: whether they explain their snapshot (chi2), and how near they come to a known truth (PSNR).

chi2 is reduced, as in any fit: frames that were found from a snapshot follow some of its noise, so their squared deviations are
fewer than the noise's, by the degrees of freedom of the fit. `followed` measures how many. For the frames that are right on
average given all that was measured, the best there are, what is left is just that: chi2 is 1, whatever the scene (see
`protocol/decisions/0009-chi2-of-the-best-frames-is-1.md`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_decoder.reconstruct.tiling import row_bands
from framefold_protocol.errors import InputError
from framefold_protocol.noise import NoiseModel

LEAST_FREEDOM = 0.05
"""Where frames follow more of the noise than all but this, their misfit tells nothing, and chi2 comes out too low."""
ROUNDING_VARIANCE = 1 / 12
"""Counts^2. Snapshots are whole numbers: none is known better than that, however dark and noiseless."""
LEAST_DUE = 1e-3
"""Share of the exposed pixels that counts at least: of frames all dark none would, and a single electron would be a wonder."""


def misfit(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> float:
    """mean((Y - sum_t C_t X_t)^2 / var(Y)) over the exposed pixels; 1 where none is exposed. Where var(Y) is below
    `ROUNDING_VARIANCE` that is taken instead, and a pixel counts as the share of one that it is due.

    `frames` are (B, H, W) in detector counts. About 1 for the true frames; above for others, or when the noise model is
    wrong; below, they follow its noise: see `chi2`. var(Y) is the noise model's at the sum of the frames, and that
    of the bins that the snapshot was coded in. Frames that were clipped or rounded for
    storage below their noise give the same within some per cent. Memory stays bounded. Raises `InputError` when frames and
    snapshot differ in shape.
    """
    coding = group.coding
    if frames.shape != (coding.ratio, *coding.shape):
        raise InputError(f"frames are {frames.shape}, expected {(coding.ratio, *coding.shape)} as the group has them")
    total, due, exposed = 0.0, 0.0, 0
    for rows in row_bands(coding.shape, coding.ratio):
        exposure = coding.exposure(rows)
        expected = np.einsum("tyx,tyx->yx", coding.window(rows), frames[:, rows], dtype=np.float32)
        own = noise.variance(expected, exposure)
        variance = np.maximum(own, ROUNDING_VARIANCE)
        due += float((np.minimum(own / ROUNDING_VARIANCE, 1) * (exposure > 0)).sum())
        variance += np.maximum(group.step_sigma**2 * variance - 1, 0) / 12  # bins of one count are exact
        squares = (group.snapshot[rows] - expected.astype(np.float64)) ** 2 / variance
        total += float(squares.sum())  # 0 where nothing was exposed
        exposed += int(np.count_nonzero(exposure))
    return total / max(due, exposed * LEAST_DUE) if exposed else 1.0


def chi2(plain: float, followed: float) -> float:
    """A `misfit` over what the best frames leave: 1 when these explain their snapshot, less when they follow its noise too far.

    `followed` is the share of the noise that they follow.
    """
    return plain / max(1 - followed, LEAST_FREEDOM)


def psnr(estimate: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], peak: float) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all of (T, H, W); infinite when they are equal.

    Raises `InputError` when the shapes differ.
    """
    if estimate.shape != truth.shape:
        raise InputError(f"estimate is {estimate.shape}, expected {truth.shape} as the truth is")
    errors = [np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2) for a, b in zip(estimate, truth, strict=True)]
    error = float(np.mean(errors))
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")
