"""What a net is fed for one tile of one group, and batches of it. Nothing of ONNX Runtime is known here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_decoder.reconstruct.scenes import Neighbourhood, of_one_scene
from framefold_decoder.reconstruct.tiling import Tile, pad_to_multiple, tiles
from framefold_protocol.coding import Coding
from framefold_protocol.model import REACH, ModelCard, relative_noise
from framefold_protocol.noise import NoiseModel

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Task:
    """One group to reconstruct, and where its frames go."""

    groups: tuple[FoldedGroup, ...]
    """As many as a net is fed, in order, this in the middle; a neighbour that is missing or of another scene is this again."""
    exposures: npt.NDArray[np.uint16] = field(repr=False)
    """(SNAPSHOTS, H, W) ones per pixel."""
    level: float
    """Counts of one frame's pixel without the offset."""
    noise: NoiseModel
    frames: Frames = field(repr=False)
    """(B, H, W), filled tile by tile."""

    @property
    def group(self) -> FoldedGroup:
        """The one that is reconstructed."""
        return self.groups[REACH]

    @property
    def coding(self) -> Coding:
        """Of the group itself."""
        return self.group.coding


def task(neighbourhood: Neighbourhood, noise: NoiseModel) -> Task:
    """What all tiles of a group share."""
    group, before, after = of_one_scene(neighbourhood, noise)
    earlier, later = ((*beside[:REACH], *(REACH - len(beside)) * (group,)) for beside in (before, after))
    groups = (*earlier[::-1], group, *later)
    exposures = np.stack([one.exposure() for one in groups])
    return Task(groups, exposures, group.level(noise), noise, np.empty((group.coding.ratio, *group.coding.shape), np.float32))


@dataclass(frozen=True, eq=False)
class Window:
    """One tile of one task, padded to sizes that the net takes."""

    task: Task
    tile: Tile
    multiple: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, rows, columns) that the net sees."""
        sides = ((span.stop - span.start) for span in (self.tile.rows, self.tile.columns))
        down, across = (max(-(-side // self.multiple), 2) * self.multiple for side in sides)
        return self.task.coding.ratio, down, across

    def snapshots(self) -> Floats:
        """(SNAPSHOTS, rows, columns), divided by the level."""
        part = self.tile.rows, self.tile.columns
        pairs = zip(self.task.groups, self.task.exposures[:, *part], strict=True)
        signals = [_signal(group.snapshot[part], exposed, self.task.noise) for group, exposed in pairs]
        return pad_to_multiple(np.stack(signals) / np.float32(self.task.level), self.multiple)

    def exposures(self) -> Floats:
        """(SNAPSHOTS, rows, columns)."""
        part = self.task.exposures[:, self.tile.rows, self.tile.columns]
        return pad_to_multiple(part.astype(np.float32), self.multiple)

    def masks(self) -> Floats:
        """(B, rows, columns) of {0, 1}."""
        bits = self.task.coding.window(self.tile.rows, self.tile.columns)
        return pad_to_multiple(bits, self.multiple).astype(np.float32)

    def mask_key(self) -> tuple[object, ...]:
        """Windows with equal keys have equal masks, bit for bit."""
        coding, spans = self.task.coding, (self.tile.rows, self.tile.columns)
        block_map = None if coding.block_map is None else coding.block_map.tobytes()
        return coding.families, block_map, *((span.start, span.stop) for span in spans)

    def relative_noise(self) -> float:
        """The net's `noise`."""
        return relative_noise(self.task.level, self.task.noise.in_bins(self.task.group.step_sigma))

    def accept(self, answer: Floats) -> None:
        """Put the net's frames (B, rows, columns), in units of the level, into the task's, in counts, 0 or more."""
        target = self.task.frames[:, *self.tile.core]
        np.multiply(answer[:, *self.tile.inner], np.float32(self.task.level), out=target)
        if self.task.noise.offset_counts:
            target += np.float32(self.task.noise.offset_counts)
        np.maximum(target, 0, out=target)

    def __str__(self) -> str:
        rows, columns = self.tile.rows, self.tile.columns
        return f"rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}"


def windows(tasks: Sequence[Task], card: ModelCard, side: int) -> Iterator[Window]:
    """All tiles of all tasks, which are of one shape: the same tile of one task after the other."""
    for tile in tiles(tasks[0].coding.shape, side, card.halo, card.multiple):
        for one in tasks:
            yield Window(one, tile, card.multiple)


def batches(all_windows: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """Neighbours of one shape together, at most `most` of them."""
    for _, alike in groupby(all_windows, key=lambda window: window.shape):
        batch: list[Window] = []
        for window in alike:
            batch.append(window)
            if len(batch) == most:
                yield batch
                batch = []
        if batch:
            yield batch


def _signal(snapshot: npt.NDArray[np.unsignedinteger], exposure: npt.NDArray[np.uint16], noise: NoiseModel) -> Floats:
    """The snapshot without the detector's offset, (H, W)."""
    if not noise.offset_counts:
        return snapshot.astype(np.float32)
    return (snapshot - np.float64(noise.offset_counts) * exposure).astype(np.float32)
