"""How near reconstructed frames come to the truth, told by an audit group's raw frames, which are noisy themselves.

Raw noise: (X̂ - X)^2 is on average the reconstruction's squared error plus the variance of X, which the noise model gives; it is
subtracted. Shared noise: the snapshot was folded from these very frames, so X̂ follows some of their noise and comes too close;
subtracting alone would be tens of dB off. So only pixels count that the masks hid: the noise there never reached the snapshot.
Where masks hide nothing (density 1), how far X̂ follows the noise is measured with one more reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_decoder.followed import Change
from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_decoder.reconstruct.tiling import row_bands
from framefold_protocol.errors import InputError
from framefold_protocol.noise import NoiseModel

SIDE = 8
"""Pixels of SSIM's windows (Wang & Bovik, IEEE Signal Process. Lett. 9, 81, 2002)."""
_K1, _K2 = 0.01, 0.03
"""SSIM's constants (Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Process. 13, 600, 2004)."""
PEAK_PERCENTILE = 99.9
WORTH_A_PROBE = 0.01
"""Share of pixels that no mask hides from which on another reconstruction is spent on them."""
_SEED = 0
OVERESTIMATED = 3.0
"""Standard errors the error may come out below zero before the noise model is taken to be wrong."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AuditQuality:
    """A reconstruction against the frames themselves, their noise taken out."""

    psnr: float
    """10 log10(peak^2 / error) in dB. The error's own uncertainty is the least error that is ever taken: where it is reached,
    the frames are at least this good, and the audit group cannot tell how much better."""
    ssim: float
    """Structural similarity to the noise-free frames, -1 to 1: SSIM's terms summed over windows of 8 x 8 pixels and all frames
    before they are divided."""
    error: float
    """Mean squared error in counts^2, the noise taken out; 0 or a little below where it is too small to be seen."""
    uncertainty: float
    """Standard error of `error`, counts^2."""
    noise: float
    """Mean variance of the raw frames by the noise model, counts^2: what was taken out."""

    peak: float
    """Counts above the offset."""

    @property
    def psnr_low(self) -> float:
        """dB, were the error larger by its uncertainty."""
        return _decibels(self.peak, max(self.error, 0.0) + self.uncertainty)

    @property
    def psnr_high(self) -> float | None:
        """dB, were the error smaller by its uncertainty; None where it may be nothing."""
        least = self.error - self.uncertainty
        return _decibels(self.peak, least) if least > 0 else None

    @property
    def noise_is_overestimated(self) -> bool:
        """Whether the raw frames lie nearer to the reconstruction than the noise model allows: it is wrong, and so is this."""
        return self.error < -OVERESTIMATED * self.uncertainty


def audit(
    group: FoldedGroup,
    frames: Frames,
    raw: npt.NDArray[np.unsignedinteger],
    noise: NoiseModel,
    noise_error: float = 0.0,
    reconstruct: Callable[[FoldedGroup], Frames] | None = None,
) -> AuditQuality | None:
    """Compare a group's reconstruction with the raw frames it was folded from, both (B, H, W) in detector counts.

    `noise_error`: the relative uncertainty of the noise model's variance. `reconstruct` makes frames of a snapshot as `frames`
    were made; without it, pixels that no mask hides do not count. The peak is the 99.9 % quantile of `frames` less the offset.
    None when no pixel counts. Raises `InputError` when shapes differ.
    """
    expected = (group.coding.ratio, *group.coding.shape)
    if not frames.shape == raw.shape == expected:
        raise InputError(f"frames are {frames.shape}, raw {raw.shape}, expected {expected} for both")
    peak = max(float(np.percentile(frames[:, ::2, ::2], PEAK_PERCENTILE)) - noise.offset_counts, 1e-6)
    never_hidden = group.exposure() == group.coding.ratio
    followed = None
    if reconstruct and never_hidden.mean() > WORTH_A_PROBE:
        followed = _follow(group, frames, noise, reconstruct)
    tally = _Tally(peak)
    height, width = group.coding.shape
    for band in row_bands((-(-height // SIDE), width), group.coding.ratio * SIDE):  # of whole windows
        rows = slice(SIDE * band.start, min(SIDE * band.stop, height))
        hidden = group.coding.window(rows) == 0
        follows = np.zeros(hidden.shape, np.float32)
        if followed is not None:
            follows = np.where(never_hidden[rows], followed[:, rows], 0)
            hidden |= never_hidden[rows]
        tally.add(frames[:, rows], raw[:, rows], hidden, follows, noise)
    return tally.result(noise_error)


def _follow(
    group: FoldedGroup, frames: Frames, noise: NoiseModel, reconstruct: Callable[[FoldedGroup], Frames]
) -> npt.NDArray[np.float32]:
    """How far each pixel of the frames follows its own noise: an estimate of dX̂_t / dY, (B, H, W), right on average.

    From one more reconstruction, of the snapshot changed at random: see `followed.py`, which needs less to know less.
    """
    change = Change.of(group, noise, np.random.default_rng(_SEED))
    answer = reconstruct(change.changed()) - frames
    return np.asarray(answer * (change.counts / np.maximum(change.counts**2, 1)), np.float32)


class _Tally:
    """Sums over the bands of a group."""

    def __init__(self, peak: float) -> None:
        self._peak = peak
        self._weight = self._error = self._noise = 0.0
        self._squares = np.zeros(3)
        self._ssim = np.zeros(4)

    def add(
        self,
        frames: Frames,
        raw: npt.NDArray[np.unsignedinteger],
        counted: npt.NDArray[np.bool_],
        follows: npt.NDArray[np.float32],
        noise: NoiseModel,
    ) -> None:
        """A band (B, rows, W): its frames, where they count, and how far they follow their own noise there."""
        estimate, measured = frames - np.float64(noise.offset_counts), raw - np.float64(noise.offset_counts)
        # Linear in the counts, so that its mean is the variance's, however few the electrons.
        variance = noise.counts_per_electron * measured + noise.read_noise_counts**2
        shared = follows * variance
        errors = (estimate - measured) ** 2 - variance + 2 * shared
        weights = counted / np.maximum(counted.sum(axis=0), 1)  # every pixel counts the same, in however many frames it does
        self._weight += float(weights.sum())
        self._error += float((weights * errors).sum())
        self._noise += float((weights * variance).sum())
        self._squares += [float((weights**2 * errors**power).sum()) for power in range(3)]
        self._ssim += _ssim_terms(estimate, measured, variance, shared, counted, self._peak)

    def result(self, noise_error: float) -> AuditQuality | None:
        if not self._weight or not self._ssim.any():
            return None
        error, noise = self._error / self._weight, self._noise / self._weight
        ones, first, second = self._squares
        scatter = math.sqrt(max(second - 2 * error * first + error**2 * ones, 0.0)) / self._weight
        uncertainty = max(math.hypot(scatter, noise_error * noise), 1e-12 * self._peak**2)
        psnr = _decibels(self._peak, max(error, uncertainty))
        common_means, means, common_structure, structure = self._ssim
        ssim = common_means / means * common_structure / structure if structure > 0 else 0.0
        return AuditQuality(psnr, float(np.clip(ssim, -1.0, 1.0)), error, uncertainty, noise, self._peak)


def _decibels(peak: float, error: float) -> float:
    return 10 * math.log10(peak**2 / error)


def _ssim_terms(
    estimate: Floats, measured: Floats, variance: Floats, shared: Floats, counted: npt.NDArray[np.bool_], peak: float
) -> Floats:
    """Numerators and denominators of SSIM's two factors, each summed over windows and frames, (4,): what noise adds to the
    moments of `measured` is subtracted. A single window's quotient would be ruled by what noise is left."""
    counts = _windows(counted)  # (B, rows, columns) of windows
    seen = counts > 1
    counts = counts[seen]

    def mean(values: Floats) -> Floats:
        return np.asarray(_windows(values * counted)[seen] / counts)

    x, y, noise = mean(estimate), mean(measured), mean(variance)
    unbiased = counts / (counts - 1)
    xx, yy, xy = (unbiased * mean(product) for product in (estimate**2, measured**2, estimate * measured))
    xx, yy, xy = xx - unbiased * x * x, yy - unbiased * y * y - noise, xy - unbiased * x * y - mean(shared)
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    terms = (2 * x * y + c1, x * x + y * y - noise / counts + c1, 2 * xy + c2, xx + yy + c2)
    return np.array([term.sum() for term in terms])


def _windows(images: npt.NDArray[np.generic]) -> Floats:
    """Sums over windows of 8 x 8 pixels, or the whole of a smaller side; the rest at the right and bottom is left out."""
    count, height, width = images.shape
    down, across = (min(SIDE, side) for side in (height, width))
    rows, columns = height // down, width // across
    windows = images[:, : rows * down, : columns * across].reshape(count, rows, down, columns, across)
    return np.asarray(windows.sum(axis=(2, 4), dtype=np.float64))
