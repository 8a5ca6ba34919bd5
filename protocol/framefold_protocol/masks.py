"""Coding masks: from a short `MaskSpec` to bits, the same on every machine.

A mask set is a *cell* of B binary patterns, repeated over the frame (`period` pixels; 0 means one cell as large as the frame).
The cell's bits come from `counter.words`: the word of frame t at cell pixel (y, x) is number (y * w + x) * B + t. Which masks
folded which 64x64 block of one group is in `coding.py`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from framefold_protocol.counter import words
from framefold_protocol.errors import InputError
from framefold_protocol.mask_file import read_mask_file

MaskKind = Literal["balanced", "random", "one-hot", "ones", "file"]
Bits = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

MAX_RATIO = 256
MAX_PERIOD = 4096
MAX_CELL_BITS = 2**32
_BAND_WORDS = 2**22
"""Generator words made at a time: 32 MiB."""


@dataclass(frozen=True)
class MaskSpec:
    """What a mask set derives from. Raises `InputError` when a value is out of bounds."""

    kind: MaskKind = "balanced"
    """balanced: exactly k = floor(density * ratio + 1/2), at least 1, ones per pixel; random: independent bits; one-hot:
    balanced with k = 1; ones: every frame exposed; file: the bits of a file that both sides have."""
    ratio: int = 20
    """B, frames per snapshot, 1 to 256."""
    density: float = 0.25
    """Fraction of ones, above 0 and at most 1; `one-hot`, `ones` and `file` do not use it."""
    period: int = 64
    """Side of the repeated cell in pixels, 1 to 4096; 0: no repetition."""
    seed: int = 0
    """0 to 2^64 - 1."""
    file: str = ""
    """Kind `file` only: the file's name, without folders; each side looks for it in its own mask folder."""

    def __post_init__(self) -> None:
        checks = (
            ("kind", self.kind, self.kind in get_args(MaskKind), f"one of {', '.join(get_args(MaskKind))}"),
            ("ratio", self.ratio, 1 <= self.ratio <= MAX_RATIO, f"1 to {MAX_RATIO} frames per snapshot"),
            ("density", self.density, 0 < self.density <= 1, "above 0 and at most 1"),
            ("period", self.period, 0 <= self.period <= MAX_PERIOD, f"0 (no repetition) to {MAX_PERIOD} pixels"),
            ("seed", self.seed, 0 <= self.seed < 2**64, "0 to 2^64 - 1"),
            ("file", self.file, (self.kind == "file") == bool(self.file), "a file name for kind 'file', empty otherwise"),
            ("file", self.file, self.file == Path(self.file).name, "a file name without folders"),
        )
        for name, value, valid, expected in checks:
            if not valid:
                raise InputError(f"mask {name} is {value!r}, expected {expected}", hint="Correct the mask settings")

    @property
    def ones_per_pixel(self) -> int:
        """k of the balanced kinds: floor(density * ratio + 1/2), at least 1."""
        return 1 if self.kind == "one-hot" else max(1, int(np.floor(self.density * self.ratio + 0.5)))

    def with_ratio(self, ratio: int) -> MaskSpec:
        """The same family for another number of frames per snapshot."""
        return replace(self, ratio=ratio)


@dataclass(frozen=True, eq=False)
class Masks:
    """The bits of one `MaskSpec` for frames of one shape."""

    spec: MaskSpec
    shape: tuple[int, int]
    """(H, W) of the frames in pixels, any size."""
    cell: Bits = field(repr=False)
    """(B, h, w) of {0, 1}, repeated over the frame from its top left corner."""

    @property
    def digest(self) -> str:
        """SHA-256, hex, of `framefold-masks-1`, then B, h, w as little-endian u32, then the cell's bits, first pixel lowest."""
        header = b"framefold-masks-1" + struct.pack("<III", *self.cell.shape)
        return hashlib.sha256(header + np.packbits(self.cell, bitorder="little").tobytes()).hexdigest()

    def window(self, rows: slice = slice(None), columns: slice = slice(None)) -> Bits:
        """The masks of a part of the frame: (B, rows, columns) of {0, 1}, uint8."""
        return self._repeated(self.cell, rows, columns)

    def exposure(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.uint16]:
        """Ones per pixel of a part of the frame: (rows, columns) uint16."""
        return self._repeated(self._ones, rows, columns)

    def cut(self, rows: slice, columns: slice) -> Masks:
        """The masks of a part of the frame, as those of a frame of its own."""
        y, x = (range(side)[part] for side, part in zip(self.shape, (rows, columns), strict=True))
        down, across = (min(sides) for sides in zip((len(y), len(x)), self.cell.shape[1:], strict=True))
        cell = self.window(slice(y.start, y.start + down), slice(x.start, x.start + across))
        return replace(self, shape=(len(y), len(x)), cell=cell)

    @cached_property
    def _ones(self) -> npt.NDArray[np.uint16]:
        """Of the cell, per pixel."""
        return np.asarray(self.cell.sum(axis=0, dtype=np.uint16))

    def _repeated(self, cell: npt.NDArray[Scalar], rows: slice, columns: slice) -> npt.NDArray[Scalar]:
        """A part of the frame of what its cell (..., h, w) is: first widened, then row by row, for whole rows copy fastest.

        Contiguous: indexing would leave the first axis fastest, and whoever reads it slow.
        """
        y = np.arange(self.shape[0])[rows] % cell.shape[-2]
        x = np.arange(self.shape[1])[columns] % cell.shape[-1]
        if y.size and x.size and y[-1] - y[0] == y.size - 1 and x[-1] - x[0] == x.size - 1:  # within one period
            return cell[..., y[0] : y[-1] + 1, x[0] : x[-1] + 1].copy()
        repeated: npt.NDArray[Scalar] = cell.take(x, axis=-1).take(y, axis=-2)
        return repeated

    def packed(self) -> npt.NDArray[np.uint64]:
        """The masks as (B, H, ceil(W / 64)) uint64: bit i of word j is pixel 64 j + i; bits past the width are 0."""
        band = replace(self, shape=(self.cell.shape[1], self.shape[1])).window()  # one cell high, as wide as the frame
        padding = -self.shape[1] % 64
        bits = np.ascontiguousarray(np.packbits(np.pad(band, ((0, 0), (0, 0), (0, padding))), axis=2, bitorder="little"))
        rows = np.arange(self.shape[0]) % self.cell.shape[1]
        return np.ascontiguousarray(bits.view("<u8").astype(np.uint64)[:, rows])


def derive_masks(spec: MaskSpec, shape: tuple[int, int], folder: Path | None = None) -> Masks:
    """The masks of `spec` for (H, W) frames.

    `folder` is where kind `file` looks for `spec.file`. Raises `InputError` when that file is missing or does not fit.
    """
    if spec.kind == "file":
        return Masks(spec, shape, read_mask_file((folder or Path()) / spec.file, spec.ratio, shape))
    h, w = (spec.period, spec.period) if spec.period else shape
    if spec.kind == "ones":
        return Masks(spec, shape, np.ones((spec.ratio, 1, 1), np.uint8))
    if h * w * spec.ratio > MAX_CELL_BITS:
        found = f"a mask cell of {h} x {w} pixels and {spec.ratio} frames"
        raise InputError(f"{found} is too large, expected at most 2^32 bits", hint="Use a mask period, such as 64")
    cell = np.empty((spec.ratio, h, w), np.uint8)
    band = max(1, _BAND_WORDS // (w * spec.ratio))
    for y in range(0, h, band):
        cell[:, y : y + band] = _rows(spec, y, min(band, h - y), w).transpose(2, 0, 1)
    return Masks(spec, shape, cell)


def _rows(spec: MaskSpec, first: int, count: int, width: int) -> Bits:
    """(rows, width, B) bits of the cell's rows from `first` on."""
    row = width * spec.ratio
    keys = words(spec.seed, count * row, start=first * row).reshape(count, width, spec.ratio)
    return _random_bits(keys, spec.density) if spec.kind == "random" else _balanced_bits(keys, spec.ones_per_pixel)


def _random_bits(keys: npt.NDArray[np.uint64], density: float) -> Bits:
    """One where the key's upper 53 bits lie below floor(density * 2^53)."""
    return (keys >> np.uint64(11) < np.uint64(int(density * 2**53))).astype(np.uint8)


def _balanced_bits(keys: npt.NDArray[np.uint64], ones: int) -> Bits:
    """One in the `ones` frames with the smallest keys of each pixel; equal keys go by frame number."""
    chosen = np.argsort(keys, axis=2, kind="stable")[:, :, :ones]
    bits = np.zeros(keys.shape, np.uint8)
    np.put_along_axis(bits, chosen, 1, axis=2)
    return bits
