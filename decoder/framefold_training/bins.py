"""What the near-lossless coder leaves of sums, in torch: `framefold_protocol.anscombe` for a batch.

Each sample has its own step. In electrons, so the gain is 1 and there is no offset.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 1e-3
"""Steps below it leave sums as they are."""


def binned(sums: Tensor, read_variance: Tensor, step: Tensor) -> Tensor:
    """Sums (n, SNAPSHOTS, H, W) in electrons -> the centres of bins `step` (n,) standard deviations wide; 0: as they are.

    `read_variance` (n,) is that of the sums; where it is 0, electrons are counted and come back whole.
    """
    read, width = (one[:, None, None, None] for one in (read_variance, step.clamp(min=EXACT)))
    dark = 0.375 + read
    narrowest = torch.maximum(dark, width**-2)  # below it a bin would be narrower than an electron: a straight line
    sigma, knee = narrowest.sqrt(), narrowest - dark
    start = knee / (width * sigma)
    root = torch.maximum(sums + dark, narrowest).sqrt()
    bins = torch.where(sums <= knee, sums / (width * sigma), start + 2 / width * (root - sigma)).round()
    root = sigma + (bins - start) * width / 2
    centres = torch.where(bins <= start, bins * width * sigma, root**2 - dark)
    centres = torch.where(read > 0, centres, centres.round().clamp(min=0))
    return torch.where(step[:, None, None, None] >= EXACT, centres, sums)
