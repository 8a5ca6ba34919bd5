"""Content-adaptive coding: which mask family folded each 64x64 block of one group.

A stream declares a short list of families; a group carries a block map, or none when family 0 folded all of it. Everyone
who needs the masks of a group (fold, reconstruction, chi2) asks a `Coding` for them, a window at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError
from framefold_protocol.masks import Bits, Masks

BLOCK = 64
"""Side of a block in pixels."""

BlockMap = npt.NDArray[np.uint8]
"""(ceil(H / 64), ceil(W / 64)): the index of each block's family."""


def block_map_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Blocks down and across for (H, W) frames."""
    return -(-shape[0] // BLOCK), -(-shape[1] // BLOCK)


@dataclass(frozen=True, eq=False)
class Coding:
    """The masks of one group. Raises `InputError` when families and block map do not belong together."""

    families: tuple[Masks, ...]
    """At least one; all of the same ratio and frame shape."""
    block_map: BlockMap | None = field(default=None, repr=False)
    """None: family 0 everywhere."""

    def __post_init__(self) -> None:
        if len({(masks.spec.ratio, masks.shape) for masks in self.families}) != 1:
            raise InputError("mask families of one group must share ratio and frame shape, and there must be at least one")
        if self.block_map is None:
            return
        expected = block_map_shape(self.shape)
        if self.block_map.shape != expected or int(self.block_map.max()) >= len(self.families):
            found = f"{self.block_map.shape} with families up to {int(self.block_map.max())}"
            raise InputError(f"block map is {found}, expected {expected} with families below {len(self.families)}")

    @property
    def ratio(self) -> int:
        """B, frames per snapshot."""
        return self.families[0].spec.ratio

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""
        return self.families[0].shape

    def window(self, rows: slice = slice(None), columns: slice = slice(None)) -> Bits:
        """The masks of a part of the frame: (B, rows, columns) of {0, 1}, uint8."""
        if self.block_map is None:
            return self.families[0].window(rows, columns)
        y, x = range(self.shape[0])[rows], range(self.shape[1])[columns]
        bits = np.empty((self.ratio, len(y), len(x)), np.uint8)
        for down, across, family in self._blocks(y, x):
            bits[:, _within(down, y), _within(across, x)] = self.families[family].window(down, across)
        return bits

    def exposure(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.uint16]:
        """Ones per pixel, `sum_t C_t`: (rows, columns) uint16."""
        if self.block_map is None:
            return self.families[0].exposure(rows, columns)
        y, x = range(self.shape[0])[rows], range(self.shape[1])[columns]
        ones = np.empty((len(y), len(x)), np.uint16)
        for down, across, family in self._blocks(y, x):
            ones[_within(down, y), _within(across, x)] = self.families[family].exposure(down, across)
        return ones

    def cut(self, rows: slice, columns: slice) -> Coding:
        """The masks of a part of the frame that begins at a block, as those of a frame of its own."""
        y, x = (range(side)[part] for side, part in zip(self.shape, (rows, columns), strict=True))
        if y.start % BLOCK or x.start % BLOCK:
            raise InputError(f"the part begins at row {y.start}, column {x.start}, expected multiples of {BLOCK}")
        families = tuple(one.cut(rows, columns) for one in self.families)
        if self.block_map is None:
            return Coding(families)
        down, across = (slice(part.start // BLOCK, -(-part.stop // BLOCK)) for part in (y, x))
        return Coding(families, self.block_map[down, across])

    def _blocks(self, y: range, x: range) -> Iterator[tuple[slice, slice, int]]:
        """Rows, columns and family of every block, as far as it lies in the window of rows y and columns x."""
        assert self.block_map is not None
        for down in _cuts(y):
            for across in _cuts(x):
                yield down, across, int(self.block_map[down.start // BLOCK, across.start // BLOCK])


def _cuts(pixels: range) -> list[slice]:
    """Consecutive pixels, cut where blocks begin."""
    starts = [pixels.start, *range((pixels.start // BLOCK + 1) * BLOCK, pixels.stop, BLOCK)]
    return [slice(*pair) for pair in pairwise([*starts, pixels.stop])] if pixels else []


def _within(part: slice, pixels: range) -> slice:
    return slice(part.start - pixels.start, part.stop - pixels.start)
