"""Bins <-> planes that zstd codes well: block means, then two residuals' nibbles a byte. No coder here; see `payload.py`.

Bins of half a sigma have 3 bits of entropy. Four of them are often enough equal to four earlier ones for zstd to take them for
a match, which costs bytes and time; of pairs in a byte hardly ever. A pair fits a byte because, less the mean of its 32 x 32
block, nearly every bin lies within a few sigma of 0. The high nibbles are nearly all equal and cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from framefold_protocol.anscombe import Counts, Kind

BLOCK = 32
"""Side in pixels. Blocks of 16 are 1 % smaller on images and slower, of 64 faster and 3 % larger."""
_CENTRE = 8
"""The nibble of no residual."""
_NIBBLES = np.uint16(0x0F0F)
_FOUR = np.uint16(4)
_SAMPLE = 4
"""Every fourth row is enough for a mean."""
_AT_ONCE = 2**18

Bytes = npt.NDArray[np.uint8]
Layout = list[tuple[tuple[int, ...], Kind]]


def layout(shape: tuple[int, int], kind: Kind) -> Layout:
    """Shape and dtype of each plane of (H, W) bins of dtype `kind`: means, low and high nibbles; above 8 bits also the rest."""
    means = (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
    nibbles = ((shape[0] * shape[1] + 1) // 2,)
    byte: Kind = np.dtype(np.uint8)
    planes: Layout = [(means, kind), (nibbles, byte), (nibbles, byte)]
    return planes if kind.itemsize == 1 else [*planes, (shape, kind)]


def split(bins: Counts) -> list[Counts]:
    """The planes of (H, W) bins, as in `layout`."""
    planes = [np.empty(shape, kind) for shape, kind in layout(bins.shape, bins.dtype)]
    means, low, high, *rest = planes
    means[:] = _block_means(bins)
    residuals = np.empty_like(bins, order="C")
    for rows, mean in _bands(bins.shape, means):
        np.subtract(bins[rows], mean - bins.dtype.type(_CENTRE), out=residuals[rows])  # modulo the dtype's range
    flat = residuals.astype(np.uint8, copy=False).ravel()
    for pairs, pixels in _chunks(flat.size):
        low[pairs], high[pairs] = _to_nibbles(flat[pixels])
    for plane in rest:
        np.right_shift(residuals, bins.dtype.type(8), out=plane)
    return planes


def join(planes: list[Counts], shape: tuple[int, int]) -> Counts:
    """The (H, W) bins of such planes."""
    means, low, high, *rest = planes
    flat = np.empty(2 * len(low), np.uint8)
    for pairs, pixels in _chunks(flat.size):
        flat[pixels] = _from_nibbles(low[pairs], high[pairs])
    bins: Counts = flat[: shape[0] * shape[1]].reshape(shape).astype(means.dtype, copy=False)
    for plane in rest:
        bins |= plane << means.dtype.type(8)
    for rows, mean in _bands(shape, means):
        bins[rows] += mean - means.dtype.type(_CENTRE)
    return bins


def _block_means(bins: Counts) -> Counts:
    """(ceil(H / 32), ceil(W / 32)) of the bins' dtype."""
    wide = np.uint32 if bins.itemsize <= 2 else np.uint64
    bands = [bins[first : first + BLOCK : _SAMPLE] for first in range(0, bins.shape[0], BLOCK)]
    sums = np.stack([band.sum(axis=0, dtype=wide) // len(band) for band in bands])
    starts = np.arange(0, bins.shape[1], BLOCK)
    widths = np.diff(starts, append=bins.shape[1]).astype(wide)
    means: Counts = (np.add.reduceat(sums, starts, axis=1) // widths).astype(bins.dtype)
    return means


def _bands(shape: tuple[int, int], means: Counts) -> Iterator[tuple[slice, Counts]]:
    """Each row of blocks: its pixel rows, and its means a pixel each."""
    for row, mean in enumerate(np.repeat(means, BLOCK, axis=1)[:, : shape[1]]):
        yield slice(BLOCK * row, BLOCK * (row + 1)), mean


def _chunks(size: int) -> Iterator[tuple[slice, slice]]:
    """Pairs, and the pixels in them, as many at a time as stay in the cache."""
    for first in range(0, size, _AT_ONCE):
        yield slice(first // 2, (first + _AT_ONCE) // 2), slice(first, first + _AT_ONCE)


def _to_nibbles(residuals: Bytes) -> tuple[Bytes, Bytes]:
    """Low and high nibbles, the first pixel's in the lower half of the first byte; an odd last one pairs with 0."""
    flat = residuals.ravel()
    pairs = (np.append(flat, np.uint8(0)) if flat.size % 2 else flat).view("<u2")
    low, high = pairs & _NIBBLES, (pairs >> _FOUR) & _NIBBLES
    return (low | (low >> _FOUR)).astype(np.uint8), (high | (high >> _FOUR)).astype(np.uint8)


def _from_nibbles(low: Counts, high: Counts) -> Bytes:
    """Inverse of `_to_nibbles`; the odd one stays."""
    pairs, upper = low.astype("<u2"), high.astype("<u2")
    pairs = (pairs | (pairs << _FOUR)) & _NIBBLES
    pairs |= ((upper | (upper << _FOUR)) & _NIBBLES) << _FOUR
    residuals: Bytes = pairs.view(np.uint8)
    return residuals
