"""Recordings that are noisy themselves: no truth, so chi2, and pictures to look at.

Their noise is found by photon transfer: the variance of a pixel from frame to frame against its mean is a line, whose slope is
the gain in counts per electron and whose zero is the detector's offset (J. R. Janesick, "Photon Transfer", SPIE 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framefold_decoder.quality import chi2
from framefold_decoder.reconstruct.base import NoiseModel
from framefold_protocol.masks import MaskSpec, derive_masks
from quality_parts.cells import Row
from quality_parts.clips import Counts, Pixels, read
from quality_parts.folding import fold
from quality_parts.framefold import Nets

FILES = ("au_750c.tif", "ti_line.tif", "ptceo2_raw.tif")
"""In the folder `em` of the recordings."""
LARGEST_RATIO = 20


@dataclass(frozen=True, eq=False)
class Seen:
    """One recording's middle group, for the eye."""

    name: str
    delivered: Counts
    """(B, H, W)."""
    frames: Pixels
    """(B, H, W), reconstructed."""


def noisy_rows(nets: Nets, size: int, recordings: Path) -> tuple[list[Row], list[Seen]]:
    """A row a recording and reconstructor, and the model's frames."""
    rows, seen = [], []
    for file in FILES:
        counts = read(recordings / "em" / file, 3 * LARGEST_RATIO, size)
        ratio = len(counts) // 3
        noise = photon_transfer(counts)
        folded = fold(counts[: 3 * ratio], [derive_masks(MaskSpec(ratio=ratio), (counts.shape[1], counts.shape[2]))])
        previous, group, following = folded.groups
        for number, reconstructor in enumerate(nets.with_solver(group.coding)):
            frames = reconstructor.reconstruct(group, previous, following, noise)
            wire_ratio = counts[: 3 * ratio].nbytes / folded.sent_bytes
            told = {"model": reconstructor.name, "chi2": chi2(group, frames, noise), "noise": vars(noise)}
            rows.append({"clip": Path(file).stem, "ratio": ratio, "wire_ratio": wire_ratio, **told})
            if number == 0:
                seen.append(Seen(Path(file).stem, counts[ratio : 2 * ratio], frames))
    return rows, seen


def photon_transfer(counts: Counts) -> NoiseModel:
    """Gain and offset from (T, H, W) counts; differences of consecutive frames leave little of what moves."""
    frames = counts.astype(np.float64)
    means = (frames[1:] + frames[:-1]).mean(axis=0).ravel() / 2
    variances = ((frames[1:] - frames[:-1]) ** 2).mean(axis=0).ravel() / 2
    order = np.argsort(means)
    bins = [part for part in np.array_split(order, 32) if len(part)]
    points = np.array([[means[part].mean(), np.median(variances[part])] for part in bins])
    gain, constant = np.polyfit(points[:, 0], points[:, 1], 1)
    if gain <= 0:  # no range of brightness, or a contrast that was stretched: noise alike everywhere
        return NoiseModel(0.0, 0.0, float(np.sqrt(np.median(variances))))
    return NoiseModel(float(gain), float(-constant / gain))
