"""Draws a scene as expected intensities relative to the mean dose.

Image formation is linear (a weak object: contrasts of columns, particle bodies and support add up), so the detector's point
spread, a Gaussian of `MTF_SIGMA` pixels, need not be convolved frame by frame: it is folded into the columns' widths and
applied to the support once. No noise and no motion here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_protocol.compiled import compiled
from framefold_simulator.scene import Scene

MTF_SIGMA = 0.6
"""Standard deviation of the detector's point spread in pixels: a modulation transfer of 17 % at Nyquist."""

Image = npt.NDArray[np.float32]


def support_texture(shape: tuple[int, int], seed: int) -> Image:
    """Amorphous support as the detector images it: periodic (H, W), mean 1.

    White noise through a contrast transfer function (first zero near 0.2 cycles/px), its envelope and the detector's MTF, on a
    slowly varying thickness.
    """
    rng = np.random.default_rng([seed, 1])
    white = np.fft.rfft2(rng.standard_normal(shape))
    q2 = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1])[None, :] ** 2  # (cycles/px)²
    transfer = np.sin(np.pi * q2 / 0.2**2 + 0.1) * np.exp(-q2 / 0.18**2)
    mtf = np.exp(-2.0 * np.pi**2 * MTF_SIGMA**2 * q2)
    grain = _unit_variance(white * transfer * mtf, shape)
    thickness = _unit_variance(white * np.exp(-q2 / (2.0 * 0.006**2)), shape)
    texture = 1.0 + 0.045 * np.clip(grain, -3.0, 3.0) + 0.03 * np.clip(thickness, -2.0, 2.0)
    return texture.astype(np.float32)


def _unit_variance(spectrum: npt.NDArray[np.complex128], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=shape)
    unit: npt.NDArray[np.float64] = field / max(float(field.std()), 1e-12)
    return unit


def render(scene: Scene, support: Image, frame: int) -> Image:
    """Relative intensity (H, W) of `frame` at constant beam current, near 1 where nothing but support lies."""
    image = np.empty_like(support)
    shift = scene.stage_shift(frame)
    _shift_periodic(support, float(shift[0]), float(shift[1]), image)
    columns = scene.columns(frame)
    for width, peak in ((columns.width, columns.peak), (columns.body_width, columns.body_peak)):
        imaged = np.sqrt(width**2 + MTF_SIGMA**2)
        _add_gaussians(columns.x, columns.y, imaged, peak * (width / imaged) ** 2, image)
    return image


def mean_intensity(scene: Scene, frame: int) -> float:
    """Mean of what `render` draws, without drawing it: a Gaussian on a torus sums to 2π sigma² times its peak."""
    columns = scene.columns(frame)
    total = 2.0 * np.pi * np.sum(columns.peak * columns.width**2 + columns.body_peak * columns.body_width**2)
    return 1.0 + float(total) / (scene.shape[0] * scene.shape[1])


@compiled()
def _shift_periodic(texture: Image, x: float, y: float, out: Image) -> None:
    """Move a periodic texture by (x, y) pixels, bilinear between them."""
    height, width = texture.shape
    x0, y0 = int(np.floor(-x)), int(np.floor(-y))
    fx, fy = np.float32(-x - x0), np.float32(-y - y0)
    one = np.float32(1.0)
    for i in range(height):
        above, below = texture[(i + y0) % height], texture[(i + y0 + 1) % height]
        left = x0 % width
        for j in range(width):
            right = left + 1
            if right == width:
                right = 0
            top = above[left] * (one - fx) + above[right] * fx
            bottom = below[left] * (one - fx) + below[right] * fx
            out[i, j] = top * (one - fy) + bottom * fy
            left = right


@compiled()
def _add_gaussians(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
    peak: npt.NDArray[np.float64],
    image: Image,
) -> None:
    """Add Gaussians, each the product of one across and one down, cut off at 3.5 sigma, on a torus."""
    height, width = image.shape
    longest = 2 * int(np.ceil(3.5 * sigma.max())) + 1 if len(sigma) else 0
    across = np.empty(longest, dtype=np.float32)
    place = np.empty(longest, dtype=np.int64)
    for n in range(len(x)):
        if peak[n] == 0.0:
            continue
        half = int(np.ceil(3.5 * sigma[n]))
        x0, y0 = int(np.floor(x[n] + 0.5)) - half, int(np.floor(y[n] + 0.5)) - half
        scale = -0.5 / sigma[n] ** 2
        for j in range(2 * half + 1):
            across[j] = np.exp(scale * (x0 + j - x[n]) ** 2)
            place[j] = (x0 + j) % width
        for i in range(2 * half + 1):
            down = np.float32(peak[n] * np.exp(scale * (y0 + i - y[n]) ** 2))
            row = image[(y0 + i) % height]
            for j in range(2 * half + 1):
                row[place[j]] += down * across[j]
