"""Integers <-> planes of bytes that zstd codes well and fast. No coder here, see `payload.py`; loops in `plane_kernels.py`.

A value's lowest bits are noise: they are kept as they are. The bits above, less the mean of their 32 x 32 block, lie within a
few units of 0 nearly everywhere: their low nibbles go two a byte, so that an entropy coder has half as many symbols as
pixels, and hardly ever takes noise for a repetition. Their high nibbles are nearly all equal and cost next to nothing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_protocol import plane_kernels
from framefold_protocol.anscombe import Counts, Kind
from framefold_protocol.plane_kernels import BLOCK, FIELDS

Bytes = npt.NDArray[np.uint8]
BYTE: Kind = np.dtype(np.uint8)
STRIPE = 2**20
"""Pixels of a stripe at most, unless its 32 rows have more: what is made of them stays in the cache until it is coded."""
WIDEST, WIDEST_OF_BINS = 1.05, 0.98
"""The lowest bits span at most this many standard deviations of the noise; more are not quite random. Bins of counts are not
all equally wide: of half a sigma the lowest bit is kept apart only where the scene makes neighbours differ, too."""
_ROWS = 32
"""So many are enough to tell the noise."""


@dataclass(frozen=True)
class Layout:
    """Where the planes of (H, W) values lie in one array of bytes, one after the other."""

    shape: tuple[int, int]
    kind: Kind
    """Of what is above the lowest bits: uint8 where that is enough, else of the values."""
    shift: int = 0
    """How many lowest bits are kept as they are."""

    @property
    def means_shape(self) -> tuple[int, int]:
        """Blocks, those at the right and lower edge smaller."""
        return -(-self.shape[0] // BLOCK), -(-self.shape[1] // BLOCK)

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Bytes of low nibbles, high nibbles, the residuals' bytes above them, lowest bits and block means."""
        pixels = math.prod(self.shape)
        pairs, rest = (pixels + 1) // 2, pixels * (self.kind.itemsize - 1)
        bits = self.shift // 8 * pixels + sum(-(-pixels * width // 8) for width in FIELDS if self.shift & width)
        return pairs, pairs, rest, bits, math.prod(self.means_shape) * self.kind.itemsize

    @property
    def size(self) -> int:
        """Bytes of all planes."""
        return sum(self.sizes)

    def parts(self, planes: Bytes) -> list[Bytes]:
        """Each plane of the array."""
        ends = list(itertools.accumulate(self.sizes))
        return [planes[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]


def most_bytes(shape: tuple[int, int], kind: Kind) -> int:
    """No planes of (H, W) values of this dtype have more bytes."""
    return Layout(shape, kind, 8 * kind.itemsize).size + len(FIELDS)


def choose_shift(values: Counts, widest: float = WIDEST) -> int:
    """How many of the lowest bits of (H, W) values are noise and nothing else, nearly everywhere."""
    height, width = values.shape
    noise = np.empty((min(height, _ROWS), width // BLOCK))
    if not noise.size:
        return 0
    plane_kernels.differences(values, noise)
    middle = float(np.sort(noise, axis=None)[noise.size // 2])
    sigma = middle * math.sqrt(math.pi) / 2  # of a normal deviate, by the differences of two
    return math.floor(math.log2(max(1.0, widest * sigma)))


def stripes(shape: tuple[int, int]) -> list[slice]:
    """The rows of each part of (H, W) values that is split and coded by itself."""
    rows = BLOCK * max(1, STRIPE // (BLOCK * shape[1]))
    return [slice(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows)]


def split(values: Counts, shift: int, memory: Bytes) -> tuple[Layout, Bytes]:
    """The planes of contiguous (H, W) values, in memory of `most_bytes`; of a byte where that is enough."""
    for kind in (BYTE, values.dtype):
        layout = Layout(values.shape, kind, shift)
        planes = memory[: layout.size]
        low, high, rest, bits, packed = layout.parts(planes)
        means = np.empty(layout.means_shape, values.dtype)
        columns: Counts = np.empty(values.shape[1], np.uint32 if values.itemsize <= 2 else np.uint64)
        enough = plane_kernels.split(values, shift, means, low, high, _rows(rest, values), bits, columns)
        if enough:
            break
    packed[:] = np.frombuffer(means.astype(kind.newbyteorder("<")), np.uint8)
    return layout, planes


def join(planes: Bytes, layout: Layout, values: Counts) -> None:
    """The (H, W) values of such planes, into memory for them."""
    low, high, rest, bits, packed = layout.parts(planes)
    means = np.frombuffer(packed, layout.kind.newbyteorder("<")).reshape(layout.means_shape).astype(values.dtype)
    plane_kernels.join(means, low, high, _rows(rest, values), bits, layout.shift, values)


def _rows(rest: Bytes, values: Counts) -> Bytes:
    """A row for each byte of the residuals above the first."""
    return rest.reshape(rest.size // values.size, values.size)
