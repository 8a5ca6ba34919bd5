"""How near frames come to the truth: PSNR, SSIM, places of atomic columns, and the detail that Fourier ring correlation finds.

All of one group of frames, (B, H, W) float32 in electrons, against the expected electrons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Pixels = npt.NDArray[np.float32]

COLUMN_SIGMA = 1.5
"""Pixels: a column's own width, so that smoothing by it is the matched filter."""
COLUMN_REACH = 3
"""Pixels a column may be found away from its true place."""
FRC_THRESHOLD = 0.5


def scores(frames: Pixels, truth: Pixels, peak: float, columns: tuple[Pixels, ...] | None) -> dict[str, Any]:
    """PSNR (dB) and SSIM with `peak` as the range, `frc_px`, and where there are columns `column_px`."""
    error = float(np.mean((frames.astype(np.float64) - truth) ** 2))
    found: dict[str, Any] = {
        "psnr": float(10 * np.log10(peak**2 / max(error, 1e-12))),
        "ssim": float(np.mean([ssim(*pair, peak) for pair in zip(frames, truth, strict=True)])),
        "frc_px": frc_resolution(frames, truth),
    }
    if columns is not None:
        found["column_px"] = column_error(frames, truth, columns)
    return found


def ssim(image: Pixels, truth: Pixels, peak: float) -> float:
    """Structural similarity of two (H, W): Wang et al., IEEE Trans. Image Process. 13, 600 (2004), Gaussian of 1.5 pixels."""
    x, y = image.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y, xx, yy, xy = (gaussian_filter(one, 1.5, truncate=3.5) for one in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    covariance, variances = xy - mean_x * mean_y, xx + yy - mean_x**2 - mean_y**2
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return float(similar.mean())


def frc_resolution(frames: Pixels, truth: Pixels) -> float:
    """Period in pixels of the finest detail up to which frames and truth correlate by half or more; 2 is the pixel grid's.

    Fourier ring correlation (Saxton & Baumeister, J. Microsc. 127, 127 (1982)) over all frames, rings averaged by threes.
    """
    side = min(frames.shape[1:])
    window = np.hanning(side)[:, None] * np.hanning(side)
    one, other = (np.fft.rfft2((stack[:, :side, :side] - stack.mean()) * window) for stack in (frames, truth))
    q = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))  # cycles per pixel
    ring = np.rint(q * side).astype(int)
    sums = [
        np.convolve(np.bincount(ring.ravel(), part.sum(axis=0).ravel())[: side // 2 + 1], np.ones(3), "same")
        for part in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    ]
    correlation = sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-12))
    below = np.flatnonzero(correlation[2:] < FRC_THRESHOLD)
    return float(side / (below[0] + 2)) if len(below) else 2.0


def column_error(frames: Pixels, truth: Pixels, columns: tuple[Pixels, ...]) -> float | None:
    """RMS distance in pixels between where columns are found in the frames and in the truth; None without columns."""
    squares = [np.sum((_places(a, c) - _places(b, c)) ** 2, 1) for a, b, c in zip(frames, truth, columns, strict=True)]
    found = np.concatenate(squares)
    return float(np.sqrt(found.mean())) if len(found) else None


def _places(image: Pixels, columns: Pixels) -> Pixels:
    """(N, 2) y, x of the extremum nearest the expected places: the highest pixel of the smoothed image, then a parabola."""
    smooth = np.pad(gaussian_filter(image, COLUMN_SIGMA), COLUMN_REACH + 1, mode="edge")
    reach = np.arange(-COLUMN_REACH, COLUMN_REACH + 1)
    y, x = np.rint(columns[:, :2].T).astype(int) + COLUMN_REACH + 1
    sign = columns[:, 2, None, None]
    about = sign * smooth[y[:, None, None] + reach[:, None], x[:, None, None] + reach]  # (N, 7, 7)
    highest = about.reshape(len(about), -1).argmax(axis=1) if len(about) else np.zeros(0, int)
    dy, dx = np.divmod(highest, len(reach))
    places = np.stack([y + reach[dy], x + reach[dx]], axis=1)
    parts = [_parabola(smooth, places, step) for step in ((1, 0), (0, 1))]
    return (places - COLUMN_REACH - 1 + np.stack(parts, axis=1)).astype(np.float32)


def _parabola(image: Pixels, places: npt.NDArray[np.intp], step: tuple[int, int]) -> npt.NDArray[np.floating]:
    """Where, within half a pixel, the parabola through three pixels along `step` has its extremum."""
    before, here, after = (image[places[:, 0] + k * step[0], places[:, 1] + k * step[1]] for k in (-1, 0, 1))
    curvature = before - 2 * here + after
    safe = np.where(np.abs(curvature) > 1e-9, curvature, 1.0)
    return np.clip(np.where(np.abs(curvature) > 1e-9, (before - after) / (2 * safe), 0.0), -0.5, 0.5)
