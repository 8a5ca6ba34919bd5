"""Movies as temporal cosines, and exact projections onto a snapshot there: what every frame-mixing net here computes with.

The B frames of a group are X_t = sum_k a_k phi_k(t), phi_k(t) = sqrt(2) cos(pi k (t + 1/2) / B), phi_0 = 1: K coefficient
images stand for any B, and a_0 is the mean. With G_k = sum_t C_t phi_k(t) / B the snapshot of the coefficients is
B sum_k G_k a_k, and the least change that explains a snapshot is G_k / (B sum_j G_j^2) of what is missing: the step of
generalised alternating projection (Liao, Li & Carin 2014) within the K cosines, at the cost of K images and not of B.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-2
"""Of the sum of squares of B G, which is B times the exposure when K = B: a pixel never exposed stays as it is."""


def cosines(ratio: int, modes: int, like: Tensor) -> Tensor:
    """phi_k(t), (K, B); zero for k >= B."""
    t = torch.arange(ratio, device=like.device, dtype=like.dtype)[None, :]
    k = torch.arange(modes, device=like.device, dtype=like.dtype)[:, None]
    amplitude = torch.where(k > 0, math.sqrt(2.0), 1.0) * (k < t.shape[1])
    return torch.cos((math.pi / t.shape[1]) * k * (t + 0.5)) * amplitude


def analysed(images: Tensor, basis: Tensor) -> Tensor:
    """Frames or masks (n, B, H, W) -> B times their coefficients (n, K, H, W)."""
    n, ratio, h, w = images.shape
    return torch.matmul(basis, images.reshape(n, ratio, h * w)).reshape(n, basis.shape[0], h, w)


def synthesised(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Coefficients (n, K, H, W) -> frames (n, B, H, W); the basis (K, B) may be scaled for each sample: (n, K, B)."""
    n, modes, h, w = coefficients.shape
    return torch.matmul(basis.mT, coefficients.reshape(n, modes, h * w)).reshape(n, basis.shape[-1], h, w)


def snapshot_of(coefficients: Tensor, codes: Tensor) -> Tensor:
    """The snapshot (n, 1, H, W) that coefficients (n, K, H, W) make; `codes` (n, K, H, W) are B G."""
    return (codes * coefficients).sum(1, keepdim=True)


def back_projected(residual: Tensor, codes: Tensor, norm: Tensor) -> Tensor:
    """The least change (n, K, H, W) of the coefficients that explains what is missing of a snapshot (n, 1, H, W).

    `norm` (n, 1, H, W) is the sum of the squares of `codes`, at least `SMALLEST`.
    """
    return codes * (residual / norm)
