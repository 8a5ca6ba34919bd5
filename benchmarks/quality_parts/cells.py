"""A cell: one clip at one dose and one ratio; what every method is given, and the row in which its result is told.

Five groups go over the wire, so that the middle one, which is scored, has neighbours as in a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_protocol.model import REACH, SNAPSHOTS
from quality_parts.adaptive import ELECTRONS, fold_adaptively, groups_of
from quality_parts.clips import Clip, Counts, Pixels
from quality_parts.folding import Folded
from quality_parts.scores import scores

NOISE = ELECTRONS
GROUPS = SNAPSHOTS
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """What is sent, and the truth."""

    clip: Clip
    dose: float
    """Electrons per pixel and frame."""
    ratio: int
    counts: Counts
    """(GROUPS * B, H, W), what the detector delivers."""
    truth: Pixels
    """(B, H, W) expected electrons of the middle group."""
    peak: float
    """The clip's largest expected electrons."""
    lossless: Folded
    """As the encoder folds by default: its bytes are what every rival may take."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.truth.shape[1], self.truth.shape[2]

    @property
    def middle(self) -> slice:
        """The frames of the middle group."""
        return _middle(self.ratio)

    @property
    def key(self) -> Row:
        """What names the cell in a row."""
        return {"clip": self.clip.name, "dose": self.dose, "ratio": self.ratio}

    def row(self, method: str, frames: npt.NDArray[Any], sent_bytes: int, cpu_s: float, first: int = 0, **more: Any) -> Row:
        """Scores of the middle group's `frames` (n, H, W) from its frame `first` on, and what they cost wire and encoder."""
        scored = slice(first, first + len(frames))
        columns = self.clip.columns and self.clip.columns[self.middle][scored]
        found = scores(np.asarray(frames, np.float32), self.truth[scored], self.peak, columns)
        costs = {
            "sent_bytes": sent_bytes,
            "wire_ratio": self.counts.nbytes / sent_bytes,
            "encode_cpu_s_per_gpx": cpu_s / self.counts.size * 1e9,
        }
        return {**self.key, "method": method, **costs, **found, **more}


def cell(clip: Clip, dose: float, ratio: int) -> Cell:
    """The first `GROUPS` groups of a clip."""
    expected, counts = clip.take(dose)
    counts = counts[: GROUPS * ratio]
    folded = fold_adaptively(groups_of(counts, ratio))
    return Cell(clip, dose, ratio, counts, expected[_middle(ratio)], float(expected.max()), folded)


def _middle(ratio: int) -> slice:
    return slice(REACH * ratio, (REACH + 1) * ratio)
