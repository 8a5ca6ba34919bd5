"""One stream from its source to the decoder: read, fold, code, send, and the summary of what happened."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from framefold_encoder.folding import Folder
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import Source, SourceInfo
from framefold_encoder.uplink import Uplink
from framefold_protocol import payload, wire
from framefold_protocol.coding import Coding
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.masks import derive_masks
from framefold_protocol.messages import Data, RawFrames, Snapshot, StreamMetadata

Frames = npt.NDArray[np.unsignedinteger]
_PATIENCE_S = 0.5
"""How often a waiting encoder looks whether it was interrupted."""


@dataclass
class Summary:
    """What a run did; its fields are the command's JSON document."""

    stream_id: str
    frames: int = 0
    """Frames read from the source and handed to the link."""
    snapshots: int = 0
    bytes_in: int = 0
    """Bytes of pixels the detector delivered."""
    bytes_wire: int = 0
    """Bytes sent, all headers down to ZMTP in."""
    wire_ratio: float = 0.0
    """bytes_in / bytes_wire."""
    gaps: int = 0
    """Frames lost before they could be sent, each of them on record."""
    encoder_gb_s: float = 0.0
    """bytes_in over the time spent folding and coding, in GB/s; reading and waiting are not in it."""
    complete: bool = False
    """Whether the decoder has stored every frame."""


def describe(info: SourceInfo, coding: Coding) -> StreamMetadata:
    """The stream's metadata, with a fresh stream id."""
    return StreamMetadata(
        stream_id=uuid.uuid4().hex,
        name=info.name,
        shape=info.shape,
        dtype=info.dtype.name,
        families=tuple(masks.spec for masks in coding.families),
        mask_digests=tuple(masks.digest for masks in coding.families),
        created_unix_ns=time.time_ns(),
        frame_count=info.frame_count,
        frame_time_s=info.frame_time_s,
        pixel_size_nm=info.pixel_size_nm,
        counts_per_electron=info.counts_per_electron,
    )


class Encoder:
    """Folds one source and streams it; `run` once."""

    def __init__(self, source: Source, settings: EncoderSettings) -> None:
        info = source.info
        folder = settings.mask_file.parent if settings.mask_file else None
        self._source = source
        self._settings = settings
        self._coding = Coding((derive_masks(settings.mask_spec, info.shape, folder),))
        self._folder = Folder(self._coding.families, info.dtype)
        self._buffer = np.zeros((settings.ratio, *info.shape), info.dtype)
        self._folder.fold(self._buffer)  # compiles the kernel before the first frame waits for it
        self._stream = describe(info, self._coding)
        self._busy_s = 0.0
        self.summary = Summary(self._stream.stream_id)

    def run(self, stop: threading.Event, progress: Callable[[Summary], None] = lambda summary: None) -> Summary:
        """Stream until the source ends or `stop` is set; then wait for the decoder to store it all.

        After `stop` the frames read so far are still sent, and the wait is bounded by `linger_s`. Raises `FramefoldError` when
        the source cannot be read or the decoder refuses the stream.
        """
        journal = MemoryJournal(self._settings.memory_mb * 1_000_000)
        with Uplink(self._stream, self._settings.to, journal, self._settings.silence_s) as uplink:
            self.summary.complete = self._stream_all(uplink, stop, progress)
            self._update(uplink)
        return self.summary

    def _stream_all(self, uplink: Uplink, stop: threading.Event, progress: Callable[[Summary], None]) -> bool:
        for position, frames in enumerate(self._groups(stop)):
            parts = wire.encode(self._code(position, frames))
            if not self._attempt(partial(uplink.put, parts), stop):
                return False
            self.summary.frames += len(frames)
            self.summary.bytes_in += frames.nbytes
            self._update(uplink)
            progress(self.summary)
        return self._attempt(partial(uplink.finish, self.summary.frames), stop)

    def _attempt(self, action: Callable[[float], bool], stop: threading.Event) -> bool:
        """Try until it succeeds; after an interrupt only for `linger_s` more."""
        while not stop.is_set():
            if action(_PATIENCE_S):
                return True
        return action(self._settings.linger_s)

    def _code(self, position: int, frames: Frames) -> Data:
        """The message of one group: folded when it has B frames, raw when the stream ended before."""
        arrived_ns = time.time_ns()
        start = time.perf_counter()
        folded = len(frames) == self._coding.ratio
        pixels = self._folder.fold(frames) if folded else frames
        kind = Snapshot if folded else RawFrames
        first = self.summary.frames
        data = kind(position, first, len(frames), arrived_ns, pixels.dtype.name, payload.CODEC, payload.encode(pixels))
        self._busy_s += time.perf_counter() - start
        self.summary.snapshots += folded
        return data

    def _update(self, uplink: Uplink) -> None:
        self.summary.bytes_wire = uplink.counters.bytes_wire
        if self.summary.bytes_in and self.summary.bytes_wire:
            self.summary.wire_ratio = self.summary.bytes_in / self.summary.bytes_wire
            self.summary.encoder_gb_s = self.summary.bytes_in / self._busy_s / 1e9

    def _groups(self, stop: threading.Event) -> Iterator[Frames]:
        """Groups of B frames in the encoder's own buffer, the last one maybe shorter."""
        while not stop.is_set():
            filled = 0
            while filled < len(self._buffer) and not stop.is_set():
                count = self._source.read_into(self._buffer[filled:])
                if count == 0:
                    break
                filled += count
            if filled:
                yield self._buffer[:filled]
            if filled < len(self._buffer):
                return
