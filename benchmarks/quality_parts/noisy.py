"""Recordings that are noisy themselves: no truth, so chi2, and pictures to look at.

Their noise is found by photon transfer on all their frames, as the decoder finds it on audit frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from framefold_decoder.decoding import trust
from framefold_protocol.model import SNAPSHOTS
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import measure
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.cells import Row
from quality_parts.clips import Counts, Pixels, read
from quality_parts.folding import neighbourhood
from quality_parts.framefold import Nets

FILES = ("au_750c.tif", "ti_line.tif", "ptceo2_raw.tif")
"""In the folder `em` of the recordings."""
LARGEST_RATIO = 20
"""B, unless there are not three groups of it."""


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
        counts = read(recordings / "em" / file, SNAPSHOTS * LARGEST_RATIO, size)
        found = measure(counts)
        noise = found.noise if found else NoiseModel()
        ratio = min(len(counts) // 3, LARGEST_RATIO)
        counts = counts[: len(counts) // ratio * ratio]
        folded = fold_adaptively(groups_of(counts, ratio), noise=noise)
        middle = len(folded.groups) // 2
        beside = neighbourhood(folded.groups, middle)
        for number, reconstructor in enumerate(nets.with_solver(beside[0].coding)):
            frames = reconstructor.reconstruct(*beside, noise)
            wire_ratio = counts.nbytes / folded.sent_bytes
            explained, share = trust(beside, frames, noise, reconstructor)
            told = {"model": reconstructor.name, "chi2": explained, "followed": share, "noise": vars(noise)}
            rows.append({"clip": Path(file).stem, "ratio": ratio, "wire_ratio": wire_ratio, **told})
            if number == 0:
                seen.append(Seen(Path(file).stem, counts[middle * ratio : (middle + 1) * ratio], frames))
    return rows, seen
