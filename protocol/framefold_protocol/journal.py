"""Where a side keeps the messages it answers for: appended in order of position, forgotten when the other side stored them.

`MemoryJournal` lives as long as its process; `disk_journal.DiskJournal` outlives it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from framefold_protocol.errors import LocalProtocolError
from framefold_protocol.wire import Parts


class Journal(Protocol):
    """Consecutive positions `start` to `end`, each with the parts of its message."""

    @property
    def run(self) -> int:
        """Counts the openings of this journal, from 1."""

    @property
    def start(self) -> int:
        """The first position that is kept."""

    @property
    def synced(self) -> int:
        """Everything before this position is as safe as the journal makes it: now it may be sent, or acknowledged."""

    @property
    def end(self) -> int:
        """The position the next append gets."""

    @property
    def fill(self) -> float:
        """Share of its bound that is in use, 0 to 1 and a little more."""

    @property
    def full(self) -> bool:
        """Whether its bound is reached: append no more until something was synced or released."""

    def append(self, parts: Parts) -> int:
        """Keep one message; returns its position."""

    def sync(self) -> None:
        """Make everything appended before safe. Raises `StoreError`, after which the next call tries again."""

    def read(self, position: int) -> Parts:
        """The message of a kept position. Raises `LocalProtocolError` outside start to end, `StoreError` for damage."""

    def last(self) -> Parts | None:
        """The newest message, released or not; None when there never was one. It tells how far the stream had come."""

    def release(self, position: int) -> None:
        """Forget everything synced before this position."""


class MemoryJournal:
    """A journal in memory, bounded in bytes; one message always fits.

    `append`, `read` and `release` are for one thread each; different ones may run at the same time.
    """

    run = 1

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._messages: deque[Parts] = deque()
        self._newest: Parts | None = None
        # Each number is changed by one method only, so that no thread undoes another's count.
        self._end = self._start = 0
        self._appended_bytes = self._released_bytes = 0

    @property
    def start(self) -> int:
        """The first position that is kept."""
        return self._start

    @property
    def synced(self) -> int:
        """The end: memory has nothing safer."""
        return self.end

    @property
    def end(self) -> int:
        """The position the next append gets."""
        return self._end

    @property
    def fill(self) -> float:
        """Share of the limit in use, 0 to 1 and at most one message more."""
        return (self._appended_bytes - self._released_bytes) / self._limit_bytes

    @property
    def full(self) -> bool:
        """Whether the kept messages have reached the limit."""
        return self.fill >= 1

    def append(self, parts: Parts) -> int:
        """Keep one message; returns its position."""
        self._messages.append(parts)
        self._newest = parts
        self._appended_bytes += _size(parts)
        self._end += 1
        return self._end - 1

    def sync(self) -> None:
        """Nothing to do."""

    def read(self, position: int) -> Parts:
        """The message of a kept position."""
        if not self._start <= position < self.end:
            raise LocalProtocolError(f"journal holds positions {self._start} to {self.end - 1}, not {position}")
        return self._messages[position - self._start]

    def last(self) -> Parts | None:
        """The newest message."""
        return self._newest

    def release(self, position: int) -> None:
        """Forget everything before this position."""
        while self._start < min(position, self._end):
            self._released_bytes += _size(self._messages.popleft())
            self._start += 1


def _size(parts: Parts) -> int:
    return sum(map(len, parts))
