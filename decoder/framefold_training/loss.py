"""What nets are asked for: the clean frames, or, where nobody has those, the raw frames at pixels that the masks hid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from framefold_training.data import Batch
from framefold_training.tiers import AnyNet

Loss = Callable[[AnyNet, Batch], Tensor]
"""A net and what it is to learn from -> a scalar, the mean over samples."""

EARLY_WEIGHT = 0.3
"""Weight in the loss of the estimates before the last, together."""


def relative_loss(net: AnyNet, batch: Batch) -> Tensor:
    """Root mean square error of each clip over that of the plain mean of its frames, averaged; all estimates weighed."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=batch.noise.is_cuda):  # CPUs are ten times slower in bf16
        estimates = net.estimates(*batch.inputs.values())
    truth = batch.frames
    motion = ((truth.mean(1, keepdim=True) - truth) ** 2).mean((1, 2, 3))
    # a quarter of the mean's shot noise: a good denoiser of a still scene gets about there
    rival = motion + 0.25 * batch.noise * truth.mean((1, 2, 3)) / truth.shape[1] + 1e-6
    *early, last = [(((x.float() - truth) ** 2).mean((1, 2, 3)) / rival).sqrt().mean() for x in estimates]
    return last + sum(EARLY_WEIGHT / len(early) * one for one in early)


def hidden_loss(net: AnyNet, batch: Batch) -> Tensor:
    """Root mean square difference to the raw frames where masks hid them, over their shot noise, averaged over samples."""
    *_, frames = net.estimates(*batch.inputs.values())
    return hidden_misfit(frames.float(), batch).sqrt().mean()


def hidden_misfit(frames: Tensor, batch: Batch) -> Tensor:
    """(n,) mean squared difference to what is told where masks are 0, over the noise there."""
    hidden = 1 - batch.masks
    noise = batch.noise * (hidden * batch.frames).sum((1, 2, 3)).clamp(min=1e-6)
    return (hidden * (frames - batch.frames) ** 2).sum((1, 2, 3)) / noise
