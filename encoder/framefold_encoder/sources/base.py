"""What every frame source offers the daemon: its description, and frames written into the daemon's own buffer.

A source never allocates frames for the daemon and never keeps more than it needs: the daemon owns the frame ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SourceInfo:
    """What a source knows of its frames before the first one is read."""

    name: str
    """For people and for the stream's metadata: a file name, `sim`, a detector's name."""
    shape: tuple[int, int]
    """(H, W) in pixels; every frame has it."""
    dtype: np.dtype[np.unsignedinteger]
    """uint8, uint16 or uint32 in this machine's byte order."""
    frame_count: int | None
    """Frames from start to end; None while a live source does not know."""
    frame_time_s: float | None = None
    """Seconds from one frame to the next; None when unknown."""
    pixel_size_nm: float | None = None
    """Nanometres at the specimen per pixel; None when unknown."""
    counts_per_electron: float | None = None
    """Detector gain in counts per electron; None when unknown. 1.0 for a counting detector."""
    live: bool = False
    """Whether frames that are not read in time are lost, as of a camera that cannot wait."""
    version: str = ""
    """Another one when the frames may be others, though the name is the same: a file's size and time of its last change."""


class Source(Protocol):
    """Frames in order, read once. Use as a context manager."""

    @property
    def info(self) -> SourceInfo:
        """The source's description; constant from opening to closing."""

    def read_into(self, out: npt.NDArray[np.unsignedinteger]) -> int:
        """Write the next frames into `out`.

        `out` is a C-contiguous (n, H, W) array of `info.dtype`. Returns how many frames were written, 1 to n; 0 when the source
        has ended. A live source may return fewer than n rather than wait. Raises `InputError` when a frame cannot be read or
        does not fit `info`, naming the file and the frame.
        """

    def skip(self, count: int) -> None:
        """Go past the next `count` frames, which an earlier run has read; only of a source that is not live."""

    def close(self) -> None:
        """Release files and sockets; calling it again does nothing."""

    def __enter__(self) -> Source: ...
    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class LendingSource(Source, Protocol):
    """A source that has its frames in memory already and lends them, instead of writing them into the daemon's."""

    def lend(self, count: int) -> npt.NDArray[np.unsignedinteger]:
        """The next frames, C-contiguous (n, H, W) of `info.dtype`, n up to `count` and fewer only at the source's end.

        What was lent stays unchanged until the call after the next.
        """
