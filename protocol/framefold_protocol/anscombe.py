"""Near-lossless: counts <-> bin numbers whose width is a fixed share of the local noise. No bytes here; see `payload.py`.

The generalised Anscombe transform 2/g sqrt(g y + 3/8 g^2 + s^2 - g o) turns counts y into a scale on which noise has standard
deviation 1 everywhere (Murtagh, Starck & Bijaoui, A&AS 112, 179, 1995; g: gain, o: offset, s: read noise). Bins of `step` on
that scale are `step` sigma wide. Where a bin would be narrower than one count (few electrons), and below the offset (no shot
noise), the scale goes on in a straight line, so no bin number exceeds its count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError

Counts = npt.NDArray[np.unsignedinteger]
Real = npt.NDArray[np.float64]
Kind = np.dtype[np.unsignedinteger]

LARGEST = 2.0**53
"""Of the counts that can be coded: integers that float64 holds. 256 frames of 32 bits stay below 2^40."""
GAINS = 1e-3, 1e6
"""Counts per electron, least and largest."""
_TABLE = 2**16
"""Values below it are looked up: faster than a square root for each."""


@dataclass(frozen=True)
class VarianceStabilised:
    """Quantisation in units of sigma. A count y comes back within `error_bound(y)`. Raises `InputError` when out of bounds."""

    gain: float = 1.0
    """Counts per electron, one of `GAINS`' range."""
    offset: float = 0.0
    """Counts without electrons, of the coded value (a sum: see `summed`), 0 to 2^40."""
    read_noise: float = 0.0
    """Standard deviation without electrons in counts, of the coded value, 0 to 2^40."""
    step: float = 0.5
    """Width of a bin in standard deviations, 0.01 to 4. The error's variance is step^2 / 12 of the noise's: 2 % at 0.5."""

    def __post_init__(self) -> None:
        bounds = {"gain": GAINS, "offset": (0.0, 2.0**40), "read_noise": (0.0, 2.0**40), "step": (0.01, 4.0)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:  # nor for NaN
                message = f"quantisation {name} is {getattr(self, name)!r}, expected {low:g} to {high:g}"
                raise InputError(message, hint="Correct the coder's settings")

    def summed(self, fewest: int, most: int) -> VarianceStabilised:
        """From one frame's offset and read noise to those of sums of `fewest` to `most` frames: the group's least and
        largest exposure, equal for balanced masks. Of that range it takes the least noise, so no step is wider than stated."""
        ones = fewest if self.gain * self.offset <= self.read_noise**2 else most
        return replace(self, offset=ones * self.offset, read_noise=math.sqrt(ones) * self.read_noise)

    def sigma(self, counts: npt.ArrayLike) -> Real:
        """Standard deviation of the noise at these counts, in counts."""
        above = np.maximum(np.asarray(counts, np.float64) - self.offset, 0.0)
        return np.asarray(np.sqrt(self.gain * above + self._dark_variance))

    def error_bound(self, counts: npt.ArrayLike) -> Real:
        """Largest |decoded - counts|: step/2 sigma, plus the parabola's bend over half a bin, plus rounding to an integer.

        With z the transform, y = g/4 z^2 + const and dz = step/2: |dy| <= g/2 z dz + g/4 dz^2 = step/2 sigma + g step^2 / 16.
        """
        return np.asarray(self.step / 2 * self.sigma(counts) + self.gain * self.step**2 / 16 + 0.5)

    def quantise(self, counts: Counts) -> Counts:
        """Bin numbers, in uint8 where they fit, else in the counts' dtype; 0 for no counts; never decreasing."""
        largest = int(counts.max(initial=0))
        fits_byte = self._bin(np.array([largest], np.float64))[0] < 255.5
        kind: Kind = np.dtype(np.uint8 if fits_byte else counts.dtype.newbyteorder("="))
        if largest < _TABLE:
            return _look_up(_bins_of_counts(self, kind), counts)
        return np.rint(self._bin(counts.astype(np.float64))).astype(kind)

    def restore(self, bins: Counts, dtype: str | Kind) -> Counts:
        """The count at the centre of each bin, rounded, of the bins' shape; no larger than `dtype` holds.

        The plain inverse, not the unbiased one of Mäkitalo & Foi: that one is for averages taken on the transformed scale.
        """
        kind = np.dtype(dtype)
        if int(bins.max(initial=0)) < _TABLE:
            return _look_up(_counts_of_bins(self, kind), bins)
        return self._count(bins.astype(np.float64), int(np.iinfo(kind).max)).astype(kind)

    @property
    def _dark_variance(self) -> float:
        return 0.375 * self.gain**2 + self.read_noise**2

    @property
    def _knee(self) -> tuple[float, float, float]:
        """Where line and root meet with equal slopes: count, sigma of the line, bin."""
        variance = max(self._dark_variance, 1 / self.step**2)
        sigma = math.sqrt(variance)
        count = self.offset + (variance - self._dark_variance) / self.gain
        return count, sigma, count / (self.step * sigma)

    def _bin(self, counts: Real) -> Real:
        """The stabilised scale in steps from 0 counts."""
        count, sigma, start = self._knee
        root = np.sqrt(np.maximum(self.gain * (counts - self.offset) + self._dark_variance, sigma**2))
        line = counts / (self.step * sigma)
        return np.where(counts <= count, line, start + 2 / (self.gain * self.step) * (root - sigma))

    def _count(self, bins: Real, largest: int) -> Real:
        """Inverse of `_bin`, rounded, at most `largest`."""
        _, sigma, start = self._knee
        root = sigma + (bins - start) * (self.gain * self.step / 2)
        counts = np.where(bins <= start, bins * (self.step * sigma), self.offset + (root**2 - self._dark_variance) / self.gain)
        return np.clip(np.rint(counts), 0, min(largest, LARGEST))  # read noise of 2^40 leaves rounding errors below 0


@lru_cache(maxsize=8)
def _bins_of_counts(quantisation: VarianceStabilised, kind: Kind) -> Counts:
    """`quantise` of the counts that are looked up, modulo the range of `kind`."""
    return np.rint(quantisation._bin(np.arange(_TABLE, dtype=np.float64))).astype(np.uint64).astype(kind)


@lru_cache(maxsize=8)
def _counts_of_bins(quantisation: VarianceStabilised, kind: Kind) -> Counts:
    """`restore` of the bins that are looked up."""
    return quantisation._count(np.arange(_TABLE, dtype=np.float64), int(np.iinfo(kind).max)).astype(kind)


def _look_up(table: Counts, values: Counts) -> Counts:
    """The table's entry for each value; none is beyond its end."""
    from framefold_protocol import plane_kernels  # the compiler is heavy, and messages do not need it

    found = np.empty(values.shape, table.dtype)
    plane_kernels.look_up(table, np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(-1), found.reshape(-1))
    return found
