"""Seeded chance for batches: small decisions on the host, so that no GPU is waited for, and noise where the images are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Dice:
    """Chance from one seed of some numbers; the same on every machine for decisions, on one kind of device for noise."""

    def __init__(self, device: torch.device, *seed: int) -> None:
        self.device = device
        # torch's generator on the CPU takes 32 bits of a seed and drops the rest
        decisions, noise = np.random.SeedSequence(seed).generate_state(2).tolist()
        self.host = torch.Generator().manual_seed(decisions)
        """For decisions."""
        self.noise = torch.Generator(device).manual_seed(noise)
        """For images."""

    def shares(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), on the host."""
        return torch.rand(*shape, generator=self.host)

    def below(self, limit: int, *shape: int) -> list[int]:
        """Integers from 0 to `limit` - 1."""
        numbers: list[int] = torch.randint(limit, shape, generator=self.host).tolist()
        return numbers
