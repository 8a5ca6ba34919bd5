"""Which neighbours of a snapshot are of its scene: nets take what a neighbour shows for where things come from or go to.

Where a scene becomes another between two snapshots, a net does better without the one beyond. Then the change to that one is
many times the change to the other neighbour: on training scenes nets lost 2 dB by neighbours `APART` times as different, while
those less than twice as different are worth 1.5 dB. Changes within a snapshot look alike from both sides; they are not found.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_protocol.noise import NoiseModel

Neighbourhood = tuple[FoldedGroup, FoldedGroup | None, FoldedGroup | None]
"""A group, the one before it and the one after it; None at a stream's ends."""

APART = 10.0
"""A neighbour's mean squared change over the other's, from which on it is another scene."""
CERTAIN = 0.1
"""Of the noise of the change, added to the other's change: so much of it can be chance."""
PIXELS = 1 << 16
"""That are looked at, about, in rows that are evenly spread."""


def of_one_scene(three: Neighbourhood, noise: NoiseModel) -> Neighbourhood:
    """The three without a neighbour of another scene. A part of a group is judged as its whole is."""
    group, previous, following = three
    if previous is None or following is None:
        return three  # nothing to hold the change against
    own = group.whole or group
    before, noise_before = _change(own, previous.whole or previous, noise)
    after, noise_after = _change(own, following.whole or following, noise)
    return (
        group,
        None if before > APART * (after + CERTAIN * noise_before) else previous,
        None if after > APART * (before + CERTAIN * noise_after) else following,
    )


@lru_cache(maxsize=2)
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
