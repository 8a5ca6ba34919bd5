"""How bright each frame is as a whole: nets look at a pixel's surroundings, where noise hides it; all of a snapshot shows it.

Frames X_t that should be brighter by shares d_t leave Y - sum_t C_t X_t = sum_t d_t C_t X_t on average: weighted least squares
over the pixels tell d, and how far they can be trusted. Beams flicker, and crystals that bend brighten and darken as a whole;
nets follow that too little. Where d is no larger than chance makes it, nothing is changed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import ROUNDING_VARIANCE
from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_protocol.coding import BLOCK
from framefold_protocol.noise import NoiseModel

PIXELS = 1 << 17
"""That are looked at, about, in bands of `BLOCK` rows that are evenly spread."""
FEWEST = 3
"""Frames: of two the one is as much too bright as the other is too dark, which chance does often."""
LARGEST = 0.5
"""Of a frame's brightness that is added or taken away."""

Floats = npt.NDArray[np.float64]


def correct(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> None:
    """Scale each of the frames (B, H, W), in detector counts, by its own factor, in place; leave them where none is called for.

    The factors' mean is 1: the mean brightness of a group is what nets know best.
    """
    missing = np.clip(_missing(group, frames, noise), -LARGEST, LARGEST)
    if not missing.any():
        return
    offset = np.float32(noise.offset_counts)
    for image, share in zip(frames, missing.astype(np.float32), strict=True):
        image -= offset
        image *= 1 + share
        image += offset
        np.maximum(image, 0, out=image)


def _missing(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> Floats:
    """d (B,), shrunk by what chance makes of it (W. James & C. Stein, Proc. 4th Berkeley Symp. 1, 361, 1961); else zeros."""
    nothing = np.zeros(len(frames))
    if len(frames) < FEWEST:
        return nothing
    normal, scores = _sums(group, frames, noise)
    inverse = np.linalg.pinv(normal, rcond=1e-6, hermitian=True)
    centred = np.eye(len(frames)) - 1 / len(frames)
    found = centred @ inverse @ scores.sum(1)
    scatter = centred @ inverse @ (scores @ scores.T) @ inverse @ centred
    freedom = len(frames) - 1
    size = float(found @ np.linalg.pinv(scatter, rcond=1e-4, hermitian=True) @ found) / freedom
    by_chance = 1 + 1.645 * math.sqrt(2 / freedom)  # more in one of twenty cases
    return found * (1 - by_chance / size) if size > by_chance else nothing


def _sums(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> tuple[Floats, Floats]:
    """The normal equations' matrix (B, B) and right-hand side, that one in parts (B, BLOCK * BLOCK).

    Masks repeat every `BLOCK` pixels, as lattices may: pixels under equal masks err together, so their part is one sample of
    the scatter and not many (a sandwich estimator: K.-Y. Liang & S. Zeger, Biometrika 73, 13, 1986). Pixels that are exposed
    always or never tell nothing.
    """
    ratio, height, width = frames.shape
    normal, scores = np.zeros((ratio, ratio)), np.zeros((ratio, BLOCK, BLOCK))
    bands = range(0, height, BLOCK)
    for start in bands[:: max(1, math.ceil(height * width / PIXELS))]:
        rows = slice(start, min(start + BLOCK, height))
        exposure = group.coding.exposure(rows)
        signal = group.coding.window(rows) * (frames[:, rows] - np.float32(noise.offset_counts))
        expected = signal.sum(0)
        told = group.snapshot[rows] - np.float64(noise.offset_counts) * exposure
        variance = noise.in_bins(group.step_sigma).variance(expected + noise.offset_counts * exposure, exposure)
        weight = ((exposure > 0) & (exposure < ratio)) / np.maximum(variance, ROUNDING_VARIANCE).astype(np.float32)
        normal += (signal * weight).reshape(ratio, -1) @ signal.reshape(ratio, -1).T
        part = signal * (weight * (told - expected)).astype(np.float32)
        for left in range(0, width, BLOCK):
            block = part[:, :, left : left + BLOCK]
            scores[:, : block.shape[1], : block.shape[2]] += block
    return normal, scores.reshape(ratio, -1)
