"""`file:PATH` and `file:PATH#DATASET`: finds out by the first bytes, not by the name, what a file is and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from framefold_encoder.sources.mrc import open_mrc
from framefold_encoder.sources.npy import open_npy
from framefold_encoder.sources.stack import FileSource
from framefold_encoder.sources.tiff import open_tiff
from framefold_encoder.sources.zarr import MARKERS, open_zarr
from framefold_protocol.errors import InputError

from .hdf5 import open_hdf5

_KNOWN = "TIFF (also OME and BigTIFF), MRC, .npy, HDF5 and Zarr"
_HDF5_OFFSETS = (0, 512, 1024, 2048, 4096)  # a user block of 512 x 2^n bytes may precede the signature
_SIGNATURES: tuple[tuple[int, bytes, Callable[[Path], FileSource]], ...] = (
    (0, b"II*\x00", open_tiff),
    (0, b"MM\x00*", open_tiff),
    (0, b"II+\x00", open_tiff),
    (0, b"MM\x00+", open_tiff),
    (0, b"\x93NUMPY", open_npy),
    (208, b"MAP", open_mrc),
)


def open_file(rest: str) -> FileSource:
    """Open what follows `file:`. Raises `InputError` for a path that is missing, empty, forbidden or of no known format."""
    path, inside = _split(rest)
    try:
        if path.is_dir():
            return _open_folder(path, inside)
        if not path.exists():
            raise InputError(f"{path}: no such file", hint=_where_from(path))
        if not path.is_file():
            raise InputError(f"{path}: is neither a file nor a folder", hint="Record to a file first")
        with path.open("rb") as file:
            start = file.read(_HDF5_OFFSETS[-1] + 8)
    except PermissionError as error:
        raise InputError(f"{path}: permission denied", hint="Ask its owner for read permission (chmod a+r)") from error
    except (OSError, ValueError) as error:  # a name too long or with a NUL, a disk that fails
        raise InputError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    return _open_known(path, inside, start)


def _split(rest: str) -> tuple[Path, str | None]:
    """Path and what follows the last `#`; a `#` in the name of an existing file is part of the name."""
    if not rest:
        raise InputError("source 'file:' names no file", hint="Write file:PATH, for example file:movie.tif")
    try:
        whole = Path(rest).expanduser()
        if "#" not in rest or whole.exists():
            return whole, None
        name, _, inside = rest.rpartition("#")
        return Path(name).expanduser(), inside or None
    except (OSError, RuntimeError, ValueError) as error:  # no such home folder; no such name possible
        raise InputError(f"source 'file:{rest}': {error}", hint="Write the path in full") from error


def _open_folder(path: Path, inside: str | None) -> FileSource:
    if any((path / marker).is_file() for marker in MARKERS):
        return open_zarr(path, inside)
    raise InputError(f"{path}: is a folder, and not a Zarr store; expected a file", hint="Name one file in it")


def _open_known(path: Path, inside: str | None, start: bytes) -> FileSource:
    if not start:
        raise InputError(f"{path}: is empty (0 bytes)", hint="Was the recording stopped before its first frame?")
    if any(start[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in _HDF5_OFFSETS):
        return open_hdf5(path, inside)
    for at, magic, opener in _SIGNATURES:
        if start[at : at + len(magic)] == magic:
            if inside:
                raise InputError(
                    f"{path}: {inside!r} after '#' names a dataset, which only HDF5 and Zarr have", hint=f"Write file:{path}"
                )
            return opener(path)
    raise InputError(f"{path}: not a known format, starts with {start[:8]!r}", hint=f"Known are {_KNOWN}")


def _where_from(path: Path) -> str:
    return "" if path.is_absolute() else f"Looked in {Path.cwd()}"
