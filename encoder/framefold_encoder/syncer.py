"""A thread that puts what is appended to a journal on the disk: many messages share one wait, and nobody else waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Self

from framefold_protocol.errors import StoreError
from framefold_protocol.journal import Journal

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
"""After the disk refused something, it is asked again so soon."""


class Syncer:
    """A context manager: leaving it puts the rest on the disk, if that lets it, and ends the thread."""

    def __init__(self, journal: Journal, on_synced: Callable[[], None], on_failed: Callable[[Exception], None]) -> None:
        """`on_synced` and `on_failed` are called by the thread: more is on the disk now; it ends with an error."""
        self._journal = journal
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._complained = False
        self._closing = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._work.set()
        self._thread.join()

    def wake(self) -> None:
        """Something was appended."""
        self._work.set()

    def _run(self) -> None:
        try:
            while True:
                self._work.clear()
                closing = self._closing.is_set()
                if self._journal.synced < self._journal.end and (self._sync() or not closing):
                    continue
                if closing:
                    return
                self._work.wait()
        except Exception as error:
            self._on_failed(error)

    def _sync(self) -> bool:
        """Whether the disk took it."""
        try:
            self._journal.sync()
        except StoreError as error:
            if not self._complained:
                _log.warning("waiting, nothing is sent that is not in the journal: %s", error)
            self._complained = True
            self._closing.wait(_RETRY_S)
            return False
        if self._complained:
            _log.info("the journal goes on")
        self._complained = False
        self._on_synced()
        return True
