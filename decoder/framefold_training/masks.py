"""Random coding masks for training: single families and 64x64 block maps of several.

Notable: one order of the frames per pixel gives all balanced families at once (a family of k ones takes the first k), and any
permutation of the frames of such an order is another; so one order is sorted per B, and every sample cuts, mirrors and permutes
it. Which bits a `MaskSpec` means is `framefold_protocol.masks`'s; nets see masks as an input and learn no particular ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from framefold_protocol.coding import BLOCK
from framefold_protocol.masks import MaskKind
from framefold_protocol.model import SNAPSHOTS
from framefold_training.dice import Dice


@dataclass(frozen=True)
class Family:
    """Masks as a `MaskSpec` tells them, without seed and ratio."""

    kind: MaskKind
    density: float

    def ones(self, ratio: int) -> int:
        """Ones per pixel of the balanced kinds."""
        if self.kind == "ones":
            return ratio
        return 1 if self.kind == "one-hot" else max(1, int(self.density * ratio + 0.5))


@dataclass(frozen=True)
class MaskMix:
    """What share of the samples is folded by what. The rest are single `families`, in turn of their `shares`."""

    families: tuple[Family, ...] = (
        Family("balanced", 0.25),
        Family("balanced", 0.5),
        Family("ones", 1.0),
        Family("one-hot", 0.25),
    )
    shares: tuple[float, ...] = (0.5, 0.2, 0.2, 0.1)
    mixed: float = 0.4
    """Share of the samples with a block map of all families."""
    random: float = 0.05
    """Share of the samples with independent random bits of density 0.25."""


def draw(mix: MaskMix, count: int, ratio: int, size: int, dice: Dice) -> tuple[Tensor, Tensor]:
    """Masks (n, B, size, size) of {0, 1}, float32, of the middle group, and exposures (n, SNAPSHOTS, size, size) of all groups.

    Neighbouring groups share families and bits; their block maps differ in half of the mixed samples.
    """
    order = _order(ratio, max(128, size), dice.device)
    masks = torch.empty(count, ratio, size, size, device=dice.device)
    exposures = torch.empty(count, SNAPSHOTS, size, size, device=dice.device)
    for i, (kind, changed) in enumerate(dice.shares(count, 2).tolist()):
        if kind < mix.random:
            masks[i] = torch.rand(ratio, size, size, generator=dice.noise, device=dice.device) < 0.25
            exposures[i] = masks[i].sum(0)
            continue
        mixed = kind < mix.random + mix.mixed
        maps = [_ones(mix, ratio, size, mixed, dice) for _ in range(SNAPSHOTS if mixed and changed < 0.5 else 1)]
        exposures[i] = torch.stack(maps).to(dice.device)
        frames = torch.randperm(ratio, generator=dice.host).to(dice.device)
        masks[i] = _cut(order, size, dice)[frames] < exposures[i, len(maps) // 2]
    return masks, exposures


def _ones(mix: MaskMix, ratio: int, size: int, mixed: bool, dice: Dice) -> Tensor:
    """Ones of every pixel, (size, size) uint8 on the host: of one family, or of a family for every block."""
    choices = torch.tensor([family.ones(ratio) for family in mix.families], dtype=torch.uint8)
    across = -(-size // BLOCK) + 1 if mixed else 1
    blocks = choices[torch.multinomial(torch.tensor(mix.shares), across * across, True, generator=dice.host)]
    if not mixed:
        return blocks.expand(size, size)
    y, x = dice.below(BLOCK, 2)
    spread = blocks.reshape(across, across).repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return spread[y : y + size, x : x + size]


@cache
def _order(ratio: int, size: int, device: torch.device) -> Tensor:
    """Rank of every frame at every pixel, (B, size, size) uint8, from fixed random keys."""
    keys = torch.rand(size, size, ratio, generator=torch.Generator().manual_seed(ratio))
    ranks = keys.argsort(-1).argsort(-1).to(torch.uint8)
    return ranks.permute(2, 0, 1).contiguous().to(device)


def _cut(order: Tensor, size: int, dice: Dice) -> Tensor:
    """A random window (B, size, size), cyclic, mirrored at random."""
    flips = [axis for axis, one in enumerate(dice.below(2, 2), 1) if one]
    return order.roll(dice.below(order.shape[1], 2), (1, 2))[:, :size, :size].flip(flips)
