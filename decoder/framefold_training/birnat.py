"""The reference: a bidirectional recurrent net in the manner of BIRNAT (Cheng et al., ECCV 2020), the paper's own decoder.

Notable: as there, a residual net with self-attention finds the first frame from the normalised snapshot and its mask-modulated
copies; a forward pass then finds frame after frame from the one before, what is left of the snapshot, and a hidden state; a
backward pass goes over them from the last to the first. Unlike there, width is a setting (full: 64), features live at half
resolution, noise and the neighbouring snapshots are inputs, and attention is over an eighth of the resolution so that any frame
size fits. Sequential in B: exported for one B. Inputs and output as `framefold_protocol.model` tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framefold_protocol.model import REACH
from framefold_training.blocks import residual_blocks
from framefold_training.context import CHANNELS, context, local_mean


@dataclass(frozen=True)
class BirnatSpec:
    """The size of a net. The checkpoint holds it, so that a net can be built again."""

    width: int = 16
    """Channels at half resolution; 64 in the paper."""
    blocks: int = 2
    """Residual blocks of each of the three parts."""
    halo: int = 48
    """Pixels at a tile's edge to throw away."""
    ratio: int = 20
    """B of the exported file."""


class FirstFrame(nn.Module):
    """Context, modulated snapshot and what the frame is known to be -> its features (n, width, H / 2, W / 2)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(CHANNELS + 2, width, 4, stride=2, padding=1)
        self.body = residual_blocks(width, blocks)
        self.down = nn.Conv2d(width, width, 4, stride=4)
        self.query, self.key, self.value = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.up = nn.Conv2d(width, 16 * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, CHANNELS + 2, H, W) -> (n, width, H / 2, W / 2)."""
        hidden: Tensor = self.body(self.head(images))
        small = self.down(hidden)
        n, width, h, w = small.shape
        heads = (n, 1, width, h * w)
        query, key, value = (part(small).reshape(heads).transpose(2, 3) for part in (self.query, self.key, self.value))
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(n, width, h, w)
        return hidden + functional.pixel_shuffle(self.up(seen), 4)


class Pass(nn.Module):
    """One direction of the recurrence: a frame and a hidden state -> the next ones."""

    def __init__(self, width: int, blocks: int, inputs: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 4, stride=2, padding=1)
        self.join = nn.Conv2d(2 * width, width, 3, padding=1)
        self.body = residual_blocks(width, blocks)
        self.tail = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, images: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(n, inputs, H, W) and (n, width, H / 2, W / 2) -> a correction (n, 1, H, W) and the new hidden state."""
        joined = functional.relu(self.join(torch.cat([self.head(images), hidden], 1)))
        hidden = self.body(joined)
        return functional.pixel_shuffle(self.tail(hidden), 2), hidden


class Birnat(nn.Module):
    """snapshots, exposures (n, SNAPSHOTS, H, W), masks (n, B, H, W), noise (n,) -> frames (n, B, H, W), float32."""

    def __init__(self, spec: BirnatSpec) -> None:
        super().__init__()
        self.spec = spec
        self.first = FirstFrame(spec.width, spec.blocks)
        self.ahead = Pass(spec.width, spec.blocks, CHANNELS + 4)
        self.back = Pass(spec.width, spec.blocks, CHANNELS + 4)

    def forward(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> Tensor:
        """The frames after the backward pass, divided by the level."""
        return self.estimates(snapshots, exposures, masks, noise)[-1]

    def estimates(self, snapshots: Tensor, exposures: Tensor, masks: Tensor, noise: Tensor) -> list[Tensor]:
        """The frames after the forward and after the backward pass: training weighs both."""
        snapshot, exposure = (images[:, REACH : REACH + 1] for images in (snapshots, exposures))
        noise = noise.clamp(1e-7, 1e4)[:, None, None, None]
        base = local_mean(snapshot, exposure)
        told = context(snapshots, exposures, base, noise, masks.shape[1])
        mean = snapshot / exposure.clamp(min=1) - base  # the normalised snapshot
        codes = list(torch.split(masks, 1, 1))
        forward = self._walk(self.ahead, codes, [torch.zeros_like(base)] * len(codes), mean, told)
        backward = self._walk(self.back, codes[::-1], forward[::-1], mean, told)
        return [base + torch.cat(one, 1) for one in (forward, backward[::-1])]

    def _walk(self, step: Pass, codes: list[Tensor], frames: list[Tensor], mean: Tensor, told: Tensor) -> list[Tensor]:
        """Go over the frames once; each learns from the one before it in this direction, and from what all leave open."""
        exposure = torch.stack(codes).sum(0).clamp(min=1)
        left = mean - torch.stack([code * frame for code, frame in zip(codes, frames, strict=True)]).sum(0) / exposure
        hidden = self.first(torch.cat([told, codes[0] * mean, frames[0]], 1))
        before, found = torch.zeros_like(mean), list[Tensor]()
        for code, frame in zip(codes, frames, strict=True):
            correction, hidden = step(torch.cat([told, code * left, code, frame, before], 1), hidden)
            before = frame + correction.float()
            left = left - code * correction.float() / exposure
            found.append(before)
        return found
