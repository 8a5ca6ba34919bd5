"""Writing a segment of a journal: made whole or not at all, on the disk when `write` returns. Format: `segments.py`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from framefold_protocol.durable import PARTIAL, sync_folder
from framefold_protocol.segments import MARK_OFFSET, Head, pack_mark, segment_path

_RESERVED_BYTES = 16 * 2**20
"""Taken from the disk at a time: a file that grows with every write makes waiting for the disk 2 to 4 times as long."""
_MAX_BUFFERS = 1000
"""Of one write; the system takes 1024."""


class SegmentWriter:
    """A new segment. Raises `OSError`; `write` may then be called again."""

    def __init__(self, folder: Path, head: Head) -> None:
        """Make the segment, replacing an empty one at the same position; it appears under its name only when it is whole."""
        self.path = segment_path(folder, head.first)
        self.offset = head.size
        """Where the next record goes."""
        self._reserved = 0
        partial = self.path.with_name(self.path.name + PARTIAL)
        self._descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            self._write_all([head.pack()], 0)
            os.fsync(self._descriptor)
            partial.replace(self.path)
            sync_folder(folder)
        except BaseException:
            os.close(self._descriptor)
            partial.unlink(missing_ok=True)
            raise

    def write(self, buffers: Sequence[bytes]) -> None:
        """Add records; on the disk when this returns."""
        end = self.offset + sum(map(len, buffers))
        self._reserve(end)
        self._write_all(buffers, self.offset)
        os.fdatasync(self._descriptor)
        self.offset = end
        with suppress(OSError):  # without its mark a segment is as safe, but damage at its end passes for a torn write
            os.pwrite(self._descriptor, pack_mark(end), MARK_OFFSET)

    def close(self) -> None:
        """Give back what was reserved."""
        with suppress(OSError):  # readers find the end without that
            os.ftruncate(self._descriptor, self.offset)
            os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _reserve(self, end: int) -> None:
        if end <= self._reserved:
            return
        for length in (max(_RESERVED_BYTES, end - self._reserved), end - self._reserved):
            try:
                os.posix_fallocate(self._descriptor, self._reserved, length)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            else:
                self._reserved += length
                return

    def _write_all(self, buffers: Sequence[bytes], offset: int) -> None:
        left = [memoryview(buffer) for buffer in buffers if buffer]
        while left:
            written = os.pwritev(self._descriptor, left[:_MAX_BUFFERS], offset)
            offset += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
