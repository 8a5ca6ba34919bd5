"""What every net here is told of a snapshot besides the masks: its local mean, its neighbours, how noisy each is, and B."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from framefold_protocol.model import REACH, SNAPSHOTS

CHANNELS = 2 * SNAPSHOTS + 2
LARGEST_RATIO = 32


def local_mean(snapshot: Tensor, exposure: Tensor) -> Tensor:
    """Mean per exposure over 5x5 pixels, (n, 1, H, W); a window with nothing exposed is dark."""
    return _smooth(snapshot) / _smooth(exposure).clamp(min=0.04)  # 1 / 25: one exposure in the window


def context(snapshots: Tensor, exposures: Tensor, base: Tensor, noise: Tensor, ratio: int) -> Tensor:
    """(n, CHANNELS, H, W), the same for all stages.

    The snapshots as means per exposed frame against the local mean (0 where nothing was exposed), their standard
    deviations at the local brightness (an unexposed pixel counts as a sixteenth of a frame), the exposed share, and B.
    """
    means = (snapshots / exposures.clamp(min=1) - base) * (exposures > 0)
    deviations = torch.sqrt(noise * base.clamp(min=0.02) / exposures.clamp(min=0.0625))
    share = exposures[:, REACH : REACH + 1] / ratio
    return torch.cat([means, deviations, share, torch.ones_like(share) * ratio / LARGEST_RATIO], 1)


def _smooth(x: Tensor) -> Tensor:
    """Mean over 5x5 pixels, (n, 1, H, W); beyond the edge counts as zero, which ratios of two such means cancel."""
    across = functional.avg_pool2d(x, (1, 5), 1, (0, 2))  # one axis after the other: ONNX Runtime is far faster so
    return functional.avg_pool2d(across, (5, 1), 1, (2, 0))
