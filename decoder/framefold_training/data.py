"""Training batches: crops of clean movies at a random dose -> folded groups, as `framefold_protocol.model` feeds a net.

Notable: everything happens on the training device, so that a GPU is not starved by the CPU; batch k of a seed is a pure
function of (seed, k) on one kind of device. A sum of Poisson counts is Poisson: snapshots are drawn directly. Some samples come
from an integrating detector, whose read noise adds to every exposure; some snapshots come in the near-lossless coder's bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_training.bins import binned
from framefold_training.dice import Dice
from framefold_training.masks import MaskMix, draw
from framefold_training.pool import PoolSpec

DOSE_RANGE = (2.0, 300.0)
"""Mean e-/px of the training clips, log-uniform."""

READ_NOISE_RANGE = (0.1, 3.0)
"""Electrons, r.m.s. per exposure of an integrating detector, log-uniform."""

INTEGRATING_SHARE = 0.25

BINNED_SHARE = 0.5
STEP_RANGE = (0.25, 3.0)
"""Width of the near-lossless coder's bins in standard deviations, uniform; `BINNED_SHARE` of the samples come in bins."""

STREAM_END_SHARE = 0.05
"""Share of samples that lack every snapshot before (or after) this one; as many lack all but the nearest. This one replaces
them."""

NEAREST_SHARE = 0.1
"""Share of samples that lack all but the nearest on both sides: what there is of a short scene."""


@dataclass(frozen=True)
class DataSpec:
    """What a run trains on."""

    ratios: tuple[int, ...] = (20,)
    """B, one of them per batch, the first three in most batches."""
    size: int = 96
    """Side of the crops in pixels."""
    batch: int = 8
    seed: int = 0
    masks: MaskMix = field(default_factory=MaskMix)
    pool: PoolSpec = field(default_factory=PoolSpec)


@dataclass(frozen=True)
class Batch:
    """What a net is fed, and what it should answer; float32 on one device, scaled by each sample's level."""

    snapshots: Tensor  # (n, SNAPSHOTS, H, W)
    exposures: Tensor  # (n, SNAPSHOTS, H, W)
    masks: Tensor  # (n, B, H, W)
    noise: Tensor  # (n,)
    frames: Tensor  # (n, B, H, W) the truth

    def __len__(self) -> int:
        return len(self.noise)

    def split(self, count: int) -> list[Batch]:
        """In `count` parts, or as many as there are samples."""
        return [Batch(*one) for one in zip(*(tensor.chunk(count) for tensor in self.tensors), strict=True)]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, in order."""
        return tuple(getattr(self, f.name) for f in fields(self))

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the net is fed, by name and in order."""
        return {f.name: getattr(self, f.name) for f in fields(self)[:-1]}


def fold(
    clips: Tensor,
    masks: Tensor,
    exposures: Tensor,
    dice: Dice,
    read_noise: Tensor,
    level_factor: Tensor,
    step_sigma: Tensor | None = None,
) -> Batch:
    """Samples of clean clips (n, SNAPSHOTS * B, H, W) of expected electrons, each group folded by `masks` (n, B, H, W).

    `exposures` (n, SNAPSHOTS, H, W) are of all groups; where a neighbour's differs from the masks' its sum is scaled to it.
    `read_noise` (n,) is in electrons, 0 for counting. `level_factor` (n,) multiplies the level, which at run time is that of a
    larger field than a training crop. `step_sigma` (n,) is the width of the bins that sums are coded in; 0 or None: exact.
    """
    n, _, h, w = exposures.shape
    groups = clips.reshape(n, SNAPSHOTS, -1, h, w)
    own = masks.sum(1)
    sums = torch.stack([(group * masks).sum(1) for group in groups.unbind(1)], 1)
    sums = torch.where(exposures == own[:, None], sums, groups.mean(2) * exposures)
    snapshots = torch.poisson(sums.detach(), generator=dice.noise)
    grain = torch.randn(snapshots.shape, generator=dice.noise, device=dice.device)
    snapshots = snapshots + read_noise[:, None, None, None] * exposures.sqrt() * grain
    if step_sigma is not None:
        snapshots = binned(snapshots, read_noise**2 * exposures.amin((1, 2, 3)), step_sigma)
    if sums.requires_grad:  # masks are learned: noise and bins count as if they came from elsewhere
        snapshots = sums + (snapshots - sums).detach()
    level = (snapshots[:, REACH].sum((1, 2)) / own.sum((1, 2)).clamp(min=1)).clamp(min=1e-3) * level_factor
    scale = level[:, None, None, None]
    noise = (level + read_noise**2) / level**2  # as `framefold_protocol.model.relative_noise`
    if step_sigma is not None:
        noise = noise * (1 + step_sigma**2 / 12)  # as `NoiseModel.in_bins`
    return Batch(snapshots / scale, exposures, masks, noise, groups[:, REACH] / scale)


def make_batch(spec: DataSpec, movies: Tensor, step: int, tile: Tensor | None = None) -> Batch:
    """Batch number `step` from `movies` (slots, frames, side, side), on their device.

    `tile` (B, h, w), repeated, takes the place of the spec's masks, and may be one that is learned.
    """
    dice, n = Dice(movies.device, spec.seed, step), spec.batch
    ratio = _ratio(spec.ratios, dice)
    luck = dice.shares(9, n).to(dice.device)
    clips = _crops(movies, n, SNAPSHOTS * ratio, spec.size, dice)
    dose = _log_uniform(luck[0], DOSE_RANGE)
    clips *= (dose / clips.mean((1, 2, 3)))[:, None, None, None]
    read_noise = _log_uniform(luck[1], READ_NOISE_RANGE) * (luck[2] < INTEGRATING_SHARE)
    masks, exposures = draw(spec.masks, n, ratio, spec.size, dice) if tile is None else _tiled(tile, n, spec.size)
    narrow, wide = STEP_RANGE
    step_sigma = (narrow + (wide - narrow) * luck[6]) * (luck[7] < BINNED_SHARE)
    batch = fold(clips, masks, exposures, dice, read_noise, torch.exp(1.4 * luck[3] - 0.7), step_sigma)
    for side, lot in ((-1, luck[4]), (1, luck[5])):
        for distance in range(1, REACH + 1):
            missing, place = lot < STREAM_END_SHARE * distance, REACH + side * distance
            if distance > 1:
                missing = missing | (luck[8] < NEAREST_SHARE)
            for images in (batch.snapshots, batch.exposures):
                images[:, place] = torch.where(missing[:, None, None], images[:, REACH], images[:, place])
    return batch


def _ratio(ratios: tuple[int, ...], dice: Dice) -> int:
    """The first of them in half of the batches, one of the first three in a quarter, any in the rest."""
    kind, which = dice.shares(2).tolist()
    choices = ratios[:1] if kind < 0.5 else ratios[:3] if kind < 0.75 else ratios
    return choices[int(which * len(choices))]


def _tiled(tile: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Masks (n, B, size, size) and exposures (n, SNAPSHOTS, size, size) of groups with the same tile."""
    down, across = (-(-size // side) for side in tile.shape[1:])
    masks = tile.repeat(1, down, across)[None, :, :size, :size].expand(count, -1, -1, -1)
    return masks, masks.sum(1, keepdim=True).detach().repeat(1, SNAPSHOTS, 1, 1)


def _log_uniform(luck: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = map(math.log, bounds)
    return torch.exp(low + (high - low) * luck)


def _crops(movies: Tensor, count: int, frames: int, size: int, dice: Dice) -> Tensor:
    """Random pieces (count, frames, size, size) float32 of random movies, turned, mirrored or reversed at random."""
    slots, *have = movies.shape
    free = torch.tensor([slots, *(a - b + 1 for a, b in zip(have, (frames, size, size), strict=True))])
    places = (dice.shares(count, 4) * free).long().tolist()
    crops = torch.empty(count, frames, size, size, device=movies.device)
    for crop, (slot, t, y, x) in zip(crops, places, strict=True):
        *flips, swap = dice.below(2, 4)
        clip = movies[slot, t : t + frames, y : y + size, x : x + size].flip([axis for axis in range(3) if flips[axis]])
        crop.copy_(clip.transpose(1, 2) if swap else clip)
    return crops
