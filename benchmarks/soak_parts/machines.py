"""The two machines of a soak, the encoder's and the decoder's: each its folder, its disk, its clock, its process."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from soak_parts.clock import Clock
from soak_parts.daemon import Daemon
from soak_parts.small_disk import SmallDisk

DISK_BYTES = 8 << 30
"""Room on a small disk that is not full. In memory, but only what is used of it."""
RESUME_S = 1.0
"""How long a restarted process is taken to be resuming, once it is ready."""
_READY = {"encoder": r"welcomed|going on", "decoder": r"encoders connect"}


class Machine:
    """One side. Its process lives by its clock and should keep everything on its disk."""

    def __init__(self, side: str, folder: Path, *, small_disk: bool, listen: Callable[[str], None]) -> None:
        """`listen` is told every line its processes log."""
        self.side = side
        self.folder = folder / side
        self.clock = Clock(folder / f"{side}.clock")
        self._log = folder / f"{side}.log"
        self._listen = listen
        self.folder.mkdir()
        self._disk = SmallDisk(self.folder, DISK_BYTES) if small_disk else None
        self._full = False
        self._freed = 0.0
        self._daemon: Daemon | None = None
        self._restarted = False
        self._ready_since: float | None = None

    @property
    def daemon(self) -> Daemon:
        """The process that runs here, or ran here last."""
        assert self._daemon is not None, "nothing ran here yet"
        return self._daemon

    def run(self, program: str, arguments: Sequence[object], environment: dict[str, str] | None = None) -> None:
        """Start a program here; the one before must have ended."""
        self._daemon = Daemon(program, arguments, self._log, self.clock.environment | (environment or {}), self._hear)
        self._start(again=False)

    def restart(self) -> None:
        """Start the program again that has ended."""
        self._start(again=True)

    def kill(self) -> None:
        """SIGKILL what runs here."""
        self.daemon.kill()

    def close(self, keep: bool) -> None:
        """Kill what runs here, and take the small disk away. `keep`: what is on it goes to a folder `kept-SIDE`."""
        if self._daemon is not None:
            self._daemon.kill()
        if self._disk is not None:
            if keep:
                shutil.copytree(self.folder, self.folder.with_name(f"kept-{self.side}"))
            self._disk.close()

    def phase(self) -> str:
        """What the process is at: `start-up`, `resume` after a restart, or `streaming`."""
        if self._ready_since is None:
            return "start-up"
        return "resume" if self._restarted and time.monotonic() < self._ready_since + RESUME_S else "streaming"

    def fill_disk(self, left_bytes: int) -> None:
        """Leave so much room."""
        assert self._disk is not None
        self._disk.fill(left_bytes)
        self._full = True

    def free_disk(self) -> None:
        """Give the room back, if it was taken."""
        if self._disk is not None and self._full:
            self._disk.free()
            self._full = False
            self._freed = time.monotonic()

    @property
    def lacked_room(self) -> bool:
        """Whether the disk was full at some moment of the process's life."""
        return self._full or self.daemon.started < self._freed

    def _start(self, *, again: bool) -> None:
        self._restarted, self._ready_since = again, None
        self.daemon.start()

    def _hear(self, unix_s: float, line: str) -> None:
        if self._ready_since is None and re.search(_READY[self.side], line):
            self._ready_since = time.monotonic()
        self._listen(line)
