"""The plain estimate: what a frame's pixel holds on average over its exposures. Start of GAP-TV, and the simplest baseline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]
RADIUS = 2
"""Half side of the local mean's square, pixels: 25 pixels average shot noise to a fifth."""


def plain_mean(snapshot: Numbers, exposure: Numbers) -> Image:
    """Counts per exposure, (H, W): the snapshot over its exposure. Pixels that were never exposed take the local mean."""
    return np.where(exposure > 0, snapshot / np.maximum(exposure, 1), local_mean(snapshot, exposure)).astype(np.float32)


def local_mean(snapshot: Numbers, exposure: Numbers) -> Image:
    """Counts per exposure over the square of 5 x 5 pixels about each pixel, (H, W); the frame's mean where none was exposed."""
    counts, exposures = (_box_sum(array.astype(np.float64)) for array in (snapshot, exposure))
    mean = float(snapshot.sum(dtype=np.float64) / max(exposure.sum(dtype=np.float64), 1.0))
    return np.where(exposures > 0, counts / np.maximum(exposures, 1.0), mean).astype(np.float32)


def _box_sum(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sum over the square about each pixel, (H, W); pixels outside the frame count nothing."""
    side = 2 * RADIUS + 1
    total = np.pad(image, ((RADIUS + 1, RADIUS), (RADIUS + 1, RADIUS))).cumsum(axis=0).cumsum(axis=1)
    return np.asarray(total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side])
