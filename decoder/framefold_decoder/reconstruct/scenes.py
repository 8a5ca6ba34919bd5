"""Which neighbours of a snapshot are of its scene: nets take what a neighbour shows for where things come from or go to.

Where a scene becomes another between two snapshots, a net does better without those beyond. Then the change between the two is
many times the change beside it: on training scenes nets lost 2 dB by neighbours `APART` times as different, while
those less than twice as different are worth 1.5 dB. Changes within a snapshot look alike from both sides; they are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from framefold_decoder.reconstruct.base import Beside, FoldedGroup
from framefold_protocol.model import REACH
from framefold_protocol.noise import NoiseModel

Neighbourhood = tuple[FoldedGroup, Beside, Beside]
"""A group, those before it and those after it."""

APART = 10.0
"""A mean squared change over the one beside it, from which on another scene begins."""
CERTAIN = 0.1
"""Of the noise of the change, added to the one beside it: so much of it can be chance."""
PIXELS = 1 << 16
"""That are looked at, about, in rows that are evenly spread."""


def of_one_scene(neighbourhood: Neighbourhood, noise: NoiseModel) -> Neighbourhood:
    """Without what is of another scene. A part of a group is judged as its whole is."""
    group, before, after = neighbourhood
    row = [*reversed(before), group, *after]
    wholes = [one.whole or one for one in row]
    changes = [_change(one, following, noise) for one, following in pairwise(wholes)]
    back, ahead = changes[: len(before)][::-1], changes[len(before) :]
    return group, before[: _reach(back, ahead)], after[: _reach(ahead, back)]


def _reach(changes: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> int:
    """How many groups of a side are of the scene. `changes`: to them from group to group, the nearest first, as mean squares
    and what noise has of them; `others`: those of the other side.

    Held against the other side's nearest: a group in which the scene changes differs from both its neighbours.
    """
    for k, (found, of_noise) in enumerate(changes):
        beside = others[:1] or changes[k - 1 : k] or changes[k + 1 : k + 2]
        if beside and found > APART * (beside[0][0] + CERTAIN * of_noise):
            return k
    return len(changes)


@lru_cache(maxsize=2 * REACH)
def _change(group: FoldedGroup, neighbour: FoldedGroup, noise: NoiseModel) -> tuple[float, float]:
    """Mean squared difference of the two per exposed frame, counts^2, without that of noise, at least 0; and noise's."""
    step = max(1, group.snapshot.size // PIXELS)
    means, variances, seen = [], [], []
    for one in (group, neighbour):
        exposure, sums = one.exposure()[step // 2 :: step], one.snapshot[step // 2 :: step].astype(np.float64)
        frames = np.maximum(exposure, 1)
        means.append(sums / frames)
        variances.append(noise.in_bins(one.step_sigma).variance(sums, exposure) / frames.astype(np.float64) ** 2)
        seen.append(exposure > 0)
    both = seen[0] & seen[1]
    if not both.any():
        return 0.0, 0.0
    expected = float((variances[0] + variances[1])[both].mean())
    return max(float(((means[0] - means[1]) ** 2)[both].mean()) - expected, 0.0), expected
