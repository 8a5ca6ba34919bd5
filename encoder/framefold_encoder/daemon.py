"""One stream from its source to the decoder: read, fold, code, send, and the summary of what happened."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from framefold_encoder.folding import Folder
from framefold_encoder.ring import FrameRing
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import Source, SourceInfo
from framefold_encoder.uplink import Uplink
from framefold_protocol import payload, wire
from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.masks import derive_masks
from framefold_protocol.messages import Data, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)

Frames = npt.NDArray[np.unsignedinteger]
_MAX_RAW_BYTES = 2**30
"""Of frames in one raw message."""
_PATIENCE_S = 0.5
"""How often a waiting encoder looks whether it was interrupted."""


@dataclass
class Summary:
    """What a run did; its fields are the command's JSON document."""

    stream_id: str
    frames: int = 0
    """Frames read from the source."""
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
    first_group_s: float = 0.0
    """From the source being open to its first group being folded, in seconds: compiling, reading and waiting are in it."""
    cpu_s_per_gigapixel: float = 0.0
    """CPU time of the whole process, all threads, for a thousand million pixels of frames."""
    complete: bool = False
    """Whether the decoder has stored every frame."""


def describe(info: SourceInfo, coding: Coding, counts_per_electron: float | None) -> StreamMetadata:
    """The stream's metadata, with a fresh stream id. `counts_per_electron` is for sources that do not know their gain."""
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
        counts_per_electron=info.counts_per_electron or counts_per_electron,
    )


class Encoder:
    """Folds one source and streams it; `run` once.

    Reading, folding and coding run side by side: a group is read while the one before is folded and the ones before that are
    coded. What is under way is bounded by the ring's groups of frames and `threads` + 1 snapshots; then each waits for the
    next, and the source for the link.
    """

    def __init__(self, source: Source, settings: EncoderSettings) -> None:
        self._started = time.perf_counter()
        info = source.info
        folder = settings.mask_file.parent if settings.mask_file else None
        self._source = source
        self._settings = settings
        self._coding = Coding((derive_masks(settings.mask_spec, info.shape, folder),))
        self._folder = Folder(self._coding.families, info.dtype, settings.threads)
        snapshot_bytes = math.prod(info.shape) * self._folder.sum_dtype.itemsize
        if snapshot_bytes > payload.MAX_DECODED_BYTES:
            found = f"frames of {info.shape[0]} x {info.shape[1]} pixels make snapshots of {snapshot_bytes:,} bytes"
            raise InputError(f"{found}, expected at most {payload.MAX_DECODED_BYTES:,}", hint="Fold parts of the frame")
        self._folder.fold(np.zeros((settings.ratio, *info.shape), info.dtype))  # compiles, so that no frame waits for it
        self._stream = describe(info, self._coding, settings.counts_per_electron)
        self._quantisation = settings.quantisation(self._stream.counts_per_electron)
        self._folding_s = self._coding_s = 0.0
        self._lock = threading.Lock()
        self.summary = Summary(self._stream.stream_id)

    def run(self, stop: threading.Event, progress: Callable[[Summary], None] = lambda summary: None) -> Summary:
        """Stream until the source ends or `stop` is set; then wait for the decoder to store it all.

        After `stop` the frames read so far are still sent, and the waits are bounded by `linger_s` each. Raises
        `FramefoldError` when the decoder refuses the stream, and when the source cannot be read, after all before is stored.
        """
        cpu_s = time.process_time()
        journal = MemoryJournal(self._settings.memory_mb * 1_000_000)
        with Uplink(self._stream, self._settings.to, journal, self._settings.silence_s) as uplink:
            self.summary.complete = self._stream_all(uplink, stop, progress)
            self._update(uplink)
        if self.summary.frames:
            pixels = self.summary.frames * math.prod(self._coding.shape)
            self.summary.cpu_s_per_gigapixel = (time.process_time() - cpu_s) / pixels * 1e9
        return self.summary

    def _stream_all(self, uplink: Uplink, stop: threading.Event, progress: Callable[[Summary], None]) -> bool:
        """Whether the decoder has stored everything; False when the encoder gave up waiting for it."""
        coded: deque[Future[Parts]] = deque()
        threads = self._settings.threads
        with FrameRing(self._source, self._coding.ratio, stop) as ring, ThreadPoolExecutor(threads, "coder") as coders:
            for position, (frames, arrived_ns) in enumerate(self._pieces(ring)):
                header = (position, self.summary.frames, len(frames), arrived_ns)
                pixels = self._fold(frames)
                if len(coded) == threads and not self._hand_over(coded.popleft(), uplink, stop):
                    return False
                coded.append(coders.submit(self._code, header, pixels))
                self.summary.frames += len(frames)
                self.summary.snapshots += self._is_folded(frames)
                self.summary.bytes_in += frames.nbytes
                self._update(uplink)
                progress(self.summary)
            if not all(self._hand_over(parts, uplink, stop) for parts in coded):
                return False
            complete = self._attempt(partial(uplink.finish, self.summary.frames), stop)
            ring.check()
        return complete

    def _pieces(self, ring: FrameRing) -> Iterator[tuple[Frames, int]]:
        """What makes a message each, and when it arrived: whole groups, and what is sent raw in parts that a payload holds."""
        for group in ring:
            frame_bytes = group.frames[0].nbytes
            count = self._coding.ratio if self._is_folded(group.frames) else max(1, _MAX_RAW_BYTES // frame_bytes)
            for first in range(0, len(group.frames), count):
                yield group.frames[first : first + count], group.arrived_ns

    def _is_folded(self, frames: Frames) -> bool:
        """Whether these make a snapshot; frames of an incomplete group, and of ratio 1, are sent as they are."""
        return len(frames) == self._coding.ratio > 1

    def _fold(self, frames: Frames) -> Frames:
        """The snapshot of a whole group; a copy of frames that are sent as they are."""
        start = time.perf_counter()
        pixels = self._folder.fold(frames) if self._is_folded(frames) else frames.copy()
        if not self._folding_s:
            self.summary.first_group_s = time.perf_counter() - self._started
            _log.info("first group after %.2f s, compiling and reading in", self.summary.first_group_s)
        self._folding_s += time.perf_counter() - start
        return pixels

    def _code(self, header: tuple[int, int, int, int], pixels: Frames) -> Parts:
        """The message of one group."""
        start = time.perf_counter()
        if pixels.ndim == 2:
            packed = payload.pack(pixels, self._quantisation)
            data: Data = Snapshot(*header, **vars(packed))
        else:
            packed = payload.pack(pixels)
            data = RawFrames(*header, packed.dtype, packed.codec, packed.payload, packed.base)
        parts = wire.encode(data)
        with self._lock:
            self._coding_s += time.perf_counter() - start
        return parts

    def _hand_over(self, coded: Future[Parts], uplink: Uplink, stop: threading.Event) -> bool:
        return self._attempt(partial(uplink.put, coded.result()), stop)

    def _attempt(self, action: Callable[[float], bool], stop: threading.Event) -> bool:
        """Try until it succeeds; after an interrupt only for `linger_s` more."""
        while not stop.is_set():
            if action(_PATIENCE_S):
                return True
        return action(self._settings.linger_s)

    def _update(self, uplink: Uplink) -> None:
        self.summary.bytes_wire = uplink.counters.bytes_wire
        if self.summary.bytes_wire:
            self.summary.wire_ratio = self.summary.bytes_in / self.summary.bytes_wire
        if self._coding_s:
            self.summary.encoder_gb_s = self.summary.bytes_in / (self._folding_s + self._coding_s) / 1e9
