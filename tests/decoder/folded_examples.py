"""Small moving movies, and groups folded from them."""

from __future__ import annotations

import numpy as np

from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_protocol.coding import Coding, block_map_shape
from framefold_protocol.masks import MaskSpec, derive_masks


def moving_movie(count: int, shape: tuple[int, int], level: float = 20.0) -> np.ndarray:
    """Bright spots on a slope, every one moving 1 pixel a frame: (count, H, W) expected counts, mean about `level`."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    frames = np.empty((count, *shape))
    centres, angles = rng.uniform(0, 1, (12, 2)) * shape, rng.uniform(0, 2 * np.pi, 12)
    for t in range(count):
        frames[t] = 0.5 + 0.3 * x / shape[1]
        for (cy, cx), angle in zip(centres, angles, strict=True):
            away = (y - cy - np.sin(angle) * t) ** 2 + (x - cx - np.cos(angle) * t) ** 2
            frames[t] += np.exp(-away / (2 * 3.0**2))
    return frames * (level / frames.mean())


def coding(shape: tuple[int, int], *specs: MaskSpec) -> Coding:
    """The families of `specs`, taking turns over the 64x64 blocks when there are several."""
    families = tuple(derive_masks(spec, shape) for spec in specs)
    if len(families) == 1:
        return Coding(families)
    down, across = block_map_shape(shape)
    turns = np.arange(down)[:, None] + np.arange(across)
    return Coding(families, (turns % len(families)).astype(np.uint8))


def fold(counts: np.ndarray, masks: Coding) -> FoldedGroup:
    """The group of whole-number (B, H, W) counts."""
    return FoldedGroup(np.sum(masks.window() * counts.astype(np.uint64), axis=0).astype(np.uint32), masks)
