"""Background reconstruction: every stored snapshot becomes frames and a chi2, in order within a stream, one at a time.

A snapshot is reconstructed when its successor is here too (nets see both neighbours), or when none is to be expected.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.quality import chi2
from framefold_decoder.reconstruct.base import FoldedGroup, NoiseModel
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.store import StreamStore
from framefold_protocol.errors import FramefoldError

_log = logging.getLogger(__name__)
_PATIENCE_S = 3.0
"""How long the last snapshot of an unfinished stream waits for its successor."""
_TICK_S = 1.0


class Unfolder:
    """A thread that reconstructs what is pending. A context manager: leaving it finishes the snapshot in work."""

    def __init__(self, library: Library, registry: Registry, model: str, metrics: Metrics | None = None) -> None:
        self._library = library
        self._registry = registry
        self._model = model
        self._metrics = metrics or Metrics()
        self._failed: set[tuple[str, int]] = set()
        self._cards_kept: set[str] = set()
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

    @property
    def running(self) -> bool:
        """Whether snapshots are being reconstructed."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Something was stored: look for work now."""
        self._work.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._work.clear()
            if not self._step():
                self._work.wait(_TICK_S)

    def _step(self) -> bool:
        """Reconstruct one snapshot; whether there was one."""
        task = None
        try:
            task = self._next_task()
            if task is not None:
                self._unfold(*task)
        except Exception as error:  # what one snapshot meets must not keep the others waiting
            known = isinstance(error, FramefoldError)
            _log.error("%s cannot be reconstructed: %s", task or "the next snapshot", error, exc_info=not known)
            if task is not None:
                self._failed.add(task)  # tried again after a restart
        return task is not None

    def _next_task(self) -> tuple[str, int] | None:
        for task in self._library.catalogue.pending(limit=len(self._failed) + 16):
            if task not in self._failed and self._has_neighbours(*task):
                return task
        return None

    def _has_neighbours(self, stream_id: str, position: int) -> bool:
        record = self._library.catalogue.stream(stream_id)
        if record is None:
            return False
        waited_s = (time.time_ns() - record.updated_unix_ns) / 1e9
        return record.position > position + 1 or record.state == "complete" or not 0 <= waited_s < _PATIENCE_S

    def _keep_card(self, model: str) -> None:
        """Put a model's card into the catalogue before its first frames are, so that they can be traced to it for good."""
        if model not in self._cards_kept:
            entry = next(entry for entry in self._registry.models() if entry.name == model)
            self._library.catalogue.add_model(model, entry.card or {})
            self._cards_kept.add(model)

    def _unfold(self, stream_id: str, position: int) -> None:
        store = self._library.store(stream_id)
        group = _group(store, position)
        assert group is not None, "only snapshots are pending"
        reconstructor = self._registry.choose(self._model, group.coding)
        self._keep_card(reconstructor.name)
        noise = NoiseModel(counts_per_electron=store.metadata.counts_per_electron or 1.0)
        start = time.perf_counter()
        frames = reconstructor.reconstruct(group, _group(store, position - 1), _group(store, position + 1), noise)
        misfit = chi2(group, frames, noise)
        self._library.put_frames(stream_id, position, frames, misfit, reconstructor.name)
        took_s = time.perf_counter() - start
        self._metrics.decoded(misfit, took_s)
        _log.info("stream %s position %d: %s, chi2 %.3f, %.1f s", stream_id, position, reconstructor.name, misfit, took_s)


def _group(store: StreamStore, position: int) -> FoldedGroup | None:
    """The snapshot at a position with its masks; None where there is none, or no snapshot."""
    if not 0 <= position < store.position or store.group(position).kind != "snapshot":
        return None
    return FoldedGroup(store.snapshot(position), store.coding(position))
