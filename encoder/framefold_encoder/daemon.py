"""One stream from its source to the decoder: read, fold, code, send, and the summary of what happened.

With a journal folder the stream outlives the process: see `stream_journal.py`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import fields
from functools import partial

import numpy as np
import numpy.typing as npt

from framefold_encoder.coders import Coders
from framefold_encoder.folding import Folder
from framefold_encoder.ring import FrameRing, Group
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import Source, SourceInfo
from framefold_encoder.stream_journal import JournalFolder, StreamJournal
from framefold_encoder.summary import Summary
from framefold_encoder.uplink import StreamClosed, Uplink
from framefold_protocol import payload, wire
from framefold_protocol.coding import Coding
from framefold_protocol.errors import FramefoldError, InputError
from framefold_protocol.journal import Journal, MemoryJournal
from framefold_protocol.masks import derive_masks
from framefold_protocol.messages import Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)

Frames = npt.NDArray[np.unsignedinteger]
_MAX_RAW_BYTES = 2**26
"""Of frames in one raw message."""
_PATIENCE_S = 0.5
"""How often a waiting encoder looks whether it was interrupted."""
_FRESH = ("stream_id", "created_unix_ns")
"""Of a stream's metadata: not the same when it is described again."""
_LOST = "the encoder's buffers were full: the link or the decoder did not keep up"


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
    next. In the end a finite source waits for the link; a live one loses groups, and the stream says which.
    """

    def __init__(self, source: Source, settings: EncoderSettings, uri: str = "") -> None:
        """`uri` names the source in the journal: only a run of the same source goes on with a stream."""
        self._started = time.perf_counter()
        self._source = source
        self._settings = settings
        self._uri = uri
        self._folders = {ratio: self._folder(ratio) for ratio in range(settings.ratio.smallest, settings.ratio.largest + 1)}
        folder = self._folders[settings.ratio.largest]
        self._snapshot_bytes = math.prod(folder.shape) * folder.sum_dtype.itemsize
        if self._snapshot_bytes > payload.MAX_DECODED_BYTES:
            found = f"frames of {folder.shape[0]} x {folder.shape[1]} pixels make snapshots of {self._snapshot_bytes:,} bytes"
            raise InputError(f"{found}, expected at most {payload.MAX_DECODED_BYTES:,}", hint="Fold parts of the frame")
        for each in {one.sum_dtype: one for one in self._folders.values()}.values():  # compiles, so that no frame waits for it
            each.fold(np.zeros((each.ratio, *each.shape), source.info.dtype))
        self._stream = describe(source.info, Coding(folder.families), settings.counts_per_electron)
        self._quantisation = settings.quantisation(self._stream.counts_per_electron)
        self._position = self._frames = 0
        self._ratio = settings.ratio.smallest
        self._sent_before = self._folded_bytes = 0
        self._durable: StreamJournal | None = None
        self._folding_s = self._coding_s = 0.0
        self._lock = threading.Lock()
        self.summary = Summary(self._stream.stream_id)

    def _folder(self, ratio: int) -> Folder:
        info, masks = self._source.info, self._settings.mask_file
        specs = (spec.with_ratio(ratio) for spec in self._settings.families)
        families = [derive_masks(spec, info.shape, masks.parent if masks else None) for spec in specs]
        return Folder(families, info.dtype, self._settings.threads)

    def run(self, stop: threading.Event, progress: Callable[[Summary], None] = lambda summary: None) -> Summary:
        """Stream until the source ends or `stop` is set; then wait for the decoder to store it all.

        After `stop` the frames read so far are still sent, and the waits are bounded by `linger_s` each. Raises
        `FramefoldError` when the decoder refuses the stream, and when the source cannot be read, after all before is stored.
        """
        if self._settings.journal is None:
            self._stream_through(MemoryJournal(self._settings.memory_mb * 1_000_000), stop, progress).check()
            return self.summary
        limits = self._settings.journal_limit_mb * 1_000_000, self._settings.memory_mb * 1_000_000
        with JournalFolder(self._settings.journal, self._recipe(), *limits) as folder:
            if stored := folder.stored():
                hint = f"to stream it anew, empty {self._settings.journal} or choose another folder"
                _log.info("the source is stored already, as stream %s; %s", stored["stream_id"], hint)
                self.summary = Summary(**stored | {"ratios": Counter({int(b): n for b, n in stored["ratios"].items()})})
            else:
                self._stream_durably(folder, stop, progress)
        return self.summary

    def _recipe(self) -> dict[str, str]:
        """What the stream is made of."""
        stream, settings = self._stream, self._settings
        described = {f.name: str(getattr(stream, f.name)) for f in fields(stream) if f.name not in _FRESH}
        chosen = {name: str(getattr(settings, name)) for name in ("ratio", "coder", "step_sigma")}
        return {"source": self._uri, "version": self._source.info.version} | described | chosen

    def _stream_durably(self, folder: JournalFolder, stop: threading.Event, progress: Callable[[Summary], None]) -> None:
        """Go on with the stream an earlier run left, or begin one; a live source's old streams are sent beside it."""
        left = folder.left()
        if left and not self._source.info.live:
            journal = left.pop()
            self._resume(journal)
        else:
            journal = folder.create(self._stream)
        with ExitStack() as stack:
            old = [(each, stack.enter_context(self._uplink(each.stream, each))) for each in left]
            for each, uplink in old:
                uplink.finish(each.tally.frames, 0)
            try:
                self._durable = journal
                ring = self._stream_through(journal, stop, progress)
            except StreamClosed:
                journal.delete()
                raise
            if self.summary.complete:
                if ring.whole and not self._source.info.live:
                    folder.note_stored(vars(self.summary))
                journal.delete()
            stored = [each for each, uplink in old if self._ended(each, uplink, stop)]
        for each in stored:
            each.delete()
        ring.check()

    def _resume(self, journal: StreamJournal) -> None:
        """Go on where a journal ends."""
        tally, self._stream = journal.tally, journal.stream
        self._position, self._frames, self._sent_before = journal.end, tally.frames, tally.bytes_wire
        self.summary = Summary(self._stream.stream_id, tally.frames - tally.gaps, tally.snapshots, gaps=tally.gaps)
        self.summary.bytes_in = self.summary.frames * math.prod(self._stream.shape) * self._source.info.dtype.itemsize
        self.summary.ratios.update(tally.ratios)
        self._source.skip(tally.frames)
        _log.info("taking up stream %s at frame %d, from its journal", self._stream.stream_id, tally.frames)

    def _ended(self, journal: StreamJournal, uplink: Uplink, stop: threading.Event) -> bool:
        """Whether a stream that an earlier run left is stored; what it meets must not cost the new stream anything."""
        try:
            return self._attempt(partial(uplink.finish, journal.tally.frames), stop)
        except FramefoldError as error:
            _log.error("stream %s, left in the journal by an earlier run, stays there: %s", journal.stream.stream_id, error)
            return False

    def _uplink(self, stream: StreamMetadata, journal: Journal) -> Uplink:
        return Uplink(stream, self._settings.to, journal, self._settings.silence_s, self._settings.link_keys)

    def _stream_through(self, journal: Journal, stop: threading.Event, progress: Callable[[Summary], None]) -> FrameRing:
        """Stream the source; returns the ring it went through, which knows whether that was all of it."""
        cpu_s, frames_before = time.process_time(), self.summary.frames
        with self._uplink(self._stream, journal) as uplink:
            count = partial(self._next_ratio, uplink)
            ring = FrameRing(self._source, self._settings.ratio.largest, stop, count, self._frames)
            self.summary.complete = self._stream_all(ring, uplink, stop, progress)
            self._update(uplink)
        if frames := self.summary.frames - frames_before:
            self.summary.cpu_s_per_gigapixel = (time.process_time() - cpu_s) / (frames * math.prod(self._stream.shape)) * 1e9
        return ring

    def _stream_all(self, ring: FrameRing, uplink: Uplink, stop: threading.Event, progress: Callable[[Summary], None]) -> bool:
        """Whether the decoder has stored everything; False when the encoder gave up waiting for it."""
        with ring, Coders(self._settings.threads, self._snapshot_bytes) as coders:
            for group in ring:
                self._encode(group, coders)
                if not self._hand_over(coders.finished(), uplink, stop):
                    return False
                self._update(uplink)
                progress(self.summary)
            return self._hand_over(coders.rest(), uplink, stop) and self._attempt(partial(uplink.finish, self._frames), stop)

    def _next_ratio(self, uplink: Uplink) -> int:
        """B of the group that is read next."""
        self._ratio = self._settings.ratio.next(self._ratio, uplink.backlog)
        return self._ratio

    def _encode(self, group: Group, coders: Coders) -> None:
        """Hand a group to the coders: what was lost before it, then its snapshot, or its frames where it makes none."""
        lost, frames = group.first_frame - self._frames, group.frames
        if lost:
            coders.submit(partial(wire.encode, Gap(*self._place(lost), _LOST)))
            self.summary.gaps += lost
        if group.complete and len(frames) > 1:
            self._fold(group, coders)
        elif len(frames):
            count = max(1, _MAX_RAW_BYTES // frames[0].nbytes)  # the same parts wherever a restart goes on
            for part in (frames[first : first + count] for first in range(0, len(frames), count)):
                header = (*self._place(len(part)), group.arrived_ns)
                coders.submit(partial(self._code_raw, header, part.copy()))
        self.summary.frames += len(frames)
        self.summary.bytes_in += frames.nbytes
        self._folded_bytes += frames.nbytes

    def _place(self, frames: int) -> tuple[int, int, int]:
        """Position, first frame and number of frames of the stream's next message."""
        place = self._position, self._frames, frames
        self._position, self._frames = self._position + 1, self._frames + frames
        return place

    def _fold(self, group: Group, coders: Coders) -> None:
        memory = coders.memory()
        start = time.perf_counter()
        sums = self._folders[len(group.frames)].fold(group.frames, None, memory)
        if not self._folding_s:
            self.summary.first_group_s = time.perf_counter() - self._started
            _log.info("first group after %.2f s, compiling and reading in", self.summary.first_group_s)
        self._folding_s += time.perf_counter() - start
        header = (*self._place(len(group.frames)), group.arrived_ns)
        coders.submit(partial(self._code_snapshot, header, sums), memory)
        self.summary.snapshots += 1
        self.summary.ratios[len(group.frames)] += 1

    def _code_snapshot(self, header: tuple[int, int, int, int], sums: Frames) -> Parts:
        start = time.perf_counter()
        packed = payload.pack(sums, self._quantisation, overwrite=True)
        parts = wire.encode(Snapshot(*header, **vars(packed)))
        self._coded_for(time.perf_counter() - start)
        return parts

    def _code_raw(self, header: tuple[int, int, int, int], frames: Frames) -> Parts:
        start = time.perf_counter()
        packed = payload.pack(frames, overwrite=True)
        parts = wire.encode(RawFrames(*header, packed.dtype, packed.codec, packed.payload, packed.base))
        self._coded_for(time.perf_counter() - start)
        return parts

    def _coded_for(self, seconds: float) -> None:
        with self._lock:
            self._coding_s += seconds

    def _hand_over(self, messages: Iterable[Parts], uplink: Uplink, stop: threading.Event) -> bool:
        return all(self._attempt(partial(uplink.put, parts), stop) for parts in messages)

    def _attempt(self, action: Callable[[float], bool], stop: threading.Event) -> bool:
        """Try until it succeeds; after an interrupt only for `linger_s` more."""
        while not stop.is_set():
            if action(_PATIENCE_S):
                return True
        return action(self._settings.linger_s)

    def _update(self, uplink: Uplink) -> None:
        self.summary.bytes_wire = self._sent_before + uplink.counters.bytes_wire
        if self._durable:
            self._durable.bytes_wire = self.summary.bytes_wire
        if self.summary.bytes_wire:
            self.summary.wire_ratio = self.summary.bytes_in / self.summary.bytes_wire
        if self._coding_s:
            self.summary.encoder_gb_s = self._folded_bytes / (self._folding_s + self._coding_s) / 1e9
