"""A progress bar on standard error, and only when a person is looking at it."""

from __future__ import annotations

import sys

WIDTH = 30


class Progress:
    """Counts steps of about equal length; `step` says which begins."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = -1
        self._seen = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """The step before is done, this one begins."""
        self._done += 1
        filled = WIDTH * self._done // self._steps
        self._write(f"[{'#' * filled}{'.' * (WIDTH - filled)}] {what}")

    def end(self) -> None:
        """Take the bar away."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._seen:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
