"""A stream's metadata at the store's door: what it must be before a folder is named after it, and its JSON form.

Store attributes and catalogue keep the same JSON; unknown fields are ignored on reading.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import TypeAdapter, ValidationError

from framefold_protocol.errors import InputError, RemoteProtocolError, StoreError
from framefold_protocol.messages import StreamMetadata

FRAME_DTYPES = ("uint8", "uint16", "uint32")
MAX_SIDE = 65535
"""Pixels of a frame's height or width."""
MAX_NAME = 1000
"""Characters of a stream's name."""

_ADAPTER = TypeAdapter(StreamMetadata)


def check_metadata(stream: StreamMetadata) -> None:
    """Raise `RemoteProtocolError` (code `metadata`) when the values cannot be a stream's; types are the wire's business."""
    families = stream.families
    checks = (
        ("stream_id", re.fullmatch("[0-9a-f]{32}", stream.stream_id), "32 lower-case hex digits"),
        ("name", len(stream.name) <= MAX_NAME, f"at most {MAX_NAME} characters"),
        ("shape", all(1 <= side <= MAX_SIDE for side in stream.shape), f"sides of 1 to {MAX_SIDE} pixels"),
        ("dtype", stream.dtype in FRAME_DTYPES, f"one of {', '.join(FRAME_DTYPES)}"),
        ("families", len({spec.ratio for spec in families}) == 1 and len(families) <= 256, "1 to 256 families of one ratio"),
        ("mask_digests", len(stream.mask_digests) == len(families), "one for each family"),
        ("audit", stream.audit < 2**31, "below 2^31"),
        ("created_unix_ns", stream.created_unix_ns < 2**63, "nanoseconds since 1970"),
        *((name, _positive(getattr(stream, name)), "above 0, or none") for name in _QUANTITIES),
    )
    for name, valid, expected in checks:
        if not valid:
            found = repr(getattr(stream, name))[:80]
            raise RemoteProtocolError(f"stream's {name} is {found}, expected {expected}", code="metadata")


_QUANTITIES = ("frame_time_s", "pixel_size_nm", "counts_per_electron")


def _positive(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value > 0)


def to_json(stream: StreamMetadata) -> dict[str, Any]:
    """The metadata as plain JSON values."""
    fields: dict[str, Any] = _ADAPTER.dump_python(stream, mode="json")
    return fields


def from_json(fields: object, where: str) -> StreamMetadata:
    """The metadata again. Raises `StoreError` naming `where` it was read when it is not what `to_json` wrote."""
    try:
        return _ADAPTER.validate_python(fields)
    except (ValidationError, InputError) as error:
        hint = "Restore it from a backup, or read it with the framefold version that wrote it"
        raise StoreError(f"stream metadata in {where} cannot be read: {error}", hint=hint) from error
