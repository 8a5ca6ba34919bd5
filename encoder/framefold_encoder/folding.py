"""Groups of frames to snapshots: arrays of any layout, sums that cannot overflow, rows spread over threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from framefold_encoder.bands import in_bands
from framefold_encoder.kernels import WORD, fold_rows
from framefold_protocol.coding import BlockMap, block_map_shape
from framefold_protocol.errors import InputError
from framefold_protocol.masks import Masks

Counts = npt.NDArray[np.unsignedinteger]
Memory = npt.NDArray[np.uint8]
FRAME_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))


def sum_dtype(frame_dtype: np.dtype[np.unsignedinteger], ones_per_pixel: int) -> np.dtype[np.unsignedinteger]:
    """The smallest of uint16, uint32, uint64 that holds `ones_per_pixel` times the largest value of `frame_dtype`."""
    largest = ones_per_pixel * int(np.iinfo(frame_dtype).max)
    wide: tuple[np.dtype[np.unsignedinteger], ...] = (np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64))
    return next(kind for kind in wide if largest <= np.iinfo(kind).max)


class Folder:
    """Folds groups of one stream: families, frame type and shape are fixed; pixels and block maps change with each group."""

    def __init__(self, families: Sequence[Masks], frame_dtype: np.dtype[np.unsignedinteger], threads: int = 1) -> None:
        """`families` share ratio and shape. Raises `InputError` when the frames are no unsigned counts."""
        if frame_dtype.newbyteorder("=") not in FRAME_DTYPES:
            hint = "Convert the frames to counts in uint8, uint16 or uint32"
            raise InputError(f"frames are {frame_dtype}, expected unsigned integers of 8, 16 or 32 bits", hint=hint)
        self.families = tuple(families)
        self.ratio = families[0].spec.ratio
        self.shape = families[0].shape
        self._words = pack(families)
        self._frame_dtype = frame_dtype.newbyteorder("=")
        ones_per_pixel = max(int(masks.cell.sum(axis=0, dtype=np.int64).max()) for masks in families)
        self.sum_dtype = sum_dtype(self._frame_dtype, ones_per_pixel)
        self._one_family = np.zeros(block_map_shape(self.shape), np.uint8)
        self._threads = threads

    def fold(self, frames: Counts, block_map: BlockMap | None = None, memory: Memory | None = None) -> Counts:
        """The snapshot of a whole group (B, H, W): (H, W) exact sums. See `add` for what is accepted.

        They lie in `memory`, bytes enough for them, or in a new array: fresh memory costs as much as half of the fold.
        """
        if len(frames) != self.ratio:
            raise InputError(f"group has {len(frames)} frames, expected {self.ratio}")
        size = math.prod(self.shape) * self.sum_dtype.itemsize
        memory = np.empty(size, np.uint8) if memory is None else memory
        sums: Counts = memory[:size].view(self.sum_dtype).reshape(self.shape)
        self.add(frames, 0, sums, block_map)
        return sums

    def add(self, frames: Counts, first: int, sums: Counts, block_map: BlockMap | None = None) -> None:
        """Add frames `first` to `first + n - 1` of a group to its sums; with `first` 0 the sums begin anew.

        `frames` is (n, H, W) of the stream's type in any byte order and strides; contiguous native frames are not copied.
        `sums` is (H, W) contiguous of `sum_dtype`; `block_map` each block's family, None: the first. Raises `InputError` when
        shape or type is not the stream's.
        """
        if frames.shape[1:] != self.shape or frames.dtype.newbyteorder("=") != self._frame_dtype:
            expected = f"{self._frame_dtype} {self.shape}"
            raise InputError(f"frames are {frames.dtype} {frames.shape[1:]}, expected {expected}")
        if not 0 <= first <= self.ratio - len(frames):
            raise InputError(f"frames {first} to {first + len(frames) - 1} are not in a group of {self.ratio}")
        if block_map is None:
            block_map = self._one_family
        elif block_map.shape != self._one_family.shape or int(block_map.max()) >= len(self.families):
            expected = f"{self._one_family.shape} with families below {len(self.families)}"
            raise InputError(f"block map is {block_map.shape} with families up to {int(block_map.max())}, expected {expected}")
        arguments = (np.ascontiguousarray(frames, self._frame_dtype), first, self._words, block_map, sums)
        in_bands(fold_rows, arguments, self.shape[0], self._threads)


def pack(families: Sequence[Masks]) -> npt.NDArray[np.uint64]:
    """The families' masks as the kernel reads them: (h, B, families, q) uint64, one cell that all of them repeat with."""
    height, width = families[0].shape
    h = min(math.lcm(*(masks.cell.shape[1] for masks in families)), height)
    w = min(math.lcm(WORD, *(masks.cell.shape[2] for masks in families)), -(-width // WORD) * WORD)
    return np.ascontiguousarray(np.stack([replace(masks, shape=(h, w)).packed() for masks in families]).transpose(2, 1, 0, 3))
