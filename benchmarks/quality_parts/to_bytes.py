"""As few frames a snapshot as given bytes allow, more where nothing moves: what the encoder's `wire_ratio` settles at.

Fewer frames in a sum are easier to tell apart; wider bins of the near-lossless coder pay for them. Where all stands still, more
frames take fewer bytes and lose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_decoder.decoding import trust
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.exposure import choose_families, is_still
from framefold_encoder.motion import motion
from framefold_encoder.settings import FREE, EncoderSettings
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.masks import derive_masks
from quality_parts.cells import NOISE
from quality_parts.folding import Counts, Folded, fold


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Frames of a stream, and how far they can be trusted."""

    frames: npt.NDArray[np.float32]
    """(n, H, W) in counts."""
    misfits: tuple[float, ...]
    """chi2 of each of the groups they come from."""
    followed: float
    model: str

    @property
    def chi2(self) -> float:
        """Mean over the groups."""
        return float(np.mean(self.misfits))


def fewest_frames(fold_at: Callable[[int], Folded], allowed: float, ratios: tuple[int, int]) -> tuple[int, Folded]:
    """The smallest B of these bounds at which a frame takes at most `allowed` bytes, and its groups; the largest if none."""
    low, high = ratios
    while low < high:
        middle = (low + high) // 2
        if fold_at(middle).bytes_per_frame <= allowed:
            high = middle
        else:
            low = middle + 1
    return low, fold_at(low)


def to_bytes(counts: Counts, allowed: float, step_sigma: float, covered: int) -> tuple[int, Folded]:
    """B, and all whole groups of (T, H, W) counts, folded adaptively in such bins: a frame takes at most `allowed` bytes.

    The groups hold the first `covered` frames, no more than two thirds of all.
    """

    def fold_at(ratio: int) -> Folded:
        return fold_adaptively(counts, ratio, VarianceStabilised(gain=1.0, step=step_sigma))

    ratio, folded = fewest_frames(fold_at, allowed, (FREE.smallest, min(FREE.largest, covered // 2)))
    while is_still(np.stack([motion(group) for group in groups_of(counts, ratio)])):
        more = FREE.grown(ratio)
        if more == ratio or len(counts) // more * more < covered:
            break
        ratio, folded = more, fold_at(more)
    return ratio, folded


def fold_adaptively(counts: Counts, ratio: int, quantisation: VarianceStabilised | None) -> Folded:
    """As the encoder folds with `adaptive`: families, motion and thresholds are its own."""
    settings = EncoderSettings(ratio=ratio, adaptive=True)
    families = [derive_masks(spec, (counts.shape[1], counts.shape[2])) for spec in settings.families]
    groups = groups_of(counts, ratio)
    maps = [choose_families(motion(group), settings.still_below) for group in groups]
    return fold(counts[: len(groups) * ratio], families, quantisation, maps)


def groups_of(counts: Counts, ratio: int) -> list[Counts]:
    """The whole groups of (T, H, W) frames."""
    return [counts[first : first + ratio] for first in range(0, len(counts) - ratio + 1, ratio)]


def reconstruct(folded: Folded, frames: slice, registry: Registry, model: str, *, judge: bool = True) -> Reconstructed:
    """These frames of the stream that the groups are the beginning of. Not to `judge` saves chi2, which is NaN then."""
    groups = folded.groups
    ratio = groups[0].coding.ratio
    first, last = frames.start // ratio, (frames.stop - 1) // ratio
    net = registry.choose(model, groups[first].coding)
    parts, misfits, shares = [], [], []
    for k in range(first, last + 1):
        three = groups[k], groups[k - 1] if k else None, groups[k + 1] if k + 1 < len(groups) else None
        parts.append(net.reconstruct(*three, NOISE))
        explained, share = trust(three, parts[-1], NOISE, net, number=k) if judge else (math.nan, math.nan)
        misfits.append(explained)
        shares.append(share)
    inside = slice(frames.start - first * ratio, frames.stop - first * ratio)
    return Reconstructed(np.concatenate(parts)[inside], tuple(misfits), float(np.mean(shares)), net.name)
