"""Content-adaptive exposure: which mask family folds a block, by how much it moves.

Where nothing moves, every electron counts and all frames are exposed; where things move, sparse masks keep the frames apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefold_protocol.coding import BLOCK, BlockMap

SMALLEST_RATIO = 4
"""Frames of a group whose motion can be told."""
MOST_ROWS = 8
"""Of a block that its motion is told by."""
WELL_SEEN = 128
"""Blocks of which one row is enough: a 64th of the fold's reads."""
Motion = npt.NDArray[np.float32]
"""(ceil(H / 64), ceil(W / 64)): the error that motion makes in the plain average of the group, over the one that shot noise
makes in it; both mean squares. About 0 where nothing moves, and a little below by chance."""

STILL_BELOW = 0.05
"""Mean motion below which a longer sum would do: averaging's error is noise, all but a twentieth. On training scenes, sums that
grow from 8 frames until then come back 0.3 dB better from 0.8 of the bytes (`benchmarks/still.py`)."""


def rows_seen(blocks: int) -> int:
    """Rows of each block that motion is told by: the fewer blocks, the more, for chance is averaged out over all of them."""
    rows = 1
    while rows < MOST_ROWS and rows * blocks < WELL_SEEN:
        rows *= 2
    return rows


def is_still(motion: Motion) -> bool:
    """Whether more frames in a sum would lose nothing to motion, and gain electrons where all frames are exposed."""
    return bool(motion.mean() < STILL_BELOW)


def borne(motion: Motion, shape: tuple[int, int], ratio: int) -> int:
    """How many of the B frames of a group, (H, W) each, would have been still in one sum; 0: all, for what can be told.

    Against averaging's noise, the error of a steady motion grows with the cube of the frames.
    """
    whole = motion[: shape[0] // BLOCK, : shape[1] // BLOCK]  # of blocks cut off by the frame's edge chance makes more
    if not whole.size:
        return 0
    pixels = rows_seen(motion.size) * BLOCK * whole.size
    chance = ratio / (ratio // SMALLEST_RATIO) * np.sqrt(2 / (pixels * (SMALLEST_RATIO - 1)))
    mean = float(whole.mean())
    return max(1, int(ratio * (STILL_BELOW / mean) ** (1 / 3))) if mean > STILL_BELOW + 3 * chance else 0


def choose_families(motion: Motion, below: Sequence[float]) -> BlockMap:
    """A block's family is the number of thresholds in `below` that its motion is under: family 0 for what moves most."""
    families = np.zeros(motion.shape, np.uint8)
    for threshold in below:
        families += motion < threshold
    return families
