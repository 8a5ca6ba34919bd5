"""Background reconstruction: every stored snapshot becomes frames and a chi2, one at a time, in order within a stream, and the
streams in turn.

While one is reconstructed, the frames of the one before are coded and written, so that a GPU does not wait for that; both are
in memory then.

A snapshot is reconstructed when those after it that nets see are here too, or when they are not to be expected. Streams
that are to be decoded again, by request, come after everything that is new.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

from framefold_decoder.decoding import Decoded, LibraryDecoder, positions_beside
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.store import StreamStore
from framefold_decoder.store.group_table import Kind
from framefold_protocol.errors import FramefoldError, InputError, StoreError
from framefold_protocol.model import REACH

Task = tuple[str, int, str]
"""Stream, position and model."""

_log = logging.getLogger(__name__)
_PATIENCE_S = 3.0, 600.0
"""How long the last snapshots of an unfinished stream wait for those after them, at least and at most: twice as long as the
last one took to come."""
_RECENT = 64
"""Positions in which the last two groups are looked for: one may be in several parts, and have audit frames beside it."""
_PAGE = 8
"""Pending snapshots that are asked for at a time."""
_TICK_S = 1.0
_RETRY_S = 10.0
"""After this a snapshot is tried again that the store did not take."""


class Unfolder:
    """A thread that reconstructs what is pending. A context manager: leaving it finishes the snapshots in work."""

    def __init__(self, library: Library, registry: Registry, model: str, metrics: Metrics | None = None) -> None:
        self._library = library
        self._registry = registry
        self._model = model
        self._decoder = LibraryDecoder(library, registry)
        self._metrics = metrics or Metrics()
        self._failed: dict[tuple[str, int], tuple[float, str]] = {}
        """When a snapshot is tried again, and why it could not be reconstructed."""
        self._requested: deque[Task] = deque()
        self._turns: dict[str, int] = {}
        """When each stream that waits had its last turn, counted."""
        self._hopeless: dict[str, int] = {}
        """Of each stream that waits: what is pending before this position failed for good."""
        self._storing: tuple[Task, Future[None]] | None = None
        self._store_thread = ThreadPoolExecutor(1, "unfolder-store")
        self._closing = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unfolder", daemon=True)

    def __enter__(self) -> Unfolder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._work.set()
        self._thread.join()
        self._store_thread.shutdown()

    @property
    def running(self) -> bool:
        """Whether snapshots are being reconstructed."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Something was stored: look for work now."""
        self._work.set()

    def request(self, stream_id: str, model: str, start: int = 0, stop: int | None = None) -> int:
        """Decode the snapshots that are stored at positions start to stop - 1 again, with `model`; returns how many.

        Frames are replaced one snapshot at a time; the old ones can be read until then. A restart forgets what is left to do.
        Raises `InputError` when there is no snapshot, `ModelError` when the model does not fit.
        """
        store = self._library.store(stream_id)
        positions = [group.position for group in store.groups(start, stop) if group.kind is Kind.SNAPSHOT]
        if not positions:
            end = store.position if stop is None else stop
            message = f"positions {start} to {end - 1} of stream {stream_id} hold no snapshot"
            raise InputError(message, hint="GET its quality for what each position holds")
        for position in {store.group(position).frames: position for position in positions}.values():  # one of each ratio
            self._registry.choose(model, store.coding(position))
        self._requested.extend((stream_id, position, model) for position in positions)
        self.wake()
        return len(positions)

    def problem(self, stream_id: str, position: int) -> str | None:
        """Why a snapshot will not be reconstructed as things are; None: it may be, or has been."""
        again, message = self._failed.get((stream_id, position), (0.0, ""))
        asked_for = (stream_id, position) in {task[:2] for task in self._requested.copy()}
        return message if again == math.inf and not asked_for else None

    def _run(self) -> None:
        while not self._closing.is_set():
            self._work.clear()
            if not self._step():
                self._work.wait(_TICK_S)
        self._settle()

    def _step(self) -> bool:
        """Reconstruct one snapshot, or else wait until the last one is stored; whether there was one."""
        task = decoded = None
        start = time.perf_counter()
        try:
            task = self._next_task()
            if task is not None:
                decoded = self._decoder.reconstruct(*task)
        except Exception as error:  # what one snapshot meets must not keep the others waiting
            self._note(task, error)
        took_s = time.perf_counter() - start
        self._settle()
        if task is not None and decoded is not None:
            self._storing = task, self._store_thread.submit(self._store, task, decoded, took_s)
        return task is not None

    def _settle(self) -> None:
        """Wait until what is being stored is."""
        if self._storing is None:
            return
        task, storing = self._storing
        self._storing = None
        if error := storing.exception():
            self._note(task, error)
        else:
            self._failed.pop(task[:2], None)

    def _note(self, task: Task | None, error: BaseException) -> None:
        known = isinstance(error, FramefoldError)
        if task is not None and known and self._deleted(task[0]):
            self._library.sweep(task[0])
            return
        if task is None or self._failed.get(task[:2], (0.0, ""))[1] != str(error):
            what = f"stream {task[0]} position {task[1]}" if task else "the next snapshot"
            _log.error("%s cannot be reconstructed: %s", what, error, exc_info=None if known else error)
        if task is not None:  # the disk may have room soon; the rest is tried again after a restart
            again = time.monotonic() + _RETRY_S if isinstance(error, StoreError) else math.inf
            self._failed[task[:2]] = again, str(error) if known else f"{type(error).__name__}: {error}; see the decoder's log"

    def _deleted(self, stream_id: str) -> bool:
        """Whether the stream went while it was worked on."""
        with suppress(FramefoldError):  # a catalogue that cannot be read does not say so
            return self._library.catalogue.stream(stream_id) is None
        return False

    def _next_task(self) -> Task | None:
        """Of the streams that have one the stream that had its turn longest ago."""
        storing, catalogue = self._storing[0][:2] if self._storing else None, self._library.catalogue
        waiting = sorted(catalogue.pending_streams(), key=lambda stream_id: self._turns.get(stream_id, 0))
        self._turns = {stream_id: self._turns.get(stream_id, 0) for stream_id in waiting}
        self._hopeless = {stream_id: self._hopeless.get(stream_id, 0) for stream_id in waiting}
        for stream_id in waiting:
            for task in self._worth_trying(stream_id):
                if task != storing and self._has_neighbours(*task):
                    self._turns[stream_id] = max(self._turns.values()) + 1
                    return *task, self._model
        return self._next_requested()

    def _worth_trying(self, stream_id: str) -> Iterator[tuple[str, int]]:
        """What is pending of a stream, in order, but for what failed: for good, or a moment ago."""
        start, hopeless_so_far = self._hopeless[stream_id], True
        while page := self._library.catalogue.pending(stream_id, _PAGE, start):
            start = page[-1][1] + 1
            for task in page:
                again, _ = self._failed.get(task, (0.0, ""))
                hopeless_so_far &= again == math.inf
                if hopeless_so_far:
                    self._hopeless[stream_id] = task[1] + 1
                elif time.monotonic() >= again:
                    yield task

    def _next_requested(self) -> Task | None:
        """The first that has its neighbours; those of a stream that is gone are forgotten."""
        for _ in range(len(self._requested)):
            task = self._requested.popleft()
            if self._has_neighbours(*task[:2]):
                return task
            if not self._deleted(task[0]):
                self._requested.append(task)
        return None

    def _has_neighbours(self, stream_id: str, position: int) -> bool:
        record, (least, most) = self._library.catalogue.stream(stream_id), _PATIENCE_S
        try:
            store = self._library.store(stream_id)
        except InputError:
            record = None
        except StoreError:
            return True  # it tells of it who reconstructs
        if record is None:  # it has been deleted
            return False
        waited_s = (time.time_ns() - record.updated_unix_ns) / 1e9
        if record.state == "complete" or not 0 <= waited_s < min(max(least, 2 * _pace_s(store)), most):
            return True
        after = positions_beside(store, position, 1)
        return len(after) == REACH or any(store.group(one).kind is not Kind.SNAPSHOT for one in after)  # none beyond is fed

    def _store(self, task: Task, decoded: Decoded, took_s: float) -> None:
        """In a thread of its own; `took_s` is what reconstructing took."""
        start = time.perf_counter()
        stream_id, position, _ = task
        self._decoder.keep(stream_id, position, decoded)
        took_s += time.perf_counter() - start
        quality, made_by = decoded.quality, decoded.provenance.model
        self._metrics.decoded(quality, took_s)
        _log.info("stream %s position %d: %s, chi2 %.3f, %.1f s", stream_id, position, made_by, quality.chi2, took_s)
        if decoded.audited and decoded.audited.noise_is_overestimated:
            _log.warning(
                "stream %s position %d: its audit frames are less noisy than counts_per_electron %g says; chi2 is too low",
                *(stream_id, position, quality.gain),
            )


def _pace_s(store: StreamStore) -> float:
    """Seconds from the first frame of the group before the last to that of the last; of one group, what its frames take."""
    groups = [store.group(position) for position in range(max(store.position - _RECENT, 0), store.position)]
    arrivals = sorted({group.timestamp_ns for group in groups if group.timestamp_ns})
    if len(arrivals) > 1:
        return (arrivals[-1] - arrivals[-2]) / 1e9
    return max((group.frames for group in groups), default=0) * (store.metadata.frame_time_s or 0.0)
