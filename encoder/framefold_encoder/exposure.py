"""Content-adaptive exposure: which mask family folds a block, by how much it moves.

Where nothing moves, every electron counts and all frames are exposed; where things move, sparse masks keep the frames apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefold_protocol.coding import BlockMap

SMALLEST_RATIO = 4
"""Frames of a group whose motion can be told."""
Motion = npt.NDArray[np.float32]
"""(ceil(H / 64), ceil(W / 64)): the error that motion makes in the plain average of the group, over the one that shot noise
makes in it; both mean squares. About 0 where nothing moves, and a little below by chance."""

CHANCE = 0.3
"""Standard deviation of a still block's motion: 128 pixels, and three degrees of freedom each."""
STILL_BELOW = 0.1
"""Mean motion below which a longer sum would do: averaging's error is noise, all but a tenth. On training scenes, sums that
grow until then come back 0.5 dB better from 0.7 of the bytes (`benchmarks/still.py`)."""


def is_still(motion: Motion) -> bool:
    """Whether more frames in a sum would lose nothing to motion, and gain electrons where all frames are exposed."""
    return bool(motion.mean() < STILL_BELOW)


def clearly_moves(motion: Motion) -> bool:
    """Whether it is not still, and that is not by chance either: of few blocks, the mean can be a few tenths."""
    return bool(motion.mean() > STILL_BELOW + 3 * CHANCE / np.sqrt(motion.size))


def choose_families(motion: Motion, below: Sequence[float]) -> BlockMap:
    """A block's family is the number of thresholds in `below` that its motion is under: family 0 for what moves most."""
    return (motion[..., None] < np.asarray(below)).sum(-1, dtype=np.uint8)  # type: ignore[no-any-return]
