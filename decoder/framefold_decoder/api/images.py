"""Arrays as files: PNG to look at, TIFF and NPY to compute with. NPY also in pieces, so that a range need not fit in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.9
"""Of the pixels: what a PNG shows as black and white when not told otherwise."""


class Format(StrEnum):
    """How an image is sent."""

    PNG = "png"
    NPY = "npy"
    TIFF = "tiff"


MEDIA_TYPES = {Format.PNG: "image/png", Format.NPY: "application/x-npy", Format.TIFF: "image/tiff"}


def encode_image(image: npt.NDArray[Any], format: Format, low: float | None, high: float | None) -> bytes:
    """An (H, W) image as a file; PNG with 8 bits from `low` (black) to `high` (white), None: the percentiles above."""
    file = io.BytesIO()
    match format:
        case Format.PNG:
            Image.fromarray(stretch(image, low, high)).save(file, "png")
        case Format.TIFF:
            tifffile.imwrite(file, image, photometric="minisblack", metadata=None)
        case Format.NPY:
            np.save(file, image, allow_pickle=False)
    return file.getvalue()


def stretch(image: npt.NDArray[Any], low: float | None = None, high: float | None = None) -> npt.NDArray[np.uint8]:
    """Contrast for the eye: `low` and below to 0, `high` and above to 255, linear between; a flat image is black."""
    black = float(np.percentile(image, LOW_PERCENTILE)) if low is None else low
    white = float(np.percentile(image, HIGH_PERCENTILE)) if high is None else high
    scale = 255 / max(white - black, 1e-30)
    shades: npt.NDArray[np.uint8] = np.rint(np.clip((image.astype(np.float64) - black) * scale, 0, 255)).astype(np.uint8)
    return shades


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What precedes the C-ordered elements in an NPY file."""
    file = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npy_parts(header: bytes, blocks: Iterable[npt.NDArray[Any]]) -> Iterator[bytes]:
    """An NPY file, piece by piece."""
    yield header
    for block in blocks:
        yield block.tobytes()
