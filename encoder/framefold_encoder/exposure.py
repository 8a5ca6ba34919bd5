"""Content-adaptive exposure: which mask family folds a block, by how much it moves.

Where nothing moves, every electron counts and all frames are exposed; where things move, sparse masks keep the frames apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framefold_encoder.motion import Motion
from framefold_protocol.coding import BlockMap


def choose_families(motion: Motion, below: Sequence[float]) -> BlockMap:
    """A block's family is the number of thresholds in `below` that its motion is under: family 0 for what moves most."""
    return (motion[..., None] < np.asarray(below)).sum(-1, dtype=np.uint8)  # type: ignore[no-any-return]
