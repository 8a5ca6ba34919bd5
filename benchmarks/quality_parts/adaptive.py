"""Groups as the encoder folds them by default: each block with the masks that its motion asks for."""

from __future__ import annotations

from collections.abc import Sequence

from framefold_encoder.settings import EncoderSettings
from framefold_encoder.watch import Watch
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import BlockMap
from framefold_protocol.masks import derive_masks
from framefold_protocol.noise import NoiseModel
from quality_parts.folding import Counts, Folded, fold_groups

ELECTRONS = NoiseModel(counts_per_electron=1.0)
"""Of clips that are drawn here."""


def groups_of(counts: Counts, ratio: int) -> list[Counts]:
    """The whole groups of (T, H, W) frames."""
    return [counts[first : first + ratio] for first in range(0, len(counts) - ratio + 1, ratio)]


def block_maps(groups: Sequence[Counts], noise: NoiseModel = ELECTRONS) -> list[BlockMap]:
    """The families of the blocks of a stream's groups, (B, H, W) each."""
    watch = Watch((groups[0].shape[1], groups[0].shape[2]), EncoderSettings().still_below)
    return [watch.choose(group, noise) for group in groups]


def fold_adaptively(
    groups: Sequence[Counts], quantisation: VarianceStabilised | None = None, noise: NoiseModel = ELECTRONS
) -> Folded:
    """Groups that follow each other: families, motion and thresholds are the encoder's own."""
    shape = groups[0].shape[1], groups[0].shape[2]
    specs = EncoderSettings(adaptive=True).families
    ratios = {len(group) for group in groups}
    families = {ratio: [derive_masks(spec.with_ratio(ratio), shape) for spec in specs] for ratio in ratios}
    return fold_groups(groups, families, quantisation, block_maps(groups, noise))
