"""What goes into a reconstruction, and what every reconstructor offers. Solvers and nets are in their own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError
from framefold_protocol.model import level
from framefold_protocol.noise import NoiseModel

Frames = npt.NDArray[np.float32]
"""(B, H, W) frames in detector counts."""


@dataclass(frozen=True, eq=False)
class FoldedGroup:
    """One snapshot and the masks that made it. Raises `InputError` when they do not belong together."""

    snapshot: npt.NDArray[np.unsignedinteger] = field(repr=False)
    """(H, W) sums in detector counts."""
    coding: Coding
    step_sigma: float = 0.0
    """Width of the bins that the sums were coded in, in standard deviations of their noise; 0: exact."""
    whole: FoldedGroup | None = field(default=None, repr=False)
    """What this is a part of; None: nothing."""

    def __post_init__(self) -> None:
        if self.snapshot.shape != self.coding.shape or self.snapshot.dtype.kind != "u":
            found = f"{self.snapshot.dtype} {self.snapshot.shape}"
            raise InputError(f"snapshot is {found}, expected unsigned integers {self.coding.shape} as the masks are")

    def window(self, rows: slice, columns: slice) -> FoldedGroup:
        """A part of it that begins at a 64x64 block, to be reconstructed as it is in the whole; all of it is itself."""
        if self.snapshot[rows, columns].shape == self.snapshot.shape:
            return self
        return FoldedGroup(self.snapshot[rows, columns], self.coding.cut(rows, columns), self.step_sigma, self.whole or self)

    def with_snapshot(self, snapshot: npt.NDArray[np.unsignedinteger]) -> FoldedGroup:
        """The group with other sums, of the same whole."""
        return replace(self, snapshot=snapshot)

    def level(self, noise: NoiseModel) -> float:
        """Counts of one frame's pixel without the offset, over all of the frame: what reconstructors measure by."""
        return _level(self.whole or self, noise)

    def exposure(self) -> npt.NDArray[np.uint16]:
        """Ones per pixel, (H, W)."""
        return self.coding.exposure()


@lru_cache(maxsize=2)
def _level(group: FoldedGroup, noise: NoiseModel) -> float:
    exposure = group.exposure()
    return level(group.snapshot - np.float64(noise.offset_counts) * exposure, exposure)


Beside = Sequence[FoldedGroup]
"""Groups that follow each other before or after another, the nearest first."""


class Reconstructor(Protocol):
    """Turns snapshots into frames. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """`gap-tv`, or the model's name."""

    @property
    def provider(self) -> str:
        """What really computes: `numba`, or ONNX Runtime's provider in use, such as `CPUExecutionProvider`."""

    def reconstruct(self, group: FoldedGroup, before: Beside, after: Beside, noise: NoiseModel) -> Frames:
        """The frames of `group` (B, H, W) in detector counts: finite, not negative.

        `before` and `after` are up to `REACH` groups each, none at a stream's ends. Raises `ModelError` when the coding does
        not fit or the model fails.
        """
