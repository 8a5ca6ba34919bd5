"""How many frames the next group needs for the stream to keep to a wire ratio: bytes delivered over bytes sent; and in how wide
bins its snapshot is coded, where that is free too.

A snapshot takes about the same bytes however many frames are in it, so the last one tells the B that the ratio asks for. What
the stream as a whole is over or under its bytes by, because the first groups were a guess, the scene changed, or audit groups
were sent, is made up for over the next `HORIZON` groups. So what a still scene spared is spent when things move.

Bins twice as wide spare a bit a pixel, and buy shorter groups, whose frames a net tells apart more easily; but their own error
is that of more noise. Groups of `FEW` frames are short enough: then narrower bins are the better use of the bytes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

HORIZON = 16
"""Groups. Those that are read ahead are not counted yet, so much fewer would swing."""
FIRST_GUESS = 0.5
"""B over the wire ratio, before a snapshot is coded: snapshots in bins take half of what a frame does or less."""
FEW = 6
"""Frames: wider bins are not worth fewer (decision 0006)."""
WIDTHS = (1.0, 1.4, 2.0)
"""Of bins to choose from, in sigma, rising: half a bit a pixel apart. Narrower ones take more bytes than they are worth."""


class ByteBudget:
    """Counts what was sent of one stream; safe to use from several threads."""

    def __init__(self, wire_ratio: float, frame_bytes: int, pixels: int, widths: Sequence[float] = ()) -> None:
        """`frame_bytes`: of one frame's `pixels`, as the detector delivers them; `widths` of bins to choose from."""
        self._allowed = frame_bytes / wire_ratio  # for a frame
        self._first = FIRST_GUESS * wire_ratio
        self._pixels = pixels
        self._widths = tuple(widths)
        self._last, self._last_width = 0, 1.0
        self._over = 0.0
        self._lock = threading.Lock()

    def count(self, frames: int, message_bytes: int, width: float | None = None) -> None:
        """A message of so many frames, 0 for one that comes on top of another, with all its headers. `width` of a snapshot's
        bins, anything where it is exact; None: it is no snapshot."""
        with self._lock:
            self._over += message_bytes - frames * self._allowed
            if width:
                self._last, self._last_width = message_bytes, width
            self._over = max(self._over, -HORIZON * self._last)  # what is spared for long is not spent all at once

    def frames(self) -> int:
        """B of the next group, at least 1: as few frames as the wire ratio allows, in bins no wider than that is worth."""
        with self._lock:
            if not self._last:
                return max(1, math.ceil(self._first))
            if not self._widths:
                return self._needed(self._last_width)
            return enough(self._needed(self._widths[0]), self._needed(self._widths[-1]))

    def width(self, frames: int) -> float:
        """Of the bins of a snapshot of so many frames, in sigma: the narrowest that the wire ratio allows."""
        with self._lock:
            fit = (width for width in self._widths if self._last and self._needed(width) <= frames)
            return next(fit, self._widths[-1] if self._last else self._last_width)

    def _needed(self, width: float) -> int:
        spared = self._pixels / 8 * math.log2(width / self._last_width)
        wanted = max(self._last - spared, self._last / 8) + self._over / HORIZON
        return max(1, math.ceil(wanted / self._allowed))


def enough(in_narrow_bins: int, in_wide_bins: int) -> int:
    """B, when so many frames are needed in the narrowest and in the widest bins."""
    return max(in_wide_bins, min(FEW, in_narrow_bins))
