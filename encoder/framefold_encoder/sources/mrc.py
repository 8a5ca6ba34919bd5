"""MRC and MRCS stacks (MRC2014). The header is read with mrcfile's tables, the frames straight from the file.

Modes 0 (int8), 1 (int16) and 6 (uint16) hold counts; 2, 4 and 12 are not integers and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from framefold_encoder.sources.counts import stack_shape, stored_dtype
from framefold_encoder.sources.failures import COPY_AGAIN, damage, needs
from framefold_encoder.sources.raw import RawFrames
from framefold_encoder.sources.stack import FileSource
from framefold_protocol.errors import InputError


def open_mrc(path: Path) -> FileSource:
    """Open an MRC stack, one frame per section. Pixel size from the header's cell, when it is set and square."""
    with needs("mrcfile", path):
        from mrcfile import utils
    header = _header(path)
    with damage(path, "not a readable MRC file", (ValueError, ZeroDivisionError)):
        on_disk = utils.data_dtype_from_header(header)
        sections = utils.data_shape_from_header(header)
    stored = stored_dtype(on_disk, f"{path} (MRC mode {int(header.mode)})")
    shape = stack_shape(sections, path)
    offset = header.nbytes + int(header.nsymbt)
    _refuse_more_than_stated(path, offset, shape, on_disk)
    frames = RawFrames(path, offset, shape, on_disk)
    return FileSource(path, frames, shape=shape, stored=stored, pixel_size_nm=_pixel_size_nm(header))


def _header(path: Path) -> Any:
    """The 1024-byte header as a record in its own byte order."""
    from mrcfile import utils
    from mrcfile.dtypes import HEADER_DTYPE

    with damage(path, "not a readable MRC file", (OSError,)):
        read = np.fromfile(path, HEADER_DTYPE, count=1)
    if not len(read):
        raise InputError(f"{path}: truncated within its MRC header", hint=COPY_AGAIN)
    with damage(path, "not a readable MRC file", (ValueError,)):
        order = utils.byte_order_from_machine_stamp(read[0]["machst"])
    header = read.view(HEADER_DTYPE.newbyteorder(order)).reshape(()).view(np.recarray)  # 0-d, for a scalar loses its byte order
    if header.nsymbt < 0:
        raise InputError(f"{path}: its MRC header gives a negative extended header size, {header.nsymbt}")
    return header


def _refuse_more_than_stated(path: Path, offset: int, shape: tuple[int, int, int], on_disk: np.dtype[Any]) -> None:
    """A writer that died before updating nz leaves frames the header does not count; they must not be lost unseen."""
    frame_bytes = shape[1] * shape[2] * on_disk.itemsize
    held = (path.stat().st_size - offset) // frame_bytes
    if held > shape[0]:
        raise InputError(
            f"{path}: its header says {shape[0]} frames, the file holds {held}",
            hint="Close the recording properly, or set nz in the header (mrcfile.open(path, 'r+', permissive=True))",
        )


def _pixel_size_nm(header: Any) -> float | None:
    """Cell length over grid points, Å to nm; None when unset or when x and y disagree."""
    if header.mx < 1 or header.my < 1:
        return None
    x, y = float(header.cella.x) / int(header.mx), float(header.cella.y) / int(header.my)
    return x / 10 if np.isfinite(x) and x > 0 and np.isclose(x, y, rtol=1e-3) else None
