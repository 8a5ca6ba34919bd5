"""How the blocks of a stream move: what one group tells, made surer by the groups before it and the blocks around.

One group's motion is told by few pixels: chance makes much of it, and a hopping column between the rows that are looked at is
missed. So each group is looked at in other rows, and what moved a group ago counts half as much as what moves now, for motion
is seldom over at once, and seldom alone. On training scenes that tells as well what a block is better folded with as sixteen
times the reads would (`benchmarks/policy.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefold_encoder.exposure import Motion
from framefold_protocol.coding import BLOCK, block_map_shape
from framefold_protocol.compiled import compiled

ROWS_ON = 25
"""Rows of a block from those looked at in one group to those in the next: a golden section, so that they soon lie close."""
FADING = 0.5
"""Weight of each group before, against the one after it."""
OWN = 0.4
"""Weight of a block's own motion; the rest is the mean of all around it and itself."""
CEILING = 4.0
"""Times the largest threshold, motion is as good as more: a block that moves far would hide how still those around it are."""
LIKE = 2.0
"""A steady motion goes with the cube of B. Groups between which that is more than so many times, or less than its inverse,
do not speak for each other: chance would be taken for motion."""


class Watch:
    """The blocks of one stream, group after group."""

    def __init__(self, shape: tuple[int, int], below: Sequence[float]) -> None:
        """Of frames (H, W), for a choice by the thresholds `below`."""
        self._area = np.outer(*(_sides(side, blocks) for side, blocks in zip(shape, block_map_shape(shape), strict=True)))
        self._ceiling = CEILING * max(below, default=0.0)
        self._groups = self._ratio = 0
        self._moved, self._weight = np.zeros(self._area.shape, np.float32), 0.0

    @property
    def row(self) -> int:
        """Of each block, to look at next."""
        return (BLOCK // 2 + ROWS_ON * self._groups) % BLOCK

    def add(self, motion: Motion, ratio: int) -> Motion:
        """What the blocks of the next group, of `ratio` frames, are taken to move by; `motion` is what it tells by itself."""
        change = (ratio / self._ratio) ** 3 if self._ratio else 0.0
        kept = FADING if 1 / LIKE <= change <= LIKE else 0.0
        most, self._weight = self._ceiling * self._weight, 1.0 + kept * self._weight
        found = np.empty_like(self._moved)
        _pool(motion, self._area, kept, change, most, self._ceiling, self._weight, self._moved, found)
        self._groups, self._ratio = self._groups + 1, ratio
        return found


def _sides(side: int, blocks: int) -> npt.NDArray[np.float32]:
    """Pixels of each block along one side: the last may be cut off."""
    return np.minimum(BLOCK, side - BLOCK * np.arange(blocks)).astype(np.float32)


@compiled()
def _pool(
    motion: Motion,
    area: npt.NDArray[np.float32],
    kept: float,
    change: float,
    most: float,
    ceiling: float,
    weight: float,
    moved: Motion,
    found: Motion,
) -> None:
    """Add a group's `motion` to what has `moved`, of which `kept` is left; `found`: the weighted mean, with that around it."""
    rows, columns = motion.shape
    for row in range(rows):
        for column in range(columns):
            before = min(change * moved[row, column], most)
            moved[row, column] = min(motion[row, column], ceiling) + kept * before
    for row in range(rows):
        for column in range(columns):
            around = pixels = 0.0
            for y in range(max(row - 1, 0), min(row + 2, rows)):
                for x in range(max(column - 1, 0), min(column + 2, columns)):
                    around += area[y, x] * moved[y, x]
                    pixels += area[y, x]
            found[row, column] = (OWN * moved[row, column] + (1 - OWN) * around / pixels) / weight
