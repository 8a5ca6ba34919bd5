"""How far the stream in work has come, as its decoder tells: in its log as it happens, by REST when asked."""

from __future__ import annotations

import re
import time
from contextlib import suppress

from framefold_client import Client, ClientError

NEAR_THE_END = 2
"""Positions that may be missing when a stream counts as ending."""
_ASK_EVERY_S = 0.2


class StreamProgress:
    """Of one stream with `positions` positions. Streams in `finished` are not it."""

    def __init__(self, positions: int, finished: frozenset[str]) -> None:
        self._positions = positions
        self._finished = finished
        self._stored = 0
        self._stream_id = ""
        self._asked = 0.0
        self.closed = False
        """Whether all of it is stored and the stream is closed."""

    def hear(self, line: str) -> None:
        """A line of the decoder's log."""
        found = re.search(r"stream ([0-9a-f]{32}) (\(.*from position|is complete)", line)
        if found and found[1] not in self._finished:
            self._stream_id = found[1]
            self.closed |= found[2] == "is complete"

    def ask(self, client: Client, *, often: bool = False) -> None:
        """Look how much is stored, if the last look is not too recent or it must be done `often`."""
        if self._stream_id and not self.closed and (often or time.monotonic() > self._asked + _ASK_EVERY_S):
            self._asked = time.monotonic()
            with suppress(ClientError):  # it is away
                self._stored = int(client.stream(self._stream_id)["positions"])

    @property
    def ending(self) -> bool:
        """Whether nearly everything is stored."""
        return self.closed or self._stored >= self._positions - NEAR_THE_END
