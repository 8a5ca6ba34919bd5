"""Pixel size and frame time from a TIFF's metadata: OME-XML, or ImageJ's description and resolution tags.

Plain TIFF resolution tags are for printers and are ignored. Anything unclear is None.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from framefold_protocol.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffFile

_NM = {"pm": 1e-3, "Å": 0.1, "A": 0.1, "angstrom": 0.1, "nm": 1.0, "µm": 1e3, "μm": 1e3, "um": 1e3, "micron": 1e3, "mm": 1e6}
"""Length units in nanometres; OME writes the micro sign, others the Greek letter or ImageJ's escape of it."""
_S = {"ns": 1e-9, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0}


def scale(tif: TiffFile, path: Path) -> tuple[float | None, float | None]:
    """(pixel_size_nm, frame_time_s), each None when not stated."""
    if tif.is_ome and tif.ome_metadata:
        return _ome(tif.ome_metadata)
    if tif.is_imagej:
        return _imagej(tif, path)
    return None, None


def _ome(xml: str) -> tuple[float | None, float | None]:
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")  # noqa: S314
    if pixels is None:
        return None, None
    x, y = (_positive(pixels.get(f"PhysicalSize{axis}"), _NM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))) for axis in "XY")
    time = _positive(pixels.get("TimeIncrement"), _S.get(pixels.get("TimeIncrementUnit", "s")))
    return _square(x, y), time


def _imagej(tif: TiffFile, path: Path) -> tuple[float | None, float | None]:
    about = tif.imagej_metadata or {}
    if about.get("cf") == 0 and about.get("c0"):
        raise InputError(
            f"{path}: ImageJ stored the values with an offset of {about['c0']} (signed 16-bit)",
            hint="In ImageJ: Image > Type > 32-bit, then Image > Type > 16-bit without scaling, and save again",
        )
    unit = _NM.get(str(about.get("unit", "")).replace("\\u00B5", "µ"))
    x, y = (_positive(_unit_per_pixel(tif, f"{axis}Resolution"), unit) for axis in "XY")
    return _square(x, y), _positive(about.get("finterval"), _S.get(str(about.get("tunit", "s"))))


def _unit_per_pixel(tif: TiffFile, tag: str) -> float | None:
    value = tif.pages.first.tags.valueof(tag)  # pixels per unit, a rational (numerator, denominator)
    return value[1] / value[0] if isinstance(value, tuple) and value[0] and value[1] else None


def _positive(value: object, unit: float | None) -> float | None:
    """`value` times `unit`, if there is a unit and the product is a positive number."""
    if value is None or unit is None:
        return None
    try:
        number = float(str(value)) * unit
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None


def _square(x: float | None, y: float | None) -> float | None:
    """The pixel size if pixels are square."""
    return x if x is not None and y is not None and math.isclose(x, y, rel_tol=1e-3) else None
