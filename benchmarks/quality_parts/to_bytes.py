"""As few frames a snapshot as given bytes allow, more where nothing moves: what the encoder's `wire_ratio` settles at.

Fewer frames in a sum are easier to tell apart; wider bins of the near-lossless coder pay for them. Where all stands still, more
frames take fewer bytes and lose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from framefold_decoder.decoding import trust
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.budget import FEW, enough
from framefold_encoder.cutting import taken_apart
from framefold_encoder.exposure import SMALLEST_RATIO, borne, is_still
from framefold_encoder.motion import motion
from framefold_encoder.settings import FREE
from framefold_protocol.anscombe import VarianceStabilised
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.cells import NOISE
from quality_parts.folding import Counts, Folded, neighbourhood


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


def to_bytes(counts: Counts, allowed: float, widths: Sequence[float], covered: int) -> tuple[int, Folded]:
    """B, and all whole groups of (T, H, W) counts, folded adaptively: a frame takes at most `allowed` bytes.

    The groups hold the first `covered` frames. Like the encoder's, they are cut where the scene
    becomes another, and those of more frames than the bytes ask for are taken apart where they move. Their bins have one of the
    `widths`, in sigma and rising: the narrowest that the bytes allow. A width of 0 is that of exact sums.
    """

    def fold_at(ratio: int, width: float = widths[-1], least: int = 0) -> Folded:
        groups = [part for group in groups_of(counts, ratio) for part in taken_apart(group, partial(_bears, least or ratio))]
        return fold_adaptively(groups, VarianceStabilised(gain=1.0, step=width) if width else None)

    bounds = FREE.smallest, min(FREE.largest, len(counts) - covered + 1)
    ratio, folded = fewest_frames(fold_at, allowed, bounds)
    if len(widths) > 1 and ratio < FEW:
        ratio = enough(fewest_frames(partial(fold_at, width=widths[0]), allowed, bounds)[0], ratio)
        folded = fold_at(ratio)
    least = ratio
    while is_still(np.stack([motion(group) for group in groups_of(counts, ratio)])):
        more = FREE.grown(ratio)
        if more == ratio or len(counts) // more * more < covered:
            break
        longer = fold_at(more, least=least)
        if longer.bytes_per_frame > allowed:
            break
        ratio, folded = more, longer
    narrower = (fold_at(ratio, width, least) for width in widths[:-1])
    return ratio, next((one for one in narrower if one.bytes_per_frame <= allowed), folded)


def _bears(least: int, scene: Counts) -> int:
    shape = scene.shape[1], scene.shape[2]
    found = borne(motion(scene), shape, len(scene)) if len(scene) >= SMALLEST_RATIO else 0
    return max(least, found) if found else 0


def reconstruct(folded: Folded, frames: slice, registry: Registry, model: str, *, judge: bool = True) -> Reconstructed:
    """These frames of the stream that the groups are the beginning of. Not to `judge` saves chi2, which is NaN then."""
    groups = folded.groups
    starts = np.cumsum([0, *(group.coding.ratio for group in groups)])
    first, last = (int(np.searchsorted(starts, frame, "right")) - 1 for frame in (frames.start, frames.stop - 1))
    net = registry.choose(model, next(group for group in groups if group.coding.ratio > 1).coding)
    found, misfits, shares = [], [], []
    for k in range(first, last + 1):
        if groups[k].coding.ratio == 1:  # it was sent as it is
            found.append(groups[k].snapshot[None].astype(np.float32))
            continue
        seen = neighbourhood(groups, k)
        found.append(net.reconstruct(*seen, NOISE))
        explained, share = trust(seen, found[-1], NOISE, net, number=k) if judge else (math.nan, math.nan)
        misfits.append(explained)
        shares.append(share)
    inside = slice(frames.start - starts[first], frames.stop - starts[first])
    return Reconstructed(np.concatenate(found)[inside], tuple(misfits), float(np.mean(shares)), net.name)
