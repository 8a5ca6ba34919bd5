"""A disk that fills up at a word: a tmpfs that is shrunk to what it holds, in a mount namespace of this process's own.

Shrinking needs no memory and is over at once; writers meet the real ENOSPC. Root may make a mount namespace, other users
may where the system allows user namespaces (most Linux systems do). Where neither is possible no disk is filled, and
`enter_namespace` says why. Nothing is mounted outside, and nothing is left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_INSIDE = "SOAK_NAMESPACE"
_ATTEMPTS = 20
_PROBE = 'mount -t tmpfs -o size=64k none "$0" && mount --options-mode ignore -o remount,size=128k none "$0"'


def enter_namespace() -> str:
    """Run this program again inside a mount namespace; returns only there, with "", or where it cannot be, with the reason."""
    if _INSIDE in os.environ:
        return ""
    reason = "unshare is not installed"
    for options in (["--mount"], ["--map-root-user", "--mount"]):
        with tempfile.TemporaryDirectory() as folder:
            command = ["unshare", *options, "--", "sh", "-c", _PROBE, folder]
            try:
                tried = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError:
                break
        if tried.returncode == 0:
            os.environ[_INSIDE] = "1"
            sys.stdout.flush()
            os.execvp("unshare", ["unshare", *options, "--", sys.executable, *sys.argv])
        reason = tried.stderr.strip()
    return f"no mount namespace: {reason}"


class SmallDisk:
    """A tmpfs at `folder`; only inside the namespace."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self._size = size_bytes
        _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "none", folder)

    def fill(self, left_bytes: int) -> None:
        """Leave room for so many bytes more, to the page."""
        for _ in range(_ATTEMPTS):
            used = os.statvfs(self.folder)
            with suppress(subprocess.CalledProcessError):  # more was written meanwhile than was to be left
                self._resize((used.f_blocks - used.f_bfree) * used.f_bsize + left_bytes)
                return
        raise RuntimeError(f"the disk at {self.folder} cannot be filled: see mount's messages above")

    def free(self) -> None:
        """Give all the room back."""
        self._resize(self._size)

    def close(self) -> None:
        """Take it away, with all that is on it."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _resize(self, size: int) -> None:
        # Without reading the mount's other options, which name users that a user namespace does not know.
        _mount("--options-mode", "ignore", "-o", f"remount,size={max(size, 4096)}", "none", self.folder)


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)
