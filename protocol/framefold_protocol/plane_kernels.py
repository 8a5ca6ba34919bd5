"""The loops of `planes.py`, compiled: each reads the pixels once, a row of blocks at a time, so that the rest is in the cache.

All arrays are two-dimensional or flat, contiguous and of unsigned integers; sums and differences are modulo their type's range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from framefold_protocol.compiled import compiled
from framefold_protocol.narrow import either, shifted_down

BLOCK = 32
"""Side of a block in pixels. Blocks of 16 are 1 % smaller on images and slower, of 64 faster and 3 % larger."""
CENTRE = 8
"""The nibble of no residual."""
FIELDS = (4, 2, 1)
"""Widths in bits that what is left of the lowest bits is packed in, behind whole bytes."""
_SAMPLE = 4
"""Every fourth row is enough for a mean."""
_LANES = 8
"""Bytes that are packed at a time, at most."""

Counts = npt.NDArray[np.unsignedinteger]
Bytes = npt.NDArray[np.uint8]


@compiled()
def look_up(table: Counts, values: Counts, found: Counts) -> None:
    """The table's entry for each of the flat values; none is beyond its end."""
    for i in range(values.size):
        found[i] = table[values[i]]


@compiled()
def differences(values: Counts, found: npt.NDArray[np.float64]) -> None:
    """Mean absolute difference of neighbours in stretches of 32 pixels of some rows: (rows, W // 32)."""
    apart = values.shape[0] // found.shape[0]
    for row in range(found.shape[0]):
        for block in range(found.shape[1]):
            line = values[row * apart, block * BLOCK : (block + 1) * BLOCK]
            total = 0.0
            for x in range(BLOCK - 1):
                total += abs(np.float64(line[x + 1]) - np.float64(line[x]))
            found[row, block] = total / (BLOCK - 1)


@compiled()
def split(
    values: Counts, shift: int, means: Counts, low: Bytes, high: Bytes, rest: Bytes, bits: Bytes, columns: Counts
) -> bool:
    """Fill the planes of (H, W) values, see `planes.Layout`; `columns`: a row of integers that hold 32 values' sum.

    Without `rest` only a byte of each value above the lowest `shift` bits is kept; returns whether there is no more.
    """
    width, kind = values.shape[1], values.dtype.type
    above = kind(0)
    offsets = np.empty(width, values.dtype)
    residuals = np.empty(BLOCK * width + _LANES, np.uint8)
    lowest = np.empty(BLOCK * width + _LANES, np.uint8)
    for row in range(means.shape[0]):
        rows = values[row * BLOCK : (row + 1) * BLOCK]
        first = row * BLOCK * width
        _means(rows, shift, columns, means[row])
        _spread(means[row], offsets)
        for y in range(len(rows)):
            at = y * width
            above |= _residuals(rows[y], shift, offsets, residuals[at : at + width], lowest[at : at + width])
            for byte in range(len(rest)):
                _higher_byte(rows[y], shift, offsets, 8 * (byte + 1), rest[byte, first + at : first + at + width])
        residuals[rows.size :] = lowest[rows.size :] = 0
        _pack_nibbles(residuals[: rows.size + rows.size % 2], low[first // 2 :], high[first // 2 :])
        if shift:
            _pack(rows.reshape(rows.size), lowest, shift, first, values.size, bits)
    return bool(above >> kind(8) == 0)


@compiled()
def join(means: Counts, low: Bytes, high: Bytes, rest: Bytes, bits: Bytes, shift: int, values: Counts) -> None:
    """Inverse of `split`."""
    width = values.shape[1]
    offsets = np.empty(width, values.dtype)
    residuals = np.empty(BLOCK * width + 1, np.uint8)
    for row in range(means.shape[0]):
        rows = values[row * BLOCK : (row + 1) * BLOCK]
        first = row * BLOCK * width
        _unpack_nibbles(low[first // 2 :], high[first // 2 :], residuals[: rows.size + rows.size % 2])
        _spread(means[row], offsets)
        for y in range(len(rows)):
            line = residuals[y * width : (y + 1) * width]
            if len(rest):
                at = first + y * width
                _restore(line, rest[:, at : at + width], shift, offsets, rows[y])
            else:
                _restore_bytes(line, shift, offsets, rows[y])
        if shift:
            _unpack(bits, shift, first, values.size, rows.reshape(rows.size))


@compiled()
def _means(rows: Counts, shift: int, columns: Counts, means: Counts) -> None:
    """Of each block in a row of them, from every fourth row of pixels, without their lowest bits."""
    columns[:] = 0
    taken, step = 0, rows.dtype.type(shift)
    for y in range(0, rows.shape[0], _SAMPLE):
        taken += 1
        for x in range(rows.shape[1]):
            columns[x] += shifted_down(rows[y, x], step)
    for block in range(means.size):
        part = columns[block * BLOCK : (block + 1) * BLOCK]
        total = part[0] - part[0]
        for x in range(part.size):
            total += part[x]
        means[block] = total // (taken * part.size)


@compiled()
def _spread(means: Counts, offsets: Counts) -> None:
    """A row of pixels: what is to be added to their residuals."""
    for block in range(means.size):
        offsets[block * BLOCK : (block + 1) * BLOCK] = means[block] - CENTRE


@compiled()
def _residuals(line: Counts, shift: int, offsets: Counts, found: Bytes, lowest: Bytes) -> np.unsignedinteger:
    """The lowest byte of each residual, and the byte of the value that it begins in; returns the bits that any of the shifted
    values has."""
    kind = line.dtype.type
    step, whole, above = kind(shift), kind(shift // 8 * 8), kind(0)
    for x in range(line.size):
        above = either(above, line[x])
        found[x] = np.uint8(shifted_down(line[x], step) - offsets[x])
        lowest[x] = np.uint8(shifted_down(line[x], whole))
    shifted: np.unsignedinteger = shifted_down(above, step)
    return shifted


@compiled()
def _higher_byte(line: Counts, shift: int, offsets: Counts, at: int, found: Bytes) -> None:
    """Another byte of each residual, its bits from `at` on."""
    kind = line.dtype.type
    step, start = kind(shift), kind(at)
    for x in range(line.size):
        found[x] = np.uint8(shifted_down(kind(shifted_down(line[x], step) - offsets[x]), start))


@compiled()
def _restore(residuals: Bytes, rest: Bytes, shift: int, offsets: Counts, line: Counts) -> None:
    """Values less their lowest bits."""
    kind = line.dtype.type
    for x in range(line.size):
        value = kind(residuals[x])
        for byte in range(len(rest)):
            value |= kind(kind(rest[byte, x]) << kind(8 * (byte + 1)))
        line[x] = kind(value + offsets[x]) << kind(shift)


@compiled()
def _restore_bytes(residuals: Bytes, shift: int, offsets: Counts, line: Counts) -> None:
    """Values less their lowest bits, of one byte above them."""
    kind = line.dtype.type
    for x in range(line.size):
        line[x] = kind(np.uint8(residuals[x] + offsets[x])) << kind(shift)


@compiled()
def _pack_nibbles(residuals: Bytes, low: Bytes, high: Bytes) -> None:
    for i in range(residuals.size // 2):
        one, two = residuals[2 * i], residuals[2 * i + 1]
        low[i] = (one & 15) | (two << 4)
        high[i] = (one >> 4) | (two & 240)


@compiled()
def _unpack_nibbles(low: Bytes, high: Bytes, residuals: Bytes) -> None:
    for i in range(residuals.size // 2):
        residuals[2 * i] = (low[i] & 15) | (high[i] << 4)
        residuals[2 * i + 1] = (low[i] >> 4) | (high[i] & 240)


def _packer(width: int, lanes: type[np.unsignedinteger]) -> tuple[Callable[..., None], Callable[..., None]]:
    """From bytes to `width` bits of each, from bit `below` on, as many a byte as fit it, the first lowest; and back into values
    whose bits there are 0. A lane of a vector is what becomes a byte."""
    each, mask = 8 // width, 2**width - 1
    chosen, step, halvings = lanes(sum(mask << (8 * j) for j in range(each))), 8 - width, FIELDS.index(width) + 1

    @compiled()
    def pack(lowest: Bytes, below: int, found: Bytes) -> None:
        groups, start = lowest.view(lanes), lanes(below)
        for i in range(found.size):
            packed = lanes(shifted_down(groups[i], start) & chosen)
            for k in range(halvings):  # byte to byte, two to two and so on
                packed = either(packed, shifted_down(packed, lanes(step << k)))
            found[i] = np.uint8(packed)

    @compiled()
    def unpack(packed: Bytes, below: int, values: Counts) -> None:
        kind = values.dtype.type
        whole = values.size // each
        for i in range(whole):
            for j in range(each):
                values[each * i + j] |= kind(kind((packed[i] >> (width * j)) & mask) << kind(below))
        for j in range(values.size % each):
            values[each * whole + j] |= kind(kind((packed[whole] >> (width * j)) & mask) << kind(below))

    return pack, unpack


_pack_4, _unpack_4 = _packer(4, np.uint16)
_pack_2, _unpack_2 = _packer(2, np.uint32)
_pack_1, _unpack_1 = _packer(1, np.uint64)


@compiled()
def _pack(values: Counts, lowest: Bytes, shift: int, first: int, size: int, bits: Bytes) -> None:
    """The lowest `shift` bits of flat values, which are from pixel `first` on of `size` pixels; see `planes.Layout`.

    `lowest`: the byte of each that its highest of these bits lies in, and zeros.
    """
    at = 0
    for byte in range(shift // 8):
        for i in range(values.size):
            bits[at + first + i] = np.uint8(values[i] >> (8 * byte))
        at += size
    below, end = 0, first + values.size
    if shift & 4:
        _pack_4(lowest, below, bits[at + first // 2 : at + (end + 1) // 2])
        at, below = at + (size + 1) // 2, below + 4
    if shift & 2:
        _pack_2(lowest, below, bits[at + first // 4 : at + (end + 3) // 4])
        at, below = at + (size + 3) // 4, below + 2
    if shift & 1:
        _pack_1(lowest, below, bits[at + first // 8 : at + (end + 7) // 8])


@compiled()
def _unpack(bits: Bytes, shift: int, first: int, size: int, values: Counts) -> None:
    """Inverse of `_pack`, into values whose lowest bits are 0."""
    kind = values.dtype.type
    at, below = 0, 0
    for _ in range(shift // 8):
        for i in range(values.size):
            values[i] |= kind(kind(bits[at + first + i]) << kind(below))
        at, below = at + size, below + 8
    if shift & 4:
        _unpack_4(bits[at + first // 2 :], below, values)
        at, below = at + (size + 1) // 2, below + 4
    if shift & 2:
        _unpack_2(bits[at + first // 4 :], below, values)
        at, below = at + (size + 3) // 4, below + 2
    if shift & 1:
        _unpack_1(bits[at + first // 8 :], below, values)
