"""Seeded chance for batches: small decisions on the host, so that no GPU is waited for, and noise where the images are."""

from __future__ import annotations

import torch
from torch import Tensor


class Dice:
    """Chance from one seed; the same on every machine for decisions, on one kind of device for noise."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.host = torch.Generator().manual_seed(seed)
        """For decisions."""
        self.noise = torch.Generator(device).manual_seed(seed + 2**62)
        """For images."""

    def shares(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), on the host."""
        return torch.rand(*shape, generator=self.host)

    def below(self, limit: int, *shape: int) -> list[int]:
        """Integers from 0 to `limit` - 1."""
        numbers: list[int] = torch.randint(limit, shape, generator=self.host).tolist()
        return numbers
