"""Pixels <-> payload bytes: Blosc2 chunks (zstd level 1) of the planes of the pixels, or of their bins, stripe by stripe.

Snapshots are shot noise, and zstd's entropy coder is what shortens it: how they become planes of few symbols is in `planes.py`,
the near-lossless codec's bins are made in `anscombe.py`, payloads of older encoders are read by `payload_v1.py`. Decoding
checks every size against what the header promised before it allocates anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import blosc2
import numpy as np

from framefold_protocol import payload_v1, planes
from framefold_protocol.anscombe import Counts, Kind, VarianceStabilised
from framefold_protocol.chunks import decompress, sizes
from framefold_protocol.errors import InputError, RemoteProtocolError
from framefold_protocol.messages import BINS, PLANES
from framefold_protocol.planes import BYTE, Bytes, Layout

DTYPES = ("uint8", "uint16", "uint32", "uint64")
blosc2.set_releasegil(True)  # of the whole process; its default would make fold and link wait for every chunk


class Coded(Protocol):
    """What messages with pixels have in common."""

    @property
    def dtype(self) -> str:
        """Of the pixels."""

    @property
    def codec(self) -> str:
        """How they became bytes."""

    @property
    def payload(self) -> bytes:
        """The bytes."""

    @property
    def base(self) -> int:
        """What was subtracted from them; `payload_v1` only."""

    @property
    def shift(self) -> int:
        """How many of their lowest bits are apart."""


@dataclass(frozen=True)
class Packed:
    """Coded pixels: what a message's fields of the same names hold."""

    dtype: str
    codec: str
    payload: bytes = field(repr=False)
    base: int = 0
    shift: int = 0


def pack(pixels: Counts, quantisation: VarianceStabilised | None = None) -> Packed:
    """Code an array (..., H, W) of one of `DTYPES` exactly; or (H, W) sums, each to within `quantisation.error_bound` of it."""
    kind = pixels.dtype.newbyteorder("=")
    if kind.name not in DTYPES or not pixels.size:
        raise InputError(f"pixels are {pixels.dtype} {pixels.shape}, expected some of {', '.join(DTYPES)}")
    values = np.ascontiguousarray(pixels, kind).reshape(-1, pixels.shape[-1])
    values = values if values.flags.writeable else values.copy()  # Numba compiles once more for what may not be written
    if quantisation:
        values = quantisation.quantise(values)
    shift = planes.choose_shift(values, planes.WIDEST_OF_BINS if quantisation else planes.WIDEST)
    stripes = planes.stripes(values.shape)
    memory = np.empty(planes.most_bytes(values[stripes[0]].shape, values.dtype), np.uint8)
    chunks = (_compress(*planes.split(values[rows], shift, memory)) for rows in stripes)
    return Packed(kind.name, BINS if quantisation else PLANES, b"".join(chunks), shift=shift)


def _compress(layout: Layout, found: Bytes) -> bytes:
    """A chunk of planes: no zstd input holds part of both kinds of nibbles."""
    packed: bytes = blosc2.compress2(
        found,
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        filters=[blosc2.Filter.NOFILTER],
        typesize=1,
        blocksize=layout.sizes[0],
        nthreads=1,
    )
    return packed


def decode(coded: Coded, shape: tuple[int, ...], quantisation: VarianceStabilised | None = None) -> Counts:
    """The pixels, in a fresh array. Raises `RemoteProtocolError` when anything is not what was promised."""
    if coded.dtype not in DTYPES:
        raise RemoteProtocolError(f"payload is of type {coded.dtype!r}, expected one of {', '.join(DTYPES)}", code="codec")
    kind: Kind = np.dtype(coded.dtype)
    if coded.codec in payload_v1.CODECS and not coded.shift:
        return payload_v1.decode(coded.payload, coded.codec, kind, shape, coded.base, quantisation)
    wanted = BINS if quantisation else PLANES
    if coded.codec != wanted or coded.base or coded.shift >= 8 * kind.itemsize:
        found = f"codec {coded.codec!r} with base {coded.base} and shift {coded.shift}"
        quantised = "with" if quantisation else "without"
        expected = f"{wanted!r} with base 0 and shift below {8 * kind.itemsize}"
        raise RemoteProtocolError(f"payload {quantised} quantisation is of {found}, expected {expected}", code="codec")
    rows = math.prod(shape[:-1])
    chunks = _chunks(coded.payload, (rows, shape[-1]), kind, coded.shift)
    values = np.empty((rows, shape[-1]), kind)
    for stripe, (layout, chunk) in zip(planes.stripes(values.shape), chunks, strict=True):
        planes.join(decompress(chunk, (layout.size,), BYTE), layout, values[stripe])
    values = values.reshape(shape)
    return quantisation.restore(values, kind) if quantisation else values


def _chunks(payload: bytes, shape: tuple[int, int], kind: Kind, shift: int) -> list[tuple[Layout, bytes]]:
    """Each stripe's layout and chunk. A chunk's size says whether above the lowest bits is a byte, or all that the type has."""
    chunks, at = [], 0
    for rows in planes.stripes(shape):
        layouts = [Layout((rows.stop - rows.start, shape[1]), one, shift) for one in (BYTE, kind)]
        found, packed = sizes(payload, at)
        layout = next((one for one in layouts if one.size == found), None)
        if layout is None or packed > len(payload) - at:
            expected = " or ".join(str(one.size) for one in layouts)
            declared = f"payload with {len(payload) - at} bytes left declares {packed} bytes holding {found}"
            raise RemoteProtocolError(f"{declared}, expected {expected}", code="payload")
        chunks.append((layout, payload[at : at + packed]))
        at += packed
    if at < len(payload):
        raise RemoteProtocolError(f"payload of {len(payload)} bytes has {len(payload) - at} bytes too many", code="payload")
    return chunks


def warm_up() -> None:
    """Compile what `decode` needs, or load what was compiled before; takes seconds the first time on a machine."""
    for name in DTYPES:
        kind: Kind = np.dtype(name)
        layout, values = Layout((1, 1), kind), np.empty((1, 1), kind)
        planes.join(np.zeros(layout.size, np.uint8), layout, values)
        VarianceStabilised().restore(values, kind)
