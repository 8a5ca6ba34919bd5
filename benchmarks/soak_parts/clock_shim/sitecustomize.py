"""Runs at the start of every Python that has this folder on its path: its wall clock is wrong by what $SOAK_CLOCK says.

The variable names a file that holds nanoseconds; it is read anew at every look at the clock, so a clock can jump under a
running process too. framefold reads the wall clock by `time.time_ns` and `time.time` alone. The monotonic clock is left
as it is: no process keeps it beyond its own life, and it never jumps within one.
"""

import os
import time

if "SOAK_CLOCK" in os.environ:
    _file = os.open(os.environ["SOAK_CLOCK"], os.O_RDONLY)
    _true_ns = time.time_ns

    def _wrong_ns() -> int:
        return _true_ns() + int(os.pread(_file, 32, 0))

    time.time_ns = _wrong_ns
    time.time = lambda: _wrong_ns() / 1e9
