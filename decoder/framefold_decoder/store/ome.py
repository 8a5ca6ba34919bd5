"""OME-Zarr 0.5 metadata of a stream's `frames`, written by hand: https://ngff.openmicroscopy.org/0.5/#multiscale-md.

One resolution level, axes t, y, x. An axis whose scale is unknown has no unit and scale 1.
"""

from __future__ import annotations

from typing import Any

from framefold_protocol.messages import StreamMetadata

AXES = ("t", "y", "x")


def multiscales(stream: StreamMetadata, path: str) -> dict[str, Any]:
    """The group attribute `ome` for the array at `path`."""
    time = _axis("t", "time", "second" if stream.frame_time_s else None)
    space = [_axis(name, "space", "nanometer" if stream.pixel_size_nm else None) for name in AXES[1:]]
    scale = [stream.frame_time_s or 1.0, stream.pixel_size_nm or 1.0, stream.pixel_size_nm or 1.0]
    level = {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"version": "0.5", "multiscales": [{"name": stream.name, "axes": [time, *space], "datasets": [level]}]}


def _axis(name: str, kind: str, unit: str | None) -> dict[str, str]:
    return {"name": name, "type": kind} | ({"unit": unit} if unit else {})
