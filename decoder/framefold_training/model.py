"""The nets: unrolled projections onto the snapshot, each followed by a small 2-D net over the whole group at once.

Notable: a group is K temporal cosines, so one set of weights takes any B and cost does not grow with B; each stage first moves
the estimate towards the snapshot (`projection`), each cosine by a step that grows with dose, then adds what its net finds at a
half, a quarter and an eighth of the resolution; stages hand their features on. Everything is relative to a local mean and in
units of one frame's noise, so the net is nearly equivariant to brightness and dose. Inputs and output as
`framefold_protocol.model` tells; the sizes that ship are in `tiers`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framefold_protocol.model import REACH
from framefold_training.blocks import quiet, residual_blocks
from framefold_training.context import CHANNELS, context, local_mean
from framefold_training.projection import SMALLEST, analysed, back_projected, cosines, snapshot_of, synthesised

MULTIPLE = 8
"""H and W must be multiples of this: half resolution, halved twice more."""

QUIETEST = 0.03
"""Least noise of one frame's pixel that features are measured in, relative to the level: 1000 e-/px."""


@dataclass(frozen=True)
class NetSpec:
    """The size of a net. The checkpoint holds it, so that a net can be built again."""

    modes: int = 16
    """K, temporal cosines."""
    stages: int = 3
    widths: tuple[int, int, int] = (48, 96, 96)
    """Channels at a half, a quarter and an eighth of the resolution."""
    blocks: tuple[int, int, int] = (1, 1, 1)
    """Residual blocks there, at the half after coming up."""
    halo: int = 48
    """Pixels at a tile's edge to throw away; `export` tells what they leave."""


class Stage(nn.Module):
    """One change of the estimate: a step towards the snapshot, and what the net adds at half resolution."""

    def __init__(self, spec: NetSpec, first: bool) -> None:
        super().__init__()
        half, quarter, eighth = spec.widths
        self.head = nn.Conv2d(spec.modes, half, 2, stride=2)
        self.recall = None if first else nn.Conv2d(spec.modes, half, 2, stride=2, bias=False)
        self.down = nn.Conv2d(half, quarter, 2, stride=2)
        self.deep = residual_blocks(quarter, spec.blocks[1])
        self.down_again = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.deepest = residual_blocks(eighth, spec.blocks[2])
        self.up_again = nn.Conv2d(eighth, quarter, 1)
        self.up = nn.Conv2d(quarter, half, 1)
        self.after = residual_blocks(half, spec.blocks[0])
        self.tail = nn.ConvTranspose2d(half, spec.modes, 2, stride=2)
        nn.init.normal_(self.tail.weight, std=1e-3)
        quiet(self.tail)
        self.step_offset = nn.Parameter(torch.zeros(spec.modes, 1, 1))
        self.step_slope = nn.Parameter(torch.full((spec.modes, 1, 1), 0.5))

    def forward(self, back: Tensor, rest: Tensor | None, known: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What is missing and what is there (n, K, H, W), what is known, noise (n, 1, 1, 1) -> change, and own features."""
        hidden = self.head(back) + known
        if self.recall is not None:
            hidden = hidden + self.recall(rest)
        deep = self.deep(functional.relu(self.down(hidden)))
        deep = deep + _doubled(self.up_again(self.deepest(functional.relu(self.down_again(deep)))))
        hidden = self.after(hidden + _doubled(self.up(deep)))
        step = torch.sigmoid(self.step_offset - self.step_slope * torch.log(30 * noise))
        return step * back + self.tail(hidden).float(), hidden


class Net(nn.Module):
    """snapshots, exposures (n, SNAPSHOTS, H, W), masks (n, B, H, W), noise (n,) -> frames (n, B, H, W), float32, any B."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.context = nn.Conv2d(CHANNELS, spec.widths[0], 4, stride=2, padding=1)
        self.stages = nn.ModuleList(Stage(spec, k == 0) for k in range(spec.stages))

    def forward(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> Tensor:
        """The frames after the last stage, divided by the level."""
        return self._estimates(snapshots, exposures, masks, noise, (self.spec.stages - 1,))[0]

    def estimates(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> list[Tensor]:
        """The frames after every stage: training weighs them all."""
        return self._estimates(snapshots, exposures, masks, noise, tuple(range(self.spec.stages)))

    def _estimates(
        self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor, wanted: tuple[int, ...]
    ) -> list[Tensor]:
        snapshot, exposure = (images[:, REACH : REACH + 1] for images in (snapshots, exposures))
        noise = noise.clamp(1e-7, 1e4)[:, None, None, None]
        base = local_mean(snapshot, exposure)
        basis = cosines(masks.shape[1], self.spec.modes, snapshots)
        codes = analysed(masks, basis)
        norm = (codes * codes).sum(1, keepdim=True).clamp(min=SMALLEST)
        unit = noise.sqrt().clamp(min=QUIETEST)
        known = self.context(context(snapshots, exposures, base, noise, masks.shape[1]) / unit)
        unexplained = (snapshot - exposure * base) / unit
        rest, estimates = None, []  # the coefficients without the local mean, in units of the noise
        for k, stage in enumerate(self.stages):
            left = unexplained if rest is None else unexplained - snapshot_of(rest, codes)
            back = back_projected(left, codes, norm)
            change, known = stage(back, rest, known, noise)
            rest = change if rest is None else rest + change
            if k in wanted:
                estimates.append(base + synthesised(rest, basis * unit[:, 0]))
        return estimates


def _doubled(image: Tensor) -> Tensor:
    """Every pixel twice, down and across."""
    return functional.interpolate(image, scale_factor=2, mode="nearest")
