"""Pixels <-> payload bytes: Blosc2 chunks (byte shuffle, zstd level 1) of the values, or of the planes of their bins.

Snapshots are shot noise: behind the byte shuffle zstd-1 lies within 3 % of their order-0 entropy, if the values straddle no
byte boundary: hence `base`. The near-lossless codec's bins are made in `anscombe.py`, their planes in `planes.py`. Decoding
checks every size against what the header promised before it allocates anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import blosc2
import numpy as np

from framefold_protocol import planes
from framefold_protocol.anscombe import Counts, Kind, VarianceStabilised
from framefold_protocol.errors import RemoteProtocolError

CODEC = "blosc2"
"""One chunk, of the values themselves."""
NEAR_LOSSLESS = "anscombe"
"""Several chunks, of the planes of their bins."""
DTYPES = ("uint8", "uint16", "uint32", "uint64")
MAX_DECODED_BYTES = 2**31 - 1 - 32
"""Blosc2's bound on one chunk."""
_CHUNK_HEADER_BYTES = 32
_PLAIN = (b"\0\0", b"\0\x10")
"""Last bytes of a chunk's header: a plain chunk, and one of zeros."""
_BLOCK_VALUES = 2**19
"""One zstd input: above 256 KiB a byte plane, zstd-1 looks for long matches only, which is faster and smaller on noise."""
blosc2.set_releasegil(True)  # of the whole process; its default would make fold and link wait for every chunk


@dataclass(frozen=True)
class Packed:
    """Coded pixels: what a message's fields of the same names hold."""

    dtype: str
    codec: str
    payload: bytes = field(repr=False)
    base: int = 0
    quantisation: VarianceStabilised | None = None


def pack(pixels: Counts, quantisation: VarianceStabilised | None = None, *, overwrite: bool = False) -> Packed:
    """Code an array of one of `DTYPES` exactly; or (H, W) sums, each to within `quantisation.error_bound` of it.

    `overwrite`: the pixels are the coder's to work in, their values are lost; it saves a copy in fresh memory.
    """
    if quantisation:
        coded = b"".join(map(encode, planes.split(quantisation.quantise(pixels))))
        return Packed(pixels.dtype.name, NEAR_LOSSLESS, coded, quantisation=quantisation)
    base = _choose_base(pixels)
    if base:
        pixels = np.subtract(pixels, pixels.dtype.type(base), out=pixels if overwrite else None)
    return Packed(pixels.dtype.name, CODEC, encode(pixels), base)


def _choose_base(values: Counts) -> int:
    """What to subtract so that most values fit a byte, from a sample: 0 when all do, else the mean less 128."""
    sample = values[..., ::16, :]
    if values.itemsize == 1 or int(sample.max(initial=0)) < 256:
        return 0
    return max(0, int(sample.mean()) - 128)


def encode(values: Counts) -> bytes:
    """A chunk of the values as they are."""
    packed: bytes = blosc2.compress2(
        np.ascontiguousarray(values, values.dtype.newbyteorder("<")),
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        filters=[blosc2.Filter.SHUFFLE if values.itemsize > 1 else blosc2.Filter.NOFILTER],
        typesize=values.itemsize,
        blocksize=_BLOCK_VALUES * values.itemsize,
        nthreads=1,
    )
    return packed


def decode(
    payload: bytes,
    codec: str,
    dtype: str,
    shape: tuple[int, ...],
    base: int = 0,
    quantisation: VarianceStabilised | None = None,
) -> Counts:
    """The pixels, in a fresh array. Raises `RemoteProtocolError` when anything is not what was promised."""
    expected = NEAR_LOSSLESS if quantisation else CODEC
    if codec != expected or dtype not in DTYPES:
        quantised = "with" if quantisation else "without"
        message = f"payload {quantised} quantisation is {dtype!r} in codec {codec!r}, expected {DTYPES} in {expected!r}"
        raise RemoteProtocolError(message, code="codec")
    kind: Kind = np.dtype(dtype)
    largest = 0 if quantisation else int(np.iinfo(kind).max)
    if base > largest:
        raise RemoteProtocolError(f"payload has base {base}, expected at most {largest}", code="codec")
    if quantisation:
        return quantisation.restore(_decode_bins(payload, kind, shape), kind)
    (values,) = _decode_chunks(payload, [(shape, kind)])
    return values + kind.type(base) if base else values


def _decode_bins(payload: bytes, counts: Kind, shape: tuple[int, ...]) -> Counts:
    """Bins in uint8 or in the dtype of the counts: the size of the first chunk, the block means, says which."""
    height, width = shape
    layout = planes.layout((height, width), np.dtype(np.uint8))
    if _sizes(payload)[0] != math.prod(layout[0][0]):
        layout = planes.layout((height, width), counts)
    return planes.join(_decode_chunks(payload, layout), (height, width))


def _decode_chunks(payload: bytes, layout: planes.Layout) -> list[Counts]:
    """An array of each of these shapes and dtypes, one chunk after the other; all sizes are checked first."""
    chunks, rest = [], payload
    for shape, kind in layout:
        expected = math.prod(shape) * kind.itemsize
        found, packed = _sizes(rest)
        if found != expected or packed > len(rest) or expected > MAX_DECODED_BYTES:
            message = f"payload with {len(rest)} bytes left declares {packed} bytes holding {found}, expected {expected}"
            raise RemoteProtocolError(message, code="payload")
        chunks.append(rest[:packed])
        rest = rest[packed:]
    if rest:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes has {len(rest)} bytes too many", code="payload")
    return [_decompress(chunk, *plane) for chunk, plane in zip(chunks, layout, strict=True)]


def _decompress(chunk: bytes, shape: tuple[int, ...], kind: Kind) -> Counts:
    values = np.empty(shape, kind.newbyteorder("<"))
    try:
        blosc2.decompress2(chunk, dst=values, nthreads=1)
    except (ValueError, RuntimeError) as error:
        raise RemoteProtocolError(f"payload chunk of {len(chunk)} bytes cannot be decoded: {error}", code="payload") from error
    return values.astype(kind, copy=False)


def _sizes(payload: bytes) -> tuple[int, int]:
    """What the chunk at the beginning of the payload declares: bytes decoded, bytes of the chunk."""
    try:
        if not _is_plain(payload):
            raise ValueError("not a plain chunk")
        found, packed, _ = blosc2.get_cbuffer_sizes(payload)
    except (ValueError, RuntimeError) as error:
        message = f"payload of {len(payload)} bytes is not a Blosc2 chunk of zstd behind at most a byte shuffle"
        raise RemoteProtocolError(message, code="payload") from error
    return found, packed


def _is_plain(chunk: bytes) -> bool:
    """Whether the header asks for zstd (or stored bytes), at most a byte shuffle, and at most all zeros as special value.

    Blosc2 would also load plugins by running a Python interpreter, open files, or leave memory as it is, when a chunk asks.
    https://github.com/Blosc/c-blosc2/blob/main/README_CHUNK_FORMAT.rst
    """
    if len(chunk) < _CHUNK_HEADER_BYTES:
        return False
    version, _, flags = chunk[:3]
    filters, more_flags = chunk[16:22], chunk[30:32]
    stored, extended = flags & 2, flags & 5 == 5
    return version == 5 and extended and bool(stored or flags >> 5 == 4) and set(filters) <= {0, 1} and more_flags in _PLAIN
