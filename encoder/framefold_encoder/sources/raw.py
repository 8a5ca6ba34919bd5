"""Frames stored one after another without compression: NumPy, MRC and contiguous TIFF all end here.

Reads go from the file straight into the caller's array. Not a memory map: that costs a page fault per 4 KiB and answers a file
that shrinks while it is read with SIGBUS instead of an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.failures import COPY_AGAIN, damage
from framefold_protocol.errors import InputError


class RawFrames:
    """Frames from byte `offset` of a file on, each H x W values of type `on_disk`, in its byte order."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int], on_disk: np.dtype[Any]) -> None:
        """Raises `InputError` when the file ends before its last frame."""
        self._path = path
        self._offset = offset
        self._count, height, width = shape
        self._frame_bytes = height * width * on_disk.itemsize
        self._swapped = not on_disk.isnative
        held = max(path.stat().st_size - offset, 0) // self._frame_bytes
        if held < self._count:
            raise self._cut_off(held)
        self._file = path.open("rb", buffering=0)

    def read(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        """Fill `out` (n, H, W) with frames start to start + n."""
        left = memoryview(out.reshape(-1).view(np.uint8).data)
        while left:
            done = out.nbytes - len(left)
            frame = start + done // self._frame_bytes
            with damage(self._path, f"frame {frame} cannot be read", (OSError,), "Check the disk or the share that it is on"):
                self._file.seek(self._offset + start * self._frame_bytes + done)
                got = self._file.readinto(left)
            if not got:
                raise self._cut_off(frame)
            left = left[got:]
        if self._swapped:
            out.byteswap(inplace=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _cut_off(self, held: int) -> InputError:
        return InputError(
            f"{self._path}: truncated: its header says {self._count} frames, the file ends within frame {held}",
            hint=COPY_AGAIN,
        )
