"""The residual block all nets here are made of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), the identity at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        quiet(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        correction: Tensor = self.second(functional.relu(self.first(x)))
        return x + correction


def residual_blocks(width: int, count: int) -> nn.Sequential:
    """`count` blocks one after the other."""
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def quiet(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Begin without a bias."""
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
