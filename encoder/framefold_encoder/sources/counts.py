"""Which arrays are detector frames: unsigned counts of at most 32 bits, in a stack (T, H, W) or alone (H, W).

Signed integers pass as long as no value is negative, which is looked at frame by frame, as they are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError

_CURES = {
    "f": "Save the raw counts, or convert: np.rint(frames / counts_per_unit).clip(0, 65535).astype(np.uint16)",
    "c": "Save the detector's counts; complex values are computed from frames, not frames",
    "b": "Convert: frames.astype(np.uint8)",
    "iu": "If no value exceeds 4294967295, convert: frames.astype(np.uint32)",
}


def stored_dtype(dtype: npt.DTypeLike, where: object) -> np.dtype[np.integer[Any]]:
    """`dtype` in native byte order if frames may have it: 8, 16 or 32-bit integers. `where` begins the error otherwise."""
    stored: np.dtype[Any] = np.dtype(dtype)
    if stored.kind in "iu" and stored.itemsize <= 4:
        return stored.newbyteorder("=")
    cure = next((hint for kinds, hint in _CURES.items() if stored.kind in kinds), "Save the frames as uint8, uint16 or uint32")
    raise InputError(f"{where}: values are {stored.name}, expected uint8, uint16 or uint32 counts", hint=cure)


def unsigned(dtype: np.dtype[np.integer[Any]]) -> np.dtype[np.unsignedinteger[Any]]:
    """The unsigned type of the same width, in native byte order: what `SourceInfo.dtype` says."""
    return np.dtype(f"u{dtype.itemsize}")


def stack_shape(shape: tuple[int, ...], where: object) -> tuple[int, int, int]:
    """(T, H, W) of a stack or of a single frame."""
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        cure = "Choose one, or join the leading axes: frames.reshape(-1, H, W)" if len(shape) > 3 else ""
        raise InputError(f"{where}: shape is {shape}, expected (T, H, W) or (H, W)", hint=cure)
    count, height, width = shape
    if count < 1:
        raise InputError(f"{where}: holds no frames, shape {shape}", hint="Was the recording stopped before its first frame?")
    if height < 1 or width < 1:
        raise InputError(f"{where}: frames have no pixels, shape {shape}")
    if count > 4 and width in (3, 4):
        raise InputError(
            f"{where}: shape {shape} looks like one colour image", hint="Save the detector's counts, not a rendered picture"
        )
    return count, height, width


def refuse_negative(path: Path, frames: npt.NDArray[np.integer[Any]], first: int) -> None:
    """Raise `InputError` naming the frame if any value of `frames` (n, H, W) is negative; `frames[0]` is frame `first`."""
    lowest = frames.min(axis=(1, 2))
    if (lowest < 0).any():
        bad = int(np.argmax(lowest < 0))
        raise InputError(
            f"{path}: frame {first + bad} has the negative value {int(lowest[bad])}, expected counts >= 0",
            hint="Undo the dark subtraction or the signed conversion, or clip: frames.clip(0).astype(np.uint16)",
        )
