"""Photon transfer: gain, offset and read noise of a detector, from raw frames of whatever it happened to see.

Over small blocks of pixels the variance of temporal second differences is plotted against the mean: a straight line, whose
slope is the gain (J. R. Janesick, "Photon Transfer", SPIE 2007). Second differences leave out what moves steadily; subtracting
each block's mean leaves out a flickering beam; blocks off the line, where things hop, are left out of the fit.

The line's height tells read noise and offset only together: variance = gain * counts + (read noise^2 - gain * offset). What
tells them apart is the skewness: Poisson electrons have it, read noise has not. Where a part is not significant, it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from framefold_protocol.noise import NoiseModel

SIDE = 8
"""Pixels of a block: with 20 frames its variance is known to about 6 %, its mean to a tenth of a frame's noise."""
FEWEST_FRAMES = 3
FEWEST_BLOCKS = 16
SIGNIFICANT = 4.0
"""Standard errors. Motion leaves errors of its own; a needless term would cost little, a missed one little too."""
OUTLIER = 3.0
"""Blocks farther from the line than this, in robust standard deviations, are left out."""
ALIKE = 0.25
"""Where half of the blocks or more have the very same variance, as with an electron each, those this near to it are kept."""
_ROUNDS = 10
_VALUES_AT_ONCE = 1 << 24

Counts = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PhotonTransfer:
    """A noise model measured on frames, and how well its gain is known."""

    noise: NoiseModel
    gain_error: float
    """Standard error of the gain, counts per electron; 0 when the gain was given."""
    variance_error: float
    """Relative standard error of the mean variance."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Of one frame's pixel, averaged over a block and all frames: (blocks,) each."""

    mean: Floats
    """Counts."""
    variance: Floats
    """Counts^2."""
    skewness: Floats
    """The third cumulant, counts^3."""


def measure(frames: Counts, counts_per_electron: float | None = None) -> PhotonTransfer | None:
    """The noise model of raw frames (T, H, W); `counts_per_electron` when the gain is known.

    None when they do not tell: fewer than 3 frames, or than 16 blocks with noise. Where electrons deposit varying charge, the
    gain is the variance per count, which is what chi2 needs. Memory beyond the frames stays bounded.
    """
    height, width = (side // SIDE * SIDE for side in frames.shape[1:])
    rows = max(1, _VALUES_AT_ONCE // max(len(frames) * SIDE * width, 1)) * SIDE
    parts = [moments(frames[:, top : min(top + rows, height), :width]) for top in range(0, max(height, 1), rows)]
    return fit(parts, counts_per_electron)


def moments(frames: Counts) -> Moments:
    """Of raw frames (T, H, W), in their whole blocks; of no block where there are fewer than 3 frames."""
    if len(frames) < FEWEST_FRAMES:
        return Moments(*np.zeros((3, 0)))
    blocks, count = _blocks(frames).astype(np.float64), SIDE**2
    second = blocks[2:] + blocks[:-2]  # of noise: variance 6, third cumulant -6 times a pixel's
    second -= blocks[1:-1]
    second -= blocks[1:-1]
    second -= second.mean(axis=2, keepdims=True)
    power = second * second
    variance = power.sum(axis=2).mean(axis=0) / (6 * (count - 1))
    power *= second
    skewness = power.sum(axis=2).mean(axis=0) * (count / ((count - 1) * (count - 2) * -6.0))
    return Moments(blocks.mean(axis=(0, 2)), variance, skewness)


def fit(parts: Sequence[Moments], counts_per_electron: float | None = None) -> PhotonTransfer | None:
    """The noise model of one detector by several parts' moments; see `measure`."""
    names = [field.name for field in fields(Moments)]
    mean, variance, skewness = (np.concatenate([np.zeros(0), *(getattr(part, name) for part in parts)]) for name in names)
    telling = variance > 0  # where nothing ever changes, in the dark, in the shadow of a stop, in saturation, nothing is told
    if telling.sum() < FEWEST_BLOCKS:
        return None
    mean, variance, skewness = mean[telling], variance[telling], skewness[telling]
    line = _fit(mean, variance, counts_per_electron)
    if not line.gain > 0:
        return None
    offset = max(0.0, -line.height / line.gain)
    if line.height and (measured := _offset(line, mean, skewness)) is not None:
        offset = max(offset, measured)
    read_noise = np.sqrt(max(line.height + line.gain * offset, 0.0))
    return PhotonTransfer(NoiseModel(line.gain, offset, float(read_noise)), line.gain_error, line.variance_error)


def _blocks(frames: Counts) -> Counts:
    """(T, H, W) to (T, blocks, pixels)."""
    count, down, across = len(frames), frames.shape[1] // SIDE, frames.shape[2] // SIDE
    whole = frames[:, : down * SIDE, : across * SIDE].reshape(count, down, SIDE, across, SIDE)
    return whole.transpose(0, 1, 3, 2, 4).reshape(count, down * across, SIDE**2)


@dataclass(frozen=True)
class _Line:
    """variance = gain * mean + height."""

    gain: float
    height: float
    gain_error: float
    variance_error: float
    kept: npt.NDArray[np.bool_]
    """The blocks that lie on it."""


@dataclass(frozen=True)
class _Fit:
    values: list[float]
    errors: list[float]
    """Standard errors of the values."""
    mean_error: float
    """Relative standard error of the fitted quantity's mean."""
    kept: npt.NDArray[np.bool_]

    def significant(self, number: int) -> bool:
        return abs(self.values[number]) > SIGNIFICANT * self.errors[number]


def _fit(mean: Floats, variance: Floats, gain: float | None) -> _Line:
    """The line through the blocks, with as few parameters as they ask for."""
    both = np.stack([mean, np.ones_like(mean)], axis=1)
    if gain is not None:
        fit = _regress(both[:, 1:], variance, gain * mean)
        return _Line(gain, fit.values[0] if fit.significant(0) else 0.0, 0.0, fit.mean_error, fit.kept)
    if np.ptp(mean) > 1e-9 * mean.mean():
        fit = _regress(both, variance, np.zeros_like(mean))
        if fit.values[0] > 0 and fit.significant(0) and fit.significant(1):
            return _Line(fit.values[0], fit.values[1], fit.errors[0], fit.mean_error, fit.kept)
    fit = _regress(both[:, :1], variance, np.zeros_like(mean))
    return _Line(fit.values[0], 0.0, fit.errors[0], fit.mean_error, fit.kept)


def _regress(columns: Floats, variance: Floats, known: Floats) -> _Fit:
    """Fit variance = known + columns @ values by least squares, without outliers. A variance's own error is proportional to it,
    and so are the weights."""
    kept = np.ones(len(variance), bool)
    fitted = np.full(len(variance), variance.mean())
    values, residuals = np.zeros(columns.shape[1]), np.zeros(len(variance))
    for _ in range(_ROUNDS):
        sigma = np.maximum(fitted, 1e-3 * variance.mean())
        weighted = columns[kept] / sigma[kept, None]
        values = np.linalg.lstsq(weighted, (variance - known)[kept] / sigma[kept], rcond=None)[0]
        fitted = known + columns @ values
        residuals = (variance - fitted) / np.maximum(fitted, 1e-3 * variance.mean())
        middle = np.median(residuals[kept])
        spread = 1.4826 * float(np.median(np.abs(residuals[kept] - middle)))
        kept = np.abs(residuals - middle) <= (OUTLIER * spread if spread > 1e-9 else ALIKE)
    weighted = columns[kept] / np.maximum(fitted, 1e-3 * variance.mean())[kept, None]
    scatter = float(np.std(residuals[kept]))
    errors = scatter * np.sqrt(np.diag(np.linalg.pinv(weighted.T @ weighted)))
    return _Fit(values.tolist(), errors.tolist(), scatter / float(np.sqrt(kept.sum())), kept)


def _offset(line: _Line, mean: Floats, skewness: Floats) -> float | None:
    """The counts without electrons, when the skewness tells that there are some: the rest of the mean is gain * electrons, of
    third cumulant gain^2 * counts. Never above the darkest blocks."""
    signal = skewness[line.kept] / line.gain**2
    error = np.hypot(np.std(signal) / np.sqrt(len(signal)), 2 * signal.mean() * line.gain_error / line.gain)
    offset = float(np.mean(mean[line.kept] - signal))
    least = max(0.0, -line.height / line.gain)
    return min(offset, float(np.percentile(mean, 1))) if offset - least > SIGNIFICANT * error else None
