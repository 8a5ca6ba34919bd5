"""Payloads of protocol versions 1 and 2, read only: the values in one chunk, or the planes of their bins in a chunk each."""

from __future__ import annotations

import math

import numpy as np

from framefold_protocol import planes
from framefold_protocol.anscombe import Counts, Kind, VarianceStabilised
from framefold_protocol.chunks import MAX_DECODED_BYTES, decompress, sizes
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.planes import BYTE, Layout

EXACT, NEAR_LOSSLESS = "blosc2", "anscombe"
CODECS = (EXACT, NEAR_LOSSLESS)
Planes = list[tuple[tuple[int, ...], Kind]]


def decode(
    payload: bytes, codec: str, kind: Kind, shape: tuple[int, ...], base: int, quantisation: VarianceStabilised | None
) -> Counts:
    """The pixels, in a fresh array. Raises `RemoteProtocolError` when anything is not what was promised."""
    expected = NEAR_LOSSLESS if quantisation else EXACT
    if codec != expected:
        found = f"payload {'with' if quantisation else 'without'} quantisation is in codec {codec!r}"
        raise RemoteProtocolError(f"{found}, expected {expected!r}", code="codec")
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
    layout = Layout((height, width), BYTE)
    if sizes(payload)[0] != math.prod(layout.means_shape):
        layout = Layout((height, width), counts)
    pairs, kind = (layout.sizes[0],), layout.kind
    expected: Planes = [(layout.means_shape, kind), (pairs, BYTE), (pairs, BYTE)]
    means, low, high, *wide = _decode_chunks(payload, expected + ([(shape, kind)] if kind.itemsize > 1 else []))
    rest = [(plane >> kind.type(8 * byte)).astype(np.uint8).ravel() for plane in wide for byte in range(kind.itemsize - 1)]
    packed = np.frombuffer(means.astype(kind.newbyteorder("<")), np.uint8)
    values = np.empty(layout.shape, kind)
    planes.join(np.concatenate([low, high, *rest, packed]), layout, values)
    return values


def _decode_chunks(payload: bytes, planes: Planes) -> list[Counts]:
    """An array of each of these shapes and dtypes, one chunk after the other; all sizes are checked first."""
    chunks, rest = [], payload
    for shape, kind in planes:
        expected = math.prod(shape) * kind.itemsize
        found, packed = sizes(rest)
        if found != expected or packed > len(rest) or expected > MAX_DECODED_BYTES:
            message = f"payload with {len(rest)} bytes left declares {packed} bytes holding {found}, expected {expected}"
            raise RemoteProtocolError(message, code="payload")
        chunks.append(rest[:packed])
        rest = rest[packed:]
    if rest:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes has {len(rest)} bytes too many", code="payload")
    return [decompress(chunk, *plane) for chunk, plane in zip(chunks, planes, strict=True)]
