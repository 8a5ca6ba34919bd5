"""A recording in a file, as a source: the position within it, and the checks every format shares.

A format brings `Frames`, which fetches frames by number, and never sees the unsigned view the daemon asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.base import SourceInfo
from framefold_encoder.sources.counts import refuse_negative, unsigned
from framefold_encoder.sources.failures import damage
from framefold_protocol.checksum import crc32
from framefold_protocol.errors import InputError


class Frames(Protocol):
    """Random access to the frames of one file."""

    def read(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        """Fill `out` (n, H, W), C-contiguous, with frames start to start + n.

        `out` has the file's integer type in native byte order. The caller stays within the file's frame count. Raises
        `InputError` naming file and frame when one cannot be read.
        """

    def close(self) -> None:
        """Release the file."""


def _version(files: list[Path]) -> str:
    """Another one when any of the files is another, of another size or from another time."""
    found = [(os.fsencode(file), file.stat()) for file in sorted(files)]
    size, changed = sum(one.st_size for _, one in found), max(one.st_mtime_ns for _, one in found)
    if len(found) == 1:
        return f"{size} bytes, changed {changed}"
    each = crc32(*(b"%b %d %d\n" % (name, one.st_size, one.st_mtime_ns) for name, one in found))
    return f"{size} bytes in {len(found)} files, changed {changed}, {each:08x}"


class FileSource:
    """The frames of one file, in order, read once. Implements `Source`."""

    def __init__(
        self,
        path: Path,
        frames: Frames,
        *,
        shape: tuple[int, int, int],
        stored: np.dtype[np.integer[Any]],
        frame_time_s: float | None = None,
        pixel_size_nm: float | None = None,
        files: Iterable[Path] = (),
    ) -> None:
        """`shape` is (T, H, W), `stored` the file's integer type in native byte order; `files` are all that the frames lie in,
        where that is not `path` alone."""
        count, height, width = shape
        with damage(path, "its files cannot be looked at", (OSError,)):
            version = _version(list(files) or [path])
        self._info = SourceInfo(
            path.name, (height, width), unsigned(stored), count, frame_time_s, pixel_size_nm, version=version
        )
        self._path = path
        self._frames: Frames | None = frames
        self._stored = stored
        self._left = range(count)

    @property
    def info(self) -> SourceInfo:
        """The file's description."""
        return self._info

    def read_into(self, out: npt.NDArray[np.unsignedinteger[Any]]) -> int:
        """Write the next frames into `out` (n, H, W), see `Source.read_into`: all before one that cannot be read."""
        if self._frames is None:
            raise ValueError(f"{self._path}: read after close")
        if out.shape[1:] != self._info.shape or out.dtype != self._info.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype} {out.shape}, expected C-contiguous {self._info.dtype} (n, *{self._info.shape})"
            )
        due = self._left[: len(out)]
        if due:
            try:
                self._read(self._frames, due.start, out[: len(due)])
            except InputError:
                due = due[: self._good(self._frames, due, out)]
            self._left = self._left[len(due) :]
        return len(due)

    def _read(self, frames: Frames, start: int, out: npt.NDArray[np.unsignedinteger[Any]]) -> None:
        target = out.view(self._stored)
        frames.read(start, target)
        if self._stored.kind == "i":
            refuse_negative(self._path, target, start)

    def _good(self, frames: Frames, due: range, out: npt.NDArray[np.unsignedinteger[Any]]) -> int:
        """How many of the due frames are before the first that cannot be read, which raises where it is the first of all."""
        for k, number in enumerate(due):
            try:
                self._read(frames, number, out[k : k + 1])
            except InputError:
                if k == 0:
                    raise
                return k
        return len(due)

    def skip(self, count: int) -> None:
        """Go past the next `count` frames."""
        self._left = self._left[count:]

    def close(self) -> None:
        """Release the file; calling it again does nothing."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
