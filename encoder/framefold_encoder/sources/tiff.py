"""TIFF, BigTIFF, OME-TIFF and ImageJ stacks, a page at a time.

tifffile reads damaged files as far as it can: it logs, and leaves zeros. Here every frame must be whole: the chain of pages
must end properly, every page must equal the first in shape and type, its strips must lie inside the file, and what tifffile
logs as an error is raised as one.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.counts import stack_shape, stored_dtype
from framefold_encoder.sources.failures import COPY_AGAIN, damage, needs
from framefold_encoder.sources.raw import RawFrames
from framefold_encoder.sources.stack import FileSource
from framefold_encoder.sources.tiff_scale import scale
from framefold_protocol.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPages, TiffPageSeries

_ERRORS = (
    *(OSError, ValueError, RuntimeError, LookupError, ArithmeticError, struct.error, ElementTree.ParseError),
    *(TypeError, AttributeError, AssertionError),  # for tags that have not the type they should
)
"""What tifffile and its decoders raise for bytes that are no TIFF."""

_DESCRIBED = ("shaped", "ome", "imagej", "mmstack", "stk")
"""Kinds of TIFF whose metadata say how pages make up the stack, or that one page holds it all. Else a page is a frame."""


class _Layout(NamedTuple):
    """Where the frames are."""

    pages: TiffPages | TiffPageSeries
    """Frame n is page n of this."""
    frame_count: int
    offset: int | None = None
    """Byte at which uncompressed frames start that follow each other without gaps; None when they do not."""


def open_tiff(path: Path) -> FileSource:
    """Open a TIFF stack. Pixel size and frame time from OME or ImageJ metadata.

    Uncompressed frames without gaps, such as ImageJ's stacks above 4 GB that have one page only, are read as raw bytes.
    """
    with needs("tifffile", path):
        import tifffile
    with ExitStack() as undo:
        with _sound(path, "damaged TIFF"):
            tif = undo.enter_context(tifffile.TiffFile(path))
            _refuse_broken_chain(tif, path)
            first = _first_page(tif, path)
            layout = _layout(tif, first, path)
            pixel_size_nm, frame_time_s = scale(tif, path)
        shape = stack_shape((layout.frame_count, *first.shape), path)
        stored = _stored_dtype(first, path)
        if layout.offset is None:
            frames: _Pages | RawFrames = _Pages(path, tif, layout)
            undo.pop_all()  # the frames close it
        else:
            frames = RawFrames(path, layout.offset, shape, stored.newbyteorder(tif.byteorder))
    return FileSource(path, frames, shape=shape, stored=stored, frame_time_s=frame_time_s, pixel_size_nm=pixel_size_nm)


class _Pages:
    """Frames that are pages, decoded straight into the caller's array."""

    def __init__(self, path: Path, tif: TiffFile, layout: _Layout) -> None:
        """Raises `InputError` when the last page is not whole: most files cut short show it there."""
        self._path = path
        self._tif = tif
        self._pages = layout.pages
        self._first = tif.pages.first
        last = layout.frame_count - 1
        with _sound(path, f"frame {last} cannot be read"):
            self._page(last)

    def read(self, start: int, out: npt.NDArray[np.integer[Any]]) -> None:
        """Fill `out` (n, H, W) with pages start to start + n."""
        for frame, target in enumerate(out, start):
            with _sound(self._path, f"frame {frame} cannot be read"):
                self._page(frame).asarray(out=target)

    def _page(self, frame: int) -> TiffPage:
        found = self._pages[frame]
        assert found is not None, "planes missing from OME-XML are refused on opening"
        page = found.aspage()  # a TiffFrame would take its tags from the first page
        if page.shape != self._first.shape or page.dtype != self._first.dtype:
            raise InputError(
                f"{self._path}: page {page.index} is {_pixels(page)}, but page 0 is {_pixels(self._first)}",
                hint="Save frames of one shape and type in a file of their own",
            )
        _refuse_missing_strips(page, f"{self._path}: frame {frame}")
        return page

    def close(self) -> None:
        """Close the file."""
        self._tif.close()


def _first_page(tif: TiffFile, path: Path) -> TiffPage:
    if not len(tif.pages):
        raise InputError(f"{path}: TIFF without pages: truncated, or holds no frames", hint=COPY_AGAIN)
    first = tif.pages.first
    if first.samplesperpixel > 1:
        raise InputError(
            f"{path}: colour image, {first.samplesperpixel} samples per pixel; expected grey frames",
            hint="Save the detector's counts, not a rendered picture",
        )
    if len(first.shape) != 2 or not all(isinstance(n, int) for n in first.shape):
        raise InputError(f"{path}: a page is {first.shape}, expected (H, W)", hint="Save one frame per page")
    return first


def _stored_dtype(first: TiffPage, path: Path) -> np.dtype[np.integer[Any]]:
    if first.dtype is None:
        raise InputError(
            f"{path}: values of {first.bitspersample} bits, format {first.sampleformat}; expected uint8, uint16 or uint32"
        )
    return stored_dtype(first.dtype, path)


def _layout(tif: TiffFile, first: TiffPage, path: Path) -> _Layout:
    pages = _Layout(tif.pages, len(tif.pages))
    if not any(getattr(tif, f"is_{kind}") for kind in _DESCRIBED):
        return pages
    if len(tif.series) > 1 and all(series.kind in ("shaped", "generic") and not series.is_truncated for series in tif.series):
        return pages  # frames written one by one
    if len(tif.series) != 1:
        raise InputError(f"{path}: holds {len(tif.series)} images, expected one stack", hint="Save the one you want on its own")
    series = tif.series[0]
    _refuse_unreadable(series, first, path)
    layout = _Layout(series, math.prod(series.shape[:-2]), series.dataoffset)
    if layout.offset is None and len(tif.pages) < layout.frame_count:
        raise InputError(
            f"{path}: truncated: its metadata say {layout.frame_count} frames, it has {len(tif.pages)}", hint=COPY_AGAIN
        )
    return layout


def _refuse_unreadable(series: TiffPageSeries, first: TiffPage, path: Path) -> None:
    """Whatever `series` is that is not one whole stack of frames in this file."""
    if series.is_multifile:
        raise InputError(f"{path}: its frames are spread over several files", hint="Save the stack as one file")
    long = [axis for axis, n in zip(series.axes, series.shape[:-2], strict=False) if n > 1]
    if len(long) > 1 or series.shape[-2:] != first.shape:
        raise InputError(
            f"{path}: axes are {series.axes} {series.shape}, expected one axis of frames besides Y and X",
            hint="Save the one channel, slice or position you want on its own",
        )
    if series.kind == "ome":
        missing = [frame for frame, page in enumerate(series) if page is None]
        if missing:
            raise InputError(f"{path}: frame {missing[0]} is missing ({len(missing)} of {len(series)} are)", hint=COPY_AGAIN)


def _refuse_broken_chain(tif: TiffFile, path: Path) -> None:
    """The last page's pointer to the next must be zero; tifffile stops at one that leads nowhere and calls it the end."""
    at = tif.pages.next_page_offset if len(tif.pages) else None
    if at is not None:
        tif.filehandle.seek(at)
        pointer = tif.filehandle.read(tif.tiff.offsetsize)
        if len(pointer) < tif.tiff.offsetsize or any(pointer):
            raise InputError(f"{path}: truncated TIFF, ends after page {len(tif.pages) - 1}", hint=COPY_AGAIN)


def _refuse_missing_strips(page: TiffPage, where: str) -> None:
    """tifffile leaves strips or tiles that have no data as zeros."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    whole = len(offsets) == len(lengths) == math.prod(page.chunked) and all(offsets) and all(lengths)
    if not whole or max(map(sum, zip(offsets, lengths, strict=True))) > page.parent.filehandle.size:
        raise InputError(f"{where} is truncated or incomplete", hint=COPY_AGAIN)


def _pixels(page: TiffPage) -> str:
    return f"{'x'.join(map(str, page.shape))} {page.dtype}"


class _FirstError(logging.Handler):
    """Keeps the first ERROR this thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.message = ""
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if not self.message and record.thread == self._thread:
            self.message = record.getMessage()


@contextmanager
def _sound(path: Path, what: str) -> Iterator[None]:
    """Whatever tifffile raises, or logs as an error, becomes `InputError`."""
    logger = logging.getLogger("tifffile")
    log = _FirstError()
    logger.addHandler(log)
    try:
        with damage(path, what, _ERRORS):
            yield
    finally:
        logger.removeHandler(log)
    if log.message:
        raise InputError(f"{path}: {what}: {log.message}", hint=COPY_AGAIN)
