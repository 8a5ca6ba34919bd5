"""The net: three unrolled projections onto the snapshot, each followed by a small 2-D net over all B frames at once.

Notable: the frames are channels at half resolution (PixelUnshuffle), with one level at a quarter inside each stage for reach;
every stage first moves the estimate towards the snapshot (generalised alternating projection, Liao, Li & Carin 2014) by a step
that grows with dose, then adds what its net finds; stages hand their features on. Everything is relative to a local mean, so
the net is nearly equivariant to brightness. Inputs and output as `framefold_protocol.model` tells. No training here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 4
"""H and W must be multiples of this: half resolution, halved once more."""


@dataclass(frozen=True)
class NetSpec:
    """The size of a net. The checkpoint holds it, so that a net can be built again."""

    ratio: int = 20
    """B, frames per snapshot."""
    stages: int = 3
    width: int = 64
    """Channels at half resolution."""
    deep_width: int = 96
    """Channels at a quarter of the resolution."""
    deep_blocks: int = 2
    """Residual blocks at a quarter of the resolution."""


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), the identity at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(_bias(self.second))

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        correction: Tensor = self.second(functional.relu(self.first(x)))
        return x + correction


class Stage(nn.Module):
    """One correction: (n, 2 B + 6, H, W) features and what the stage before knew -> (n, B, H, W) to add."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.head = nn.Conv2d(4 * (2 * spec.ratio + 6), spec.width, 3, padding=1)
        self.before = ResidualBlock(spec.width)
        self.down = nn.Conv2d(spec.width, spec.deep_width, 2, stride=2)
        self.deep = nn.Sequential(*(ResidualBlock(spec.deep_width) for _ in range(spec.deep_blocks)))
        self.up = nn.Conv2d(spec.deep_width, 4 * spec.width, 1)
        self.after = ResidualBlock(spec.width)
        self.tail = nn.Conv2d(spec.width, 4 * spec.ratio, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(_bias(self.tail))

    def forward(self, features: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """The correction in units of the level, and this stage's own features (n, width, H / 2, W / 2)."""
        hidden = self.head(functional.pixel_unshuffle(features, 2))
        hidden = self.before(hidden if known is None else hidden + known)
        hidden = hidden + functional.pixel_shuffle(self.up(self.deep(self.down(hidden))), 2)
        hidden = self.after(hidden)
        return functional.pixel_shuffle(self.tail(hidden), 2), hidden


class Net(nn.Module):
    """snapshots, exposures (n, 3, H, W), masks (n, B, H, W), noise (n,) -> frames (n, B, H, W), float32."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stages = nn.ModuleList(Stage(spec) for _ in range(spec.stages))
        self.step_offset = nn.Parameter(torch.zeros(spec.stages))
        self.step_slope = nn.Parameter(torch.full((spec.stages,), 0.5))

    def forward(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> Tensor:
        """The frames after the last stage, divided by the level."""
        return self.estimates(snapshots, exposures, masks, noise)[-1]

    def estimates(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> list[Tensor]:
        """The frames after every stage: training weighs them all."""
        snapshot, exposure = snapshots[:, 1:2], exposures[:, 1:2].clamp(min=1)
        noise = noise.clamp(1e-7, 1e4)[:, None, None, None]
        base = _smooth(snapshot) / _smooth(exposures[:, 1:2]).clamp(min=0.04)  # 1 / 25: no pixel of the 5x5 window exposed
        known, constant = None, torch.cat([*_means(snapshots, exposures, base), *_deviations(exposures, base, noise)], 1)
        frames, estimates = base.expand_as(masks), []
        for k, stage in enumerate(self.stages):
            back = masks * ((snapshot - (masks * frames).sum(1, keepdim=True)) / exposure)
            step = torch.sigmoid(self.step_offset[k] - self.step_slope[k] * torch.log(30 * noise))
            correction, known = stage(torch.cat([frames - base, back, constant], 1), known)
            frames = frames + step * back + correction.float()
            estimates.append(frames)
        return estimates


def _means(snapshots: Tensor, exposures: Tensor, base: Tensor) -> tuple[Tensor, ...]:
    """The three snapshots as means per exposed frame, against the local mean; 0 where nothing was exposed."""
    means = snapshots / exposures.clamp(min=1)
    return ((means - base) * (exposures > 0),)


def _deviations(exposures: Tensor, base: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """Standard deviations of those means at the local brightness; an unexposed pixel counts as a sixteenth of a frame."""
    return (torch.sqrt(noise * base.clamp(min=0.02) / exposures.clamp(min=0.0625)),)


def _smooth(x: Tensor) -> Tensor:
    """Mean over 5x5 pixels, (n, 1, H, W); beyond the edge counts as zero, which ratios of two such means cancel."""
    return functional.avg_pool2d(x, 5, 1, 2)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
