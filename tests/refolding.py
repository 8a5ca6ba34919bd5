"""What snapshots must hold that were folded by the encoder's default settings, whatever masks it chose for each block."""

import numpy as np

from framefold_encoder.settings import EncoderSettings
from framefold_protocol.coding import Coding
from framefold_protocol.masks import derive_masks


def refolded(groups, block_maps):
    """The exact sums (K, H, W) of groups (K, 20, H, W), each folded by its block map."""
    families = tuple(derive_masks(one, groups.shape[2:]) for one in EncoderSettings().families)
    codings = (Coding(families, block_map).window().astype(np.uint64) for block_map in block_maps)
    return np.stack([(group * coding).sum(axis=0) for group, coding in zip(groups, codings, strict=True)])
