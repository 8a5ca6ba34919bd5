"""Blosc2 chunks of a stranger: what they declare, and their values. Only plain ones are opened."""

from __future__ import annotations

import blosc2
import numpy as np

from framefold_protocol.anscombe import Counts, Kind
from framefold_protocol.errors import RemoteProtocolError

MAX_DECODED_BYTES = 2**31 - 1 - 32
"""Blosc2's bound on one chunk."""
_HEADER_BYTES = 32
_PLAIN = (b"\0\0", b"\0\x10")
"""Last bytes of a chunk's header: a plain chunk, and one of zeros."""


def sizes(payload: bytes, at: int = 0) -> tuple[int, int]:
    """What the chunk at this place of the payload declares in its header: bytes decoded, bytes of the chunk."""
    header = payload[at : at + _HEADER_BYTES]
    try:
        if not _is_plain(header):
            raise ValueError("not a plain chunk")
        found, packed, _ = blosc2.get_cbuffer_sizes(header)
    except (ValueError, RuntimeError) as error:
        message = f"payload of {len(payload) - at} bytes is not a Blosc2 chunk of zstd behind at most a byte shuffle"
        raise RemoteProtocolError(message, code="payload") from error
    return found, packed


def decompress(chunk: bytes, shape: tuple[int, ...], kind: Kind) -> Counts:
    """The values of a chunk whose `sizes` are known to be right, in a fresh array."""
    values = np.empty(shape, kind.newbyteorder("<"))
    try:
        blosc2.decompress2(chunk, dst=values, nthreads=1)
    except (ValueError, RuntimeError) as error:
        raise RemoteProtocolError(f"payload chunk of {len(chunk)} bytes cannot be decoded: {error}", code="payload") from error
    return values.astype(kind, copy=False)


def _is_plain(chunk: bytes) -> bool:
    """Whether the header asks for zstd (or stored bytes), at most a byte shuffle, and at most all zeros as special value.

    Blosc2 would also load plugins by running a Python interpreter, open files, or leave memory as it is, when a chunk asks.
    https://github.com/Blosc/c-blosc2/blob/main/README_CHUNK_FORMAT.rst
    """
    if len(chunk) < _HEADER_BYTES:
        return False
    version, _, flags = chunk[:3]
    filters, more_flags = chunk[16:22], chunk[30:32]
    stored, extended = flags & 2, flags & 5 == 5
    return version == 5 and extended and bool(stored or flags >> 5 == 4) and set(filters) <= {0, 1} and more_flags in _PLAIN
