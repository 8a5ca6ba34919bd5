"""BM3D, the classic denoiser, on sums of Poisson counts: stabilise the variance, denoise, transform back without bias.

K. Dabov et al., IEEE Trans. Image Process. 16, 2080 (2007), in its authors' own package `bm3d`, which is free for research only
and takes seconds for a frame of 192 x 192 pixels; the closed form of the inverse is M. Mäkitalo's and A. Foi's, ibid. 20, 2697
(2011).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandwidth_parts.rivals import Unavailable

Pixels = npt.NDArray[np.float32]


def bm3d(total: npt.NDArray[np.unsignedinteger], frames: int) -> Pixels:
    """The mean frame (H, W) that the `total` counts of `frames` frames tell of. Raises `Unavailable` without the package."""
    try:
        from bm3d import bm3d as denoised
    except ImportError as error:
        raise Unavailable("bm3d is not installed: pip install bm3d") from error
    stable = denoised(2 * np.sqrt(total + 3 / 8), sigma_psd=1.0)
    d = np.maximum(stable, 2 * np.sqrt(3 / 8))
    counts = d**2 / 4 + np.sqrt(3 / 2) / (4 * d) - 11 / (8 * d**2) + 5 * np.sqrt(3 / 2) / (8 * d**3) - 1 / 8
    return (np.maximum(counts, 0) / frames).astype(np.float32)
