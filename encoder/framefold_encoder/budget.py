"""How many frames the next group needs for the stream to keep to a wire ratio: bytes delivered over bytes sent.

A snapshot takes about the same bytes however many frames are in it, so the last one tells the B that the ratio asks for. What
the stream as a whole is over or under its bytes by, because the first groups were a guess, the scene changed, or audit groups
were sent, is made up for over the next `HORIZON` groups. So what a still scene spared is spent when things move.
"""

from __future__ import annotations

import math
import threading

HORIZON = 16
"""Groups. Those that are read ahead are not counted yet, so much fewer would swing."""
FIRST_GUESS = 0.5
"""B over the wire ratio, before a snapshot is coded: snapshots in bins take half of what a frame does or less."""


class ByteBudget:
    """Counts what was sent of one stream; safe to use from several threads."""

    def __init__(self, wire_ratio: float, frame_bytes: int) -> None:
        """`frame_bytes`: of one frame's pixels, as the detector delivers them."""
        self._allowed = frame_bytes / wire_ratio  # for a frame
        self._first = FIRST_GUESS * wire_ratio
        self._last = 0
        self._over = 0.0
        self._lock = threading.Lock()

    def count(self, frames: int, message_bytes: int) -> None:
        """A message of so many frames, 0 for one that comes on top of another, with all its headers."""
        with self._lock:
            self._over += message_bytes - frames * self._allowed
            if frames:
                self._last = message_bytes
            self._over = max(self._over, -HORIZON * self._last)  # what is spared for long is not spent all at once

    def frames(self) -> int:
        """B of the next group, at least 1: as few frames as the wire ratio allows."""
        with self._lock:
            wanted = (self._last + self._over / HORIZON) / self._allowed if self._last else self._first
        return max(1, math.ceil(wanted))
