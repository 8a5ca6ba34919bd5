"""Streams as an encoder would send them, folded by definition: `sum_t C_t * X_t` in numpy."""

from __future__ import annotations

import uuid

import numpy as np

from framefold_protocol import payload
from framefold_protocol.coding import Coding, block_map_shape
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Audit, Data, Gap, RawFrames, Snapshot, StreamMetadata

ONE_FAMILY = (MaskSpec(ratio=4, period=8),)
TWO_FAMILIES = (*ONE_FAMILY, MaskSpec("ones", ratio=4))


def make_metadata(shape=(37, 70), dtype="uint8", families=ONE_FAMILY, **fields) -> StreamMetadata:
    digests = tuple(derive_masks(spec, shape).digest for spec in families)
    fields = {"stream_id": uuid.uuid4().hex, "name": "example", "created_unix_ns": 1} | fields
    return StreamMetadata(shape=shape, dtype=dtype, families=families, mask_digests=digests, **fields)


class Example:
    """A stream in the making: `fold`, `raw` and `gap` append a message and remember the true frames."""

    def __init__(self, metadata: StreamMetadata, seed: int = 0) -> None:
        self.metadata = metadata
        self.random = np.random.default_rng(seed)
        self.truth = np.zeros((0, *metadata.shape), metadata.dtype)
        self.messages: list[Data] = []
        self.codings: dict[int, Coding] = {}

    @property
    def positions(self) -> int:
        return len(self.messages)

    @property
    def frames(self) -> int:
        return len(self.truth)

    def fold(self, count: int = 1, audited_in: int = 0, ratio: int = 0) -> Example:
        """So many groups of the stream's B or of `ratio`; with `audited_in`, each behind its own frames in so many messages."""
        metadata, ratio = self.metadata, ratio or self.metadata.ratio
        masks = tuple(derive_masks(spec.with_ratio(ratio), metadata.shape) for spec in metadata.families)
        for _ in range(count):
            blocks = self.random.integers(0, len(masks), block_map_shape(metadata.shape), np.uint8) if len(masks) > 1 else None
            frames = self._draw(ratio)
            for part in np.array_split(frames, audited_in) if audited_in else ():
                self._add(Audit, len(part), 1000 + self.frames, **vars(payload.pack(part)))
            timestamp = 1000 + (self.frames if audited_in else self.positions)
            coding = self.codings[self.positions] = Coding(masks, blocks)
            sums = np.sum(coding.window() * frames.astype(np.uint64), axis=0)
            small = sums.astype("uint16" if ratio * np.iinfo(metadata.dtype).max < 2**16 else "uint32")
            block_map = None if blocks is None else blocks.tobytes()
            self._add(Snapshot, ratio, timestamp, **vars(payload.pack(small)), block_map=block_map)
            self.truth = np.concatenate([self.truth, frames])
        return self

    def raw(self, frames: int) -> Example:
        drawn = self._draw(frames)
        self._add(RawFrames, frames, 1000 + self.positions, **vars(payload.pack(drawn)))
        self.truth = np.concatenate([self.truth, drawn])
        return self

    def gap(self, frames: int, reason: str = "disk full") -> Example:
        self._add(Gap, frames, reason)
        self.truth = np.concatenate([self.truth, np.zeros((frames, *self.metadata.shape), self.metadata.dtype)])
        return self

    def group(self, position: int) -> np.ndarray:
        """The true frames of a position, in counts."""
        message = self.messages[position]
        return self.truth[message.first_frame : message.first_frame + message.frames].astype(np.float32)

    def _draw(self, frames: int) -> np.ndarray:
        largest = min(np.iinfo(self.metadata.dtype).max, 60000)
        return self.random.integers(0, largest, (frames, *self.metadata.shape), self.metadata.dtype, endpoint=True)

    def _add(self, kind, frames: int, *fields, **pixels) -> None:
        self.messages.append(kind(self.positions, self.frames, frames, *fields, **pixels))
