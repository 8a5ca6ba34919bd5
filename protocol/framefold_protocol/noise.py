"""How noisy a detector's counts are: what chi2, the nets and the near-lossless coder go by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError

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

    def in_bins(self, step_sigma: float) -> NoiseModel:
        """Of counts that were rounded to bins of `step_sigma` standard deviations: uniform errors of step^2 / 12 on top."""
        more = 1 + step_sigma**2 / 12
        return replace(
            self,
            counts_per_electron=more * self.counts_per_electron,
            read_noise_counts=math.sqrt(more) * self.read_noise_counts,
        )

    def variance(self, counts: npt.NDArray[np.floating], exposures: npt.NDArray[np.uint16] | int = 1) -> Variance:
        """Variance in counts^2 of the sum of `exposures` frames whose expected sum is `counts`, both (H, W)."""
        signal = np.maximum(counts - self.offset_counts * exposures, 0.0)
        return np.asarray(self.counts_per_electron * signal + self.read_noise_counts**2 * exposures, np.float32)
