"""Training time that a stopped process does not spend."""

from __future__ import annotations

import statistics
import time
from collections import deque


class Clock:
    """Training time in minutes; a step far longer than the ones before it was stopped from outside, and counts as they did."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=50)
        self._last = time.monotonic()

    def start(self) -> None:
        """Forget the time since the last step."""
        self._last = time.monotonic()

    def step(self) -> float:
        """Minutes of the step that ends now."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if len(self._recent) >= 10:
            seconds = min(seconds, 5 * statistics.median(self._recent))
        self._recent.append(seconds)
        return seconds / 60
