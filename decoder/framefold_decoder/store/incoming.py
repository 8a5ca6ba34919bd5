"""Data messages at the store's door: their order and sizes checked against the stream, their pixels decoded. Stores nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_decoder.store.layout import snapshot_dtype
from framefold_protocol import payload
from framefold_protocol.anscombe import GAINS
from framefold_protocol.coding import BlockMap, block_map_shape
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.messages import Audit, Data, Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.noise import NoiseModel

Counts = npt.NDArray[np.unsignedinteger]
MAX_FRAMES = 2**53
"""Of one stream: integers that JSON and every database hold exactly."""
MAX_REASON = 1000
"""Characters of a gap's reason."""
MAX_RAW_BYTES = 2**27
"""Of the frames in one message, unless it holds one only: a chunk of zeros has 32 bytes, whatever it decodes to."""


@dataclass(frozen=True)
class Folded:
    """A snapshot's pixels."""

    sums: Counts
    """(H, W), exact, or quantised as the message says."""
    block_map: BlockMap
    """Zeros where the message has none."""


Pixels = Folded | Counts | None
"""Of a snapshot; of raw frames and of an audit group, (n, H, W); of a gap."""


def check_order(batch: Sequence[Data], first_frame: int) -> None:
    """Raise `RemoteProtocolError` unless the positions follow each other and their frames do too, from `first_frame` on."""
    position = batch[0].position
    for data in batch:
        fewest = 0 if isinstance(data, Audit) else 1
        placed = (data.position, data.first_frame) == (position, first_frame)
        if not placed or not fewest <= data.frames <= MAX_FRAMES - first_frame:
            found = f"position {data.position} with {data.frames} frames from {data.first_frame}"
            message = f"data has {found}, expected position {position} with at least 1 frame from {first_frame}"
            raise RemoteProtocolError(message, code="sequence-jump", hint="Say hello and resume", retry=True)
        position, first_frame = position + 1, first_frame + data.frames


def unpack(data: Data, stream: StreamMetadata) -> Pixels:
    """Decode a message's pixels. Raises `RemoteProtocolError` when they are not what header and stream promise."""
    if not isinstance(data, Gap):
        _expect(data, "timestamp", data.timestamp_ns, "nanoseconds since 1970", data.timestamp_ns < 2**63)
    match data:
        case Gap():
            _expect(data, "reason", data.reason[:80], f"at most {MAX_REASON} characters", len(data.reason) <= MAX_REASON)
            return None
        case RawFrames():
            return _raw(data, data.frames, stream)
        case Audit(count=count):
            _expect(data, "an audit group", data.count, "none in a stream whose hello announces none", stream.audit > 0)
            _expect(data, "number of audit frames", count, f"1 to {stream.ratio}", 1 <= count <= stream.ratio)
            return _raw(data, count, stream)
        case Snapshot():
            _expect(data, "number of frames", data.frames, f"at most {stream.ratio}", data.frames <= stream.ratio)
            widest = np.dtype(snapshot_dtype(stream))
            fits = data.dtype not in payload.DTYPES or np.dtype(data.dtype) <= widest
            _expect(data, "type", data.dtype, f"at most {widest}", fits)
            if data.noise:
                _expect(data, "noise", vars(data.noise), "a gain of 0.001 to 10^6, the rest 0 to 2^40", _bounded(data.noise))
            sums = payload.decode(data, stream.shape, data.quantisation)
            return Folded(sums, _block_map(data, stream))


def pixels_size(data: Data, stream: StreamMetadata) -> int:
    """Bytes of a checked message's pixels, decoded."""
    match data:
        case Gap():
            return 0
        case Snapshot():
            images = 1
        case Audit(count=images) | RawFrames(frames=images):
            pass
    return images * math.prod(stream.shape) * np.dtype(data.dtype).itemsize


def _raw(data: RawFrames | Audit, count: int, stream: StreamMetadata) -> Counts:
    """(count, H, W) of the stream's dtype."""
    _expect(data, "type", data.dtype, stream.dtype, data.dtype == stream.dtype)
    size = count * math.prod(stream.shape) * np.dtype(data.dtype).itemsize
    _expect(data, "bytes of frames", size, f"at most {MAX_RAW_BYTES}, or one frame", count == 1 or size <= MAX_RAW_BYTES)
    return payload.decode(data, (count, *stream.shape))


def _block_map(data: Snapshot, stream: StreamMetadata) -> BlockMap:
    shape = block_map_shape(stream.shape)
    families = np.frombuffer(data.block_map, np.uint8) if data.block_map is not None else np.zeros(shape, np.uint8)
    blocks, known = shape[0] * shape[1], len(stream.families)
    _expect(data, "number of blocks", families.size, blocks, families.size == blocks)
    _expect(data, "largest family", int(families.max()), f"below {known}", int(families.max()) < known)
    return families.reshape(shape)


def _bounded(noise: NoiseModel) -> bool:
    others = noise.offset_counts, noise.read_noise_counts
    return GAINS[0] <= noise.counts_per_electron <= GAINS[1] and all(0 <= value <= 2.0**40 for value in others)


def _expect(data: Data, name: str, found: object, expected: object, valid: bool) -> None:
    if not valid:
        message = f"position {data.position} has {name} {found!r}, expected {expected}"
        raise RemoteProtocolError(message, code="metadata")
