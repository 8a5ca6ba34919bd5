"""A wall clock that jumps, for the processes that are given its environment; see `clock_shim/sitecustomize.py`."""

from __future__ import annotations

import os
from pathlib import Path

SHIM = Path(__file__).parent / "clock_shim"


class Clock:
    """One machine's wall clock: true until it jumps."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump_to(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live by this clock."""
        path = os.pathsep.join(filter(None, (str(SHIM), os.environ.get("PYTHONPATH", ""))))
        return {"PYTHONPATH": path, "SOAK_CLOCK": str(self._file)}

    def jump_to(self, offset_s: float) -> None:
        """Be wrong by so many seconds from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(b"%32d" % int(offset_s * 1e9))  # of one length, so that it is never seen half-written
