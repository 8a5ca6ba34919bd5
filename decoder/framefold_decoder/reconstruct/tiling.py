"""Cutting frames into windows that fit memory, and padding a window to the size a net takes. No masks, no nets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

BAND_VOXELS = 16 << 20
"""Pixels times frames of one row band."""

Scalar = TypeVar("Scalar", bound=np.generic)


def row_bands(shape: tuple[int, int], ratio: int) -> Iterator[slice]:
    """Bands of whole rows that cover (H, W) frames, each of at most `BAND_VOXELS` pixels over `ratio` frames, or one row."""
    height = max(1, BAND_VOXELS // (shape[1] * ratio))
    for start in range(0, shape[0], height):
        yield slice(start, min(start + height, shape[0]))


@dataclass(frozen=True)
class Tile:
    """A window of the frame, and the part of it that is kept."""

    rows: slice
    """Of the window in the frame, halo included."""
    columns: slice
    core: tuple[slice, slice]
    """The kept part, in the frame. The cores of all tiles cover the frame once."""
    inner: tuple[slice, slice]
    """The kept part, in the window."""


def tiles(shape: tuple[int, int], side: int, halo: int, multiple: int = 1) -> Iterator[Tile]:
    """Tiles of (H, W) frames: equal cores of about `side` pixels, in windows that reach `halo` pixels farther within the frame.

    Windows start at multiples of `multiple`: a net that works on blocks of that size sees the same blocks in a tile as in the
    whole frame.
    """
    for rows, core_rows in _spans(shape[0], side, halo, multiple):
        for columns, core_columns in _spans(shape[1], side, halo, multiple):
            inner = (_relative(core_rows, rows), _relative(core_columns, columns))
            yield Tile(rows, columns, (core_rows, core_columns), inner)


def pad_to_multiple(array: npt.NDArray[Scalar], multiple: int) -> npt.NDArray[Scalar]:
    """The array with its last two axes extended to a multiple of `multiple`, by reflection at the bottom and right.

    To twice `multiple` at least: exported nets take no single block.
    """
    widths = [max(_round_up(length, multiple), 2 * multiple) - length for length in array.shape[-2:]]
    if not any(widths):
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, width) for width in widths], mode="symmetric")


def _spans(length: int, side: int, halo: int, multiple: int) -> list[tuple[slice, slice]]:
    """Window and core along one axis."""
    step = _round_up(-(-length // -(-length // side)), multiple)
    halo = _round_up(halo, multiple)
    cores = [slice(start, min(start + step, length)) for start in range(0, length, step)]
    return [(slice(max(core.start - halo, 0), min(core.stop + halo, length)), core) for core in cores]


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _relative(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
