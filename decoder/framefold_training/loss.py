"""What nets are asked for: the clean frames, or, where nobody has those, the raw frames at pixels that the masks hid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from framefold_protocol.processor import multiplies_bfloat16
from framefold_training.data import Batch
from framefold_training.tiers import AnyNet

Loss = Callable[[AnyNet, Batch], Tensor]
"""A net and what it is to learn from -> a scalar, the mean over samples."""

EARLY_WEIGHT = 0.3
"""Weight in the loss of the estimates before the last, together."""

SNAPSHOT_WEIGHT = 2.0
"""Weight in the loss of what the last estimate gets wrong of the snapshot itself, which is what chi2 sees, unless another is
asked for."""


def relative_loss(net: AnyNet, batch: Batch) -> Tensor:
    """Root mean square error of each clip over that of the plain mean of its frames, averaged; all estimates weighed."""
    return _relative(_estimates(net, batch), batch)


def visible_loss(net: AnyNet, batch: Batch, weight: float = SNAPSHOT_WEIGHT) -> Tensor:
    """`relative_loss`, and beside it the error of the snapshot that the frames would fold to, where it is not small against its
    noise: what moves fast at a high dose is hopeless next to averaging's error, but not next to the noise. `weight` is that
    of this part."""
    estimates = _estimates(net, batch)
    visible = (1 + snapshot_error(estimates[-1], batch)).sqrt().mean() - 1
    return _relative(estimates, batch) + weight * visible


def _estimates(net: AnyNet, batch: Batch) -> list[Tensor]:
    device = batch.noise.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda" or multiplies_bfloat16()):
        return [frames.float() for frames in net.estimates(*batch.inputs.values())]


def _relative(estimates: list[Tensor], batch: Batch) -> Tensor:
    truth = batch.frames
    motion = ((truth.mean(1, keepdim=True) - truth) ** 2).mean((1, 2, 3))
    # a quarter of the mean's shot noise: a good denoiser of a still scene gets about there
    rival = motion + 0.25 * batch.noise * truth.mean((1, 2, 3)) / truth.shape[1] + 1e-6
    *early, last = [(((frames - truth) ** 2).mean((1, 2, 3)) / rival).sqrt().mean() for frames in estimates]
    return last + sum(EARLY_WEIGHT / len(early) * one for one in early)


def snapshot_error(frames: Tensor, batch: Batch) -> Tensor:
    """(n,) mean squared error of the frames' snapshot over its noise; the best frames' is the share of it that they follow."""
    error = (batch.masks * (frames - batch.frames)).sum(1)
    variance = batch.noise[:, None, None] * (batch.masks * batch.frames).sum(1).clamp(min=1e-3)
    return (error**2 / variance).mean((1, 2))


def hidden_loss(net: AnyNet, batch: Batch) -> Tensor:
    """Root mean square difference to the raw frames where masks hid them, over their shot noise, averaged over samples."""
    *_, frames = net.estimates(*batch.inputs.values())
    return hidden_misfit(frames.float(), batch).sqrt().mean()


def hidden_misfit(frames: Tensor, batch: Batch) -> Tensor:
    """(n,) mean squared difference to what is told where masks are 0, over the noise there."""
    hidden = 1 - batch.masks
    noise = batch.noise * (hidden * batch.frames).sum((1, 2, 3)).clamp(min=1e-6)
    return (hidden * (frames - batch.frames) ** 2).sum((1, 2, 3)) / noise
