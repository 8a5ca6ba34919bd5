"""One stream from its source to the decoder: read, fold, code, send, and the summary of what happened.

With a journal folder the stream outlives the process: see `stream_journal.py`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from itertools import chain

from framefold_encoder.coders import Coders
from framefold_encoder.group_encoder import GroupEncoder
from framefold_encoder.ring import FrameRing
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import Source, SourceInfo
from framefold_encoder.stream_journal import JournalFolder, StreamJournal
from framefold_encoder.summary import Summary
from framefold_encoder.uplink import StreamClosed, Uplink
from framefold_protocol.coding import Coding
from framefold_protocol.errors import FramefoldError
from framefold_protocol.journal import Journal, MemoryJournal
from framefold_protocol.messages import StreamMetadata
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)

_PATIENCE_S = 0.5
"""How often a waiting encoder looks whether it was interrupted."""
_FRESH = ("stream_id", "created_unix_ns")
"""Of a stream's metadata: not the same when it is described again."""


def describe(info: SourceInfo, coding: Coding, counts_per_electron: float | None, audit: int = 0) -> StreamMetadata:
    """The stream's metadata, with a fresh stream id. `counts_per_electron` is for sources that do not know their gain."""
    return StreamMetadata(
        stream_id=uuid.uuid4().hex,
        name=_printable(info.name),
        shape=info.shape,
        dtype=info.dtype.name,
        families=tuple(masks.spec for masks in coding.families),
        mask_digests=tuple(masks.digest for masks in coding.families),
        created_unix_ns=time.time_ns(),
        frame_count=info.frame_count,
        frame_time_s=info.frame_time_s,
        pixel_size_nm=info.pixel_size_nm,
        counts_per_electron=info.counts_per_electron or counts_per_electron,
        audit=audit,
    )


def _printable(name: str) -> str:
    """A file's name as text: what is no UTF-8 in it, as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


class Encoder:
    """Folds one source and streams it; `run` once.

    Reading, folding and coding run side by side: a group is read while the one before is folded and the ones before that are
    coded. What is under way is bounded by the ring's groups of frames and `threads` + 1 snapshots; then each waits for the
    next. In the end a finite source waits for the link; a live one loses groups, and the stream says which.
    """

    def __init__(self, source: Source, settings: EncoderSettings, uri: str = "") -> None:
        """`uri` names the source in the journal: only a run of the same source goes on with a stream."""
        self._source = source
        self._settings = settings
        self._uri = uri
        self._groups = GroupEncoder(source.info, settings)
        self._stream = describe(source.info, self._groups.coding, settings.counts_per_electron, settings.audit)
        self._ratio = settings.ratio.smallest
        self._borne = 0
        """Frames that the scene bears, where there is a wire ratio; 0: no more than it asks for."""
        self._sent_before = 0
        self._full = False
        self._durable: StreamJournal | None = None
        self.summary = Summary(self._stream.stream_id)

    def run(self, stop: threading.Event, progress: Callable[[Summary], None] = lambda summary: None) -> Summary:
        """Stream until the source ends or `stop` is set; then wait for the decoder to store it all.

        After `stop` the frames read so far are still sent, and the waits are bounded by `linger_s` each. Raises
        `FramefoldError` when the decoder refuses the stream, and when the source cannot be read, after all before is stored.
        """
        if stop.is_set():  # interrupted while all was compiled: nothing has begun
            return self.summary
        if self._settings.journal is None:
            self._stream_through(MemoryJournal(self._settings.memory_mb * 1_000_000), stop, progress).check()
            return self.summary
        limits = self._settings.journal_limit_mb * 1_000_000, self._settings.memory_mb * 1_000_000
        with JournalFolder(self._settings.journal, self._recipe(), *limits) as folder:
            if stored := folder.stored(self._settings.to):
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
        names = ("ratio", "wire_ratio", "coder", "step_sigma", "still_below")
        chosen = {name: str(getattr(settings, name)) for name in names}
        return {"source": _printable(self._uri), "version": self._source.info.version} | chosen | described

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
                uplink.end(each.tally.frames)
            try:
                self._durable = journal
                ring = self._stream_through(journal, stop, progress)
            except StreamClosed:
                journal.delete()
                raise
            if self.summary.complete:
                if ring.whole and not self._source.info.live:
                    folder.note_stored(vars(self.summary), self._settings.to)
                journal.delete()
            stored = [each for each, uplink in old if self._ended(each, uplink, stop)]
        for each in stored:
            each.delete()
        ring.check()

    def _resume(self, journal: StreamJournal) -> None:
        """Go on where a journal ends."""
        tally, self._stream = journal.tally, journal.stream
        self._groups.position, self._groups.frames, self._sent_before = journal.end, tally.frames, tally.bytes_wire
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
        try:
            with self._uplink(self._stream, journal) as uplink:
                count = partial(self._next_ratio, uplink)
                largest = self._settings.ratio.largest
                ring = FrameRing(self._source, largest, stop, count, self._groups.frames, uplink.check)
                self.summary.complete = self._stream_all(ring, uplink, stop, progress)
                self._update(uplink)
        finally:
            if not self.summary.complete:
                self.summary.wire_ratio = 0.0
        if self.summary.complete:
            self._judge_wire_ratio()
        unsent = ring.position - self._groups.frames
        if unsent and self._source.info.live:
            _log.warning("the last %d frames or more found no room to be kept or sent, and are on no record", unsent)
        if frames := self.summary.frames - frames_before:
            self.summary.cpu_s_per_gigapixel = (time.process_time() - cpu_s) / (frames * math.prod(self._stream.shape)) * 1e9
        return ring

    def _stream_all(self, ring: FrameRing, uplink: Uplink, stop: threading.Event, progress: Callable[[Summary], None]) -> bool:
        """Whether the decoder has stored everything; False when the encoder gave up waiting for it."""
        with ring, Coders(self._settings.threads, self._groups.snapshot_bytes) as coders:
            for group in chain.from_iterable(self._groups.taken_apart(group, self._least()) for group in ring):
                audited = self._groups.encode(group, coders, self.summary)
                # The coders of raw frames work on the ring's own memory, which must not go round before they are done.
                # Where frames come slower than they are coded, a message goes at once, not when the next group is there.
                messages = coders.rest() if audited else coders.finished(lambda: ring.empty)
                if not self._hand_over(messages, uplink, stop):
                    return False
                self._update(uplink)
                progress(self.summary)
            return self._hand_over(coders.rest(), uplink, stop) and self._attempt(
                partial(uplink.finish, self._groups.frames), stop
            )

    def _next_ratio(self, uplink: Uplink) -> int:
        """B of the group read next: what the link asks for, at least what the wire ratio does or a still scene bears."""
        bounds, groups = self._settings.ratio, self._groups
        self._ratio = bounds.next(self._ratio, uplink.backlog)
        if groups.budget is None:
            return self._ratio
        if groups.still:
            self._borne = bounds.grown(max(self._borne, min(groups.budget.frames(), bounds.largest)))
        elif groups.borne:
            self._borne = min(self._borne, groups.borne)
        return max(self._borne, self._least())

    def _least(self) -> int:
        """B that link and wire ratio ask for now."""
        budget, bounds = self._groups.budget, self._settings.ratio
        return max(self._ratio, min(budget.frames(), bounds.largest)) if budget else self._ratio

    def _judge_wire_ratio(self) -> None:
        """Say when the stream took clearly more bytes than it was to take."""
        summary, bounds, wanted = self.summary, self._settings.ratio, self._settings.wire_ratio
        if not wanted or summary.wire_ratio >= 0.95 * wanted:
            return
        if 2 * summary.ratios[bounds.largest] > summary.snapshots:
            why = f"out of reach with {bounds} frames a snapshot; wider bins (coder, step_sigma) or more frames (ratio) help"
        else:
            why = "the stream was too short to make up for its first groups, or for frames that were sent as they are"
        _log.warning("wire ratio %.1f, not %g: %s", summary.wire_ratio, wanted, why)

    def _hand_over(self, messages: Iterable[Parts], uplink: Uplink, stop: threading.Event) -> bool:
        return all(self._attempt(partial(self._put, uplink, parts), stop) for parts in messages)

    def _put(self, uplink: Uplink, parts: Parts, timeout_s: float) -> bool:
        """As the uplink's; says when there is no room any more, and when there is again."""
        room = uplink.put(parts, timeout_s)
        if room is self._full:
            self._full = not room
            where = "journal" if self._settings.journal else "memory"
            costs = "frames are lost" if self._source.info.live else "the source waits"
            if self._full:
                _log.warning("the %s is full: %s until the decoder takes some", where, costs)
            else:
                _log.info("the %s has room again", where)
        return room

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
        self.summary.encoder_gb_s = self._groups.gb_s
