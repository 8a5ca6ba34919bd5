"""What goes into a reconstruction, and what every reconstructor offers. Solvers and nets are in their own files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError

Frames = npt.NDArray[np.float32]
"""(B, H, W) frames in detector counts."""
Variance = npt.NDArray[np.float32]
"""(H, W) in detector counts squared."""


@dataclass(frozen=True)
class NoiseModel:
    """Mean and variance of one frame's pixel, in detector counts: the variance is gain * (counts - offset) + read noise^2.

    Raises `InputError` when a value is negative or not finite.
    """

    counts_per_electron: float = 1.0
    """Gain, 1 for a counting detector; 0 with no read noise: noiseless."""
    offset_counts: float = 0.0
    """What the detector reads without electrons."""
    read_noise_counts: float = 0.0
    """Standard deviation without electrons."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and (value >= 0 or name == "offset_counts")):
                raise InputError(f"noise model's {name} is {value}, expected a finite number, 0 or more")

    def variance(self, counts: npt.NDArray[np.floating], exposures: npt.NDArray[np.uint16] | int = 1) -> Variance:
        """Variance in counts^2 of the sum of `exposures` frames whose expected sum is `counts`, both (H, W)."""
        signal = np.maximum(counts - self.offset_counts * exposures, 0.0)
        return np.asarray(self.counts_per_electron * signal + self.read_noise_counts**2 * exposures, np.float32)


@dataclass(frozen=True, eq=False)
class FoldedGroup:
    """One snapshot and the masks that made it. Raises `InputError` when they do not belong together."""

    snapshot: npt.NDArray[np.unsignedinteger] = field(repr=False)
    """(H, W) sums in detector counts."""
    coding: Coding

    def __post_init__(self) -> None:
        if self.snapshot.shape != self.coding.shape or self.snapshot.dtype.kind != "u":
            found = f"{self.snapshot.dtype} {self.snapshot.shape}"
            raise InputError(f"snapshot is {found}, expected unsigned integers {self.coding.shape} as the masks are")

    def exposure(self) -> npt.NDArray[np.uint16]:
        """Ones per pixel, (H, W)."""
        return self.coding.exposure()


class Reconstructor(Protocol):
    """Turns snapshots into frames. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """`gap-tv`, or the model's name."""

    @property
    def provider(self) -> str:
        """What really computes: `numba`, or ONNX Runtime's provider in use, such as `CPUExecutionProvider`."""

    def reconstruct(
        self, group: FoldedGroup, previous: FoldedGroup | None, following: FoldedGroup | None, noise: NoiseModel
    ) -> Frames:
        """The frames of `group` (B, H, W) in detector counts: finite, not negative.

        `previous` and `following` are the groups before and after, None at a stream's ends. Raises `ModelError` when the coding
        does not fit or the model fails.
        """
