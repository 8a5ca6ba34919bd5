"""NumPy's .npy, see numpy.lib.format. C order is read straight from the file, Fortran order through a memory map."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from framefold_encoder.sources.chunked import ChunkedFrames
from framefold_encoder.sources.counts import stack_shape, stored_dtype
from framefold_encoder.sources.failures import damage
from framefold_encoder.sources.raw import RawFrames
from framefold_encoder.sources.stack import FileSource

_ERRORS = (OSError, EOFError, ValueError, TypeError, OverflowError, SyntaxError, TokenError)
"""The header is a Python literal, hence the last two."""


def open_npy(path: Path) -> FileSource:
    """Open a .npy array of shape (T, H, W) or (H, W)."""
    with damage(path, "not a readable .npy file", _ERRORS):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    stored = stored_dtype(array.dtype, path)
    shape = stack_shape(array.shape, path)
    if array.flags.c_contiguous:
        return FileSource(path, RawFrames(path, array.offset, shape, array.dtype), shape=shape, stored=stored)
    return FileSource(path, _fortran(array, shape, stored), shape=shape, stored=stored)


def _fortran(array: np.memmap, shape: tuple[int, int, int], stored: np.dtype[np.integer]) -> ChunkedFrames:
    frames = array.reshape(shape, copy=False)
    return ChunkedFrames(
        lambda start, out: np.copyto(out, frames[start : start + len(out)]), lambda: None, shape=shape, stored=stored
    )
