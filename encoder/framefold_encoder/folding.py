"""Groups of frames to snapshots: takes arrays of any layout, chooses an accumulator that cannot overflow, calls the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold_encoder.kernels import fold_into
from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError

FRAME_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))


def sum_dtype(frame_dtype: np.dtype[np.unsignedinteger], ones_per_pixel: int) -> np.dtype[np.unsignedinteger]:
    """The smallest of uint16, uint32, uint64 that holds `ones_per_pixel` times the largest value of `frame_dtype`."""
    largest = ones_per_pixel * int(np.iinfo(frame_dtype).max)
    wide: tuple[np.dtype[np.unsignedinteger], ...] = (np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64))
    return next(kind for kind in wide if largest <= np.iinfo(kind).max)


class Folder:
    """Folds groups of one stream: shape, frame type and coding are fixed, groups differ in their pixels only."""

    def __init__(self, coding: Coding, frame_dtype: np.dtype[np.unsignedinteger]) -> None:
        if frame_dtype.newbyteorder("=") not in FRAME_DTYPES:
            hint = "Convert the frames to counts in uint8, uint16 or uint32"
            raise InputError(f"frames are {frame_dtype}, expected unsigned integers of 8, 16 or 32 bits", hint=hint)
        self._coding = coding
        self._words = pack(coding)
        self._frame_dtype = frame_dtype.newbyteorder("=")
        self._sum_dtype = sum_dtype(self._frame_dtype, int(coding.exposure().max()))

    def fold(self, frames: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
        """The snapshot of one group.

        `frames` is (B, H, W) of the stream's type in any byte order and strides; contiguous native frames are folded without a
        copy. Returns a new (H, W) array, the exact sum. Raises `InputError` when shape or type is not the stream's.
        """
        expected = (self._coding.ratio, *self._coding.shape)
        if frames.shape != expected or frames.dtype.newbyteorder("=") != self._frame_dtype:
            raise InputError(f"group is {frames.dtype} {frames.shape}, expected {self._frame_dtype} {expected}")
        sums = np.zeros(self._coding.shape, self._sum_dtype)
        fold_into(np.ascontiguousarray(frames, self._frame_dtype), self._words, sums)
        return sums


def pack(coding: Coding) -> npt.NDArray[np.uint64]:
    """The group's masks as the kernel reads them: (B, H, ceil(W / 64)) uint64."""
    words = coding.families[0].packed()
    if coding.block_map is None:
        return words
    # A block is one word wide: choosing a family for a block is choosing its words.
    family = np.repeat(coding.block_map, 64, axis=0)[: coding.shape[0]]  # (H, ceil(W / 64))
    for index, masks in enumerate(coding.families[1:], start=1):
        words = np.where(family == index, masks.packed(), words)
    return np.ascontiguousarray(words)
