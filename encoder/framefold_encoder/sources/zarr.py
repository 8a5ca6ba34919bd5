"""An array in a Zarr v2 or v3 store on disk: `file:run.zarr` or `file:run.zarr#frames`.

A chunk file that is absent reads as the fill value: the format's way of storing empty chunks, so it cannot be told from loss.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.chunked import ChunkedFrames
from framefold_encoder.sources.counts import stack_shape, stored_dtype
from framefold_encoder.sources.failures import damage, needs
from framefold_encoder.sources.stack import FileSource
from framefold_protocol.errors import InputError

MARKERS = ("zarr.json", ".zarray", ".zgroup")
"""One of these in a folder makes it a Zarr node."""

_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error)
"""What zarr and its codecs raise; the middle ones for metadata that is JSON but not Zarr's."""


def open_zarr(path: Path, inside: str | None) -> FileSource:
    """Open the array `inside`, or the store itself or its only 3-D unsigned integer array when None."""
    with needs("zarr", path):
        import zarr
    with damage(path, "not a readable Zarr store", _ERRORS):
        node = zarr.open(path, mode="r")
    array = _array(node, path, inside)
    where = f"{path}#{array.path}" if array.path else str(path)
    stored = stored_dtype(array.dtype, where)
    shape = stack_shape(array.shape, where)
    depth = array.chunks[0] if array.ndim == 3 else 1
    frames = ChunkedFrames(_Fetch(array, where), array.store.close, shape=shape, stored=stored, depth=depth)
    with damage(path, "its chunks cannot be listed", (OSError,)):
        files = [file for file in (path / array.path).rglob("*") if file.is_file()]
    return FileSource(path, frames, shape=shape, stored=stored, files=files)


class _Fetch:
    """Reads a run of frames."""

    def __init__(self, array: Any, where: str) -> None:
        self._array = array
        self._where = where

    def __call__(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        stop = start + len(out)
        frames = f"frames {start} to {stop - 1}" if len(out) > 1 else f"frame {start}"
        with damage(Path(self._where), f"{frames} cannot be read", _ERRORS):
            out[...] = self._array[...] if self._array.ndim == 2 else self._array[start:stop]


def _array(node: Any, path: Path, inside: str | None) -> Any:
    import zarr

    if isinstance(node, zarr.Array):
        if inside:
            raise InputError(f"{path}: is itself an array, there is no {inside!r} in it", hint=f"Write file:{path}")
        return node
    with damage(path, "its members cannot be listed", _ERRORS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # other files in the folder
        arrays = {f"/{name}": item for name, item in node.members(max_depth=None) if isinstance(item, zarr.Array)}
    if inside:
        wanted = f"/{inside.strip('/')}"
        if wanted not in arrays:
            raise InputError(f"{path}: has no array {inside!r}", hint=_listing(arrays))
        return arrays[wanted]
    stacks = {n: a for n, a in arrays.items() if a.ndim == 3 and a.dtype.kind == "u" and a.dtype.itemsize <= 4}
    if len(stacks) != 1:
        found = f"{len(stacks)} three-dimensional arrays" if stacks else "no three-dimensional array"
        raise InputError(f"{path}: {found} of unsigned integers, expected one", hint=_listing(stacks or arrays))
    return next(iter(stacks.values()))


def _listing(arrays: dict[str, Any]) -> str:
    if not arrays:
        return "Name the array after '#': file:PATH#frames"
    shown = ", ".join(f"#{name} {'x'.join(map(str, a.shape))} {a.dtype}" for name, a in sorted(arrays.items())[:8])
    return f"Name one of: {shown}" + (", ..." if len(arrays) > 8 else "")
