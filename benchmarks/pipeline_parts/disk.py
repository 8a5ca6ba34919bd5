"""What the disk can do at best: large blocks, each of them on the disk before the next, as a journal writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

BLOCK_BYTES = 4 << 20


def write_gb_s(folder: Path, seconds: float) -> float:
    """GB/s of one file that is written and fsynced block by block for so long."""
    block, path = os.urandom(BLOCK_BYTES), folder / "disk-rate"
    written, start = 0, time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() < start + seconds:
            written += file.write(block)
            os.fsync(file.fileno())
    rate = written / (time.perf_counter() - start) / 1e9
    path.unlink()
    return rate
