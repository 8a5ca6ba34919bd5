"""The counter-based generator every mask derives from: SplitMix64, indexed instead of iterated.

`words(seed, n)[i]` is the i-th output of SplitMix64 started at `seed` (Steele, Lea & Flood, OOPSLA 2014, section 4), computed
from i alone, so that any end, version or language makes the same bits in any order. Vectors: `protocol/vectors/masks.json`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def words(seed: int, count: int, start: int = 0) -> npt.NDArray[np.uint64]:
    """Outputs `start` to `start + count - 1` of SplitMix64 with this 64-bit seed: (count,) uint64; arithmetic modulo 2^64."""
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64) * _GAMMA + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
