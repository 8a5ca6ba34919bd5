"""A dataset in an HDF5 file: `file:run.h5#/entry/data/data`. NeXus and EMD are HDF5 too.

HDF5 answers a read of what was never written with the fill value. A dataset with holes is therefore refused when it is opened.
"""

from __future__ import annotations

import glob
import math
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.chunked import ChunkedFrames
from framefold_encoder.sources.counts import stack_shape, stored_dtype
from framefold_encoder.sources.failures import damage, needs
from framefold_encoder.sources.stack import FileSource
from framefold_protocol.errors import InputError, installing

_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)


def open_hdf5(path: Path, inside: str | None) -> FileSource:
    """Open the dataset `inside`, or the file's only 3-D unsigned integer dataset when None."""
    with needs("h5py", path):
        import h5py
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # importing it registers the filters detectors compress with
    with ExitStack() as undo:
        with (
            damage(path, "not a readable HDF5 file", _ERRORS),
            damage(path, "another program is writing to it", (BlockingIOError,), "Wait until the recording is closed"),
        ):
            file = undo.enter_context(h5py.File(path, "r"))
        dataset = _dataset(file, path, inside) if inside else _only_stack(file, path)
        where = f"{path}#{dataset.name}"
        stored = stored_dtype(dataset.dtype, where)
        shape = stack_shape(dataset.shape or (), where)
        _refuse_holes(dataset, where)
        depth = dataset.chunks[0] if dataset.chunks and len(dataset.shape) == 3 else 1
        frames = ChunkedFrames(_Fetch(dataset, where), file.close, shape=shape, stored=stored, depth=depth)
        source = FileSource(path, frames, shape=shape, stored=stored, files=_files(dataset, path))
        undo.pop_all()
    return source


class _Fetch:
    """Reads a run of frames; h5py converts the byte order as it goes."""

    def __init__(self, dataset: Any, where: str) -> None:
        self._dataset = dataset
        self._where = where

    def __call__(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        stop = start + len(out)
        frames = f"frames {start} to {stop - 1}" if len(out) > 1 else f"frame {start}"
        hint = f"If a filter is missing: {installing('io')}; if the file is damaged, copy it again"
        with damage(Path(self._where), f"{frames} cannot be read", _ERRORS, hint):
            if len(self._dataset.shape) == 2:
                self._dataset.read_direct(out[0])
            else:
                self._dataset.read_direct(out, np.s_[start:stop])


def _dataset(file: Any, path: Path, inside: str) -> Any:
    import h5py

    with suppress(KeyError):  # also what a link to a missing file raises
        found = file[inside]
        if isinstance(found, h5py.Dataset):
            return found
        raise InputError(f"{path}#{inside}: is a group, expected a dataset", hint=_listing(_stacks(file)))
    raise InputError(f"{path}: has no dataset {inside!r}", hint=_listing(_stacks(file)))


def _only_stack(file: Any, path: Path) -> Any:
    stacks = _stacks(file)
    if len(stacks) != 1:
        found = f"{len(stacks)} three-dimensional datasets" if stacks else "no three-dimensional dataset"
        raise InputError(f"{path}: {found} of unsigned integers, expected one", hint=_listing(stacks))
    return next(iter(stacks))


def _stacks(file: Any) -> dict[Any, str]:
    """Datasets that could be recordings and their names; one linked under several names counts once."""
    import h5py

    names: list[str] = []
    with damage(Path(file.filename), "its datasets cannot be listed", _ERRORS):
        file.visititems_links(lambda name, link: names.append(name))  # unlike visititems, shows links to other files
    found: dict[Any, str] = {}
    for name in names:
        with suppress(*_ERRORS):
            item = file[name]
            if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind == "u" and item.dtype.itemsize <= 4:
                found.setdefault(item, f"/{name}")
    return found


def _listing(stacks: dict[Any, str]) -> str:
    if not stacks:
        return "Name the dataset after '#': file:PATH#/entry/data"
    shown = ", ".join(f"#{name} {'x'.join(map(str, item.shape))} {item.dtype}" for item, name in list(stacks.items())[:8])
    return f"Name one of: {shown}" + (", ..." if len(stacks) > 8 else "")


def _files(dataset: Any, path: Path) -> list[Path]:
    """The file named, and those that its links, virtual datasets and raw parts lead to."""
    linked = Path(dataset.file.filename)
    virtual = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    beside = [file for name in virtual if name != "." for file in _named(linked.parent / name)]
    raw = [Path(name) for name, *_ in dataset.external or ()]  # looked for in the working directory, as HDF5 does
    return list(dict.fromkeys([path, linked, *beside, *raw]))


def _named(path: Path) -> list[Path]:
    """The file of a virtual dataset's source, or those that its name is a pattern of."""
    return sorted(path.parent.glob(re.sub("%b|%[0-9]*d", "*", glob.escape(path.name))))


def _refuse_holes(dataset: Any, where: str) -> None:
    """Chunks never written and source files of a virtual dataset gone missing would both read as zeros."""
    if dataset.chunks:
        expected = math.prod(math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        with damage(Path(where), "its chunks cannot be listed", _ERRORS):
            written = dataset.id.get_num_chunks()
        if written < expected:
            raise InputError(
                f"{where}: only {written} of {expected} chunks were ever written",
                hint="The recording was stopped early: copy the frames that were written into a dataset of their own",
            )
    elif dataset.is_virtual:
        folder = Path(dataset.file.filename).parent
        for source in dataset.virtual_sources():
            if source.file_name != "." and "%" not in source.file_name and not (folder / source.file_name).exists():
                raise InputError(
                    f"{where}: is assembled from {source.file_name}, which is missing", hint=f"Put it into {folder}"
                )
