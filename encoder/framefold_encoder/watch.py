"""How the blocks of a stream move: what one group tells, made surer by the groups before it and the blocks around.

One group's motion is told by few pixels: chance makes much of it, and a hopping column between the rows that are looked at is
missed. So each group is looked at in other rows, and what moved a group ago counts half as much as what moves now, for motion
is seldom over at once, and seldom alone. On training scenes two rows, so, told better what to fold a block with than all rows
of the group alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefold_encoder.exposure import SMALLEST_RATIO, Motion, choose_families
from framefold_encoder.motion import Counts, motion
from framefold_protocol.coding import BLOCK, BlockMap, block_map_shape
from framefold_protocol.compiled import compiled
from framefold_protocol.noise import NoiseModel

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

    def __init__(self, shape: tuple[int, int], below: Sequence[float], threads: int = 1) -> None:
        """Of frames (H, W), for a choice by the thresholds `below`, falling; `threads` look."""
        self._below, self._threads = tuple(below), threads
        self._seen: tuple[Counts, Motion] | None = None
        """What was looked at last."""
        self._area = np.outer(*(_sides(side, blocks) for side, blocks in zip(shape, block_map_shape(shape), strict=True)))
        self._ceiling = CEILING * max(below, default=0.0)
        self._groups = self._ratio = 0
        self._moved, self._weight = np.zeros(self._area.shape, np.float32), 0.0

    @property
    def row(self) -> int:
        """Of each block, to look at next."""
        return (BLOCK // 2 + ROWS_ON * self._groups) % BLOCK

    def look(self, frames: Counts, noise: NoiseModel) -> Motion:
        """What a group that may be folded next, (B, H, W) of at least `SMALLEST_RATIO` frames, tells by itself."""
        if self._seen is None or self._seen[0] is not frames:
            self._seen = frames, motion(frames, noise, self._threads, self.row)
        return self._seen[1]

    def choose(self, frames: Counts, noise: NoiseModel) -> BlockMap:
        """The families of the blocks of the next group; those of too few frames to tell are folded as if they moved."""
        if len(frames) < SMALLEST_RATIO:
            return np.zeros(self._area.shape, np.uint8)
        moved = self.add(self.look(frames, noise), len(frames))
        self._seen = None
        return choose_families(moved, self._below)

    def add(self, alone: Motion, ratio: int) -> Motion:
        """What the blocks of the next group, of `ratio` frames, are taken to move by; `alone` is what it tells by itself."""
        change = (ratio / self._ratio) ** 3 if self._ratio else 0.0
        kept = FADING if 1 / LIKE <= change <= LIKE else 0.0
        most, self._weight = self._ceiling * self._weight, 1.0 + kept * self._weight
        found = np.empty_like(self._moved)
        _pool(alone, self._area, kept, change, most, self._ceiling, self._weight, self._moved, found)
        self._groups, self._ratio = self._groups + 1, ratio
        return found


def _sides(side: int, blocks: int) -> npt.NDArray[np.float32]:
    """Pixels of each block along one side: the last may be cut off."""
    return np.minimum(BLOCK, side - BLOCK * np.arange(blocks)).astype(np.float32)


@compiled()
def _pool(
    alone: Motion,
    area: npt.NDArray[np.float32],
    kept: float,
    change: float,
    most: float,
    ceiling: float,
    weight: float,
    moved: Motion,
    found: Motion,
) -> None:
    """Add what a group tells `alone` to what has `moved`, of which `kept` is left; `found`: its mean, with that around it."""
    rows, columns = alone.shape
    for row in range(rows):
        for column in range(columns):
            before = min(change * moved[row, column], most)
            moved[row, column] = min(alone[row, column], ceiling) + kept * before
    for row in range(rows):
        for column in range(columns):
            around = pixels = 0.0
            for y in range(max(row - 1, 0), min(row + 2, rows)):
                for x in range(max(column - 1, 0), min(column + 2, columns)):
                    around += area[y, x] * moved[y, x]
                    pixels += area[y, x]
            found[row, column] = (OWN * moved[row, column] + (1 - OWN) * around / pixels) / weight
