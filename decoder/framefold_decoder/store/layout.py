"""What a stream's Zarr group looks like on disk: arrays, attributes, format version. Made here, checked here when opened.

STREAM.zarr      attributes `ome` (OME-Zarr 0.5) and `framefold` (version, stream, complete, positions, frames, gaps)
  snapshots      (K, H, W) uint16/32/64, the sums as they were sent, a file each
  frames         (T, H, W) float32, detector counts, NaN where lost or not reconstructed yet; B frames share a file
  raw            (R, H, W) the detector's type, frames that were sent as they are
  audit          (A, H, W) the detector's type, frames that were sent beside their snapshot; only with audit groups
  block_maps     (K, h, w) uint8, which family folded each 64x64 block; only with several families
  groups/        (P,) tables, a row per position: see `group_table.py`; attributes `kinds` (their numbers), `provenances` (by
                 number) and `noise` (what the encoder measured, by the position from which on it holds)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from framefold_decoder.store import rounding
from framefold_decoder.store.arrays import GROWTH_STEP, create_array
from framefold_decoder.store.durable import DurableStore
from framefold_decoder.store.group_table import GroupTable
from framefold_decoder.store.metadata import to_json
from framefold_decoder.store.ome import AXES, multiscales
from framefold_protocol.coding import block_map_shape
from framefold_protocol.durable import PARTIAL, disk_errors, sync_folder, unfinished
from framefold_protocol.errors import StoreError
from framefold_protocol.messages import StreamMetadata

FORMAT_VERSION = 3
"""Counts up when older readers would misread a store."""


def create_layout(path: Path, stream: StreamMetadata) -> None:
    """Make an empty store; it appears under its name only when it is whole. Raises `StoreError`."""
    if path.exists():
        raise StoreError(f"store {path} exists already", hint="Open it, or move it away")
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors(f"creating store {path}"):
        shutil.rmtree(partial, ignore_errors=True)
        _fill(zarr.create_group(DurableStore(partial)), stream)
        partial.replace(path)
        sync_folder(path.parent)


def _fill(group: zarr.Group, stream: StreamMetadata) -> None:
    counts = {"units": "detector counts"}
    rounded = counts | {
        "rounding": f"reconstructed frames: error at most their noise / {rounding.NOISE_FRACTION}; raw frames: none"
    }
    frames_length = GROWTH_STEP * stream.ratio
    create_array(group, "snapshots", stream.shape, snapshot_dtype(stream), ("snapshot", "y", "x"), attributes=counts)
    create_array(
        group,
        "frames",
        stream.shape,
        "float32",
        AXES,
        fill=np.nan,
        shard=stream.ratio,
        length=frames_length,
        attributes=rounded,
    )
    create_array(group, "raw", stream.shape, stream.dtype, ("frame", "y", "x"), length=stream.ratio, attributes=counts)
    if stream.audit:
        create_array(group, "audit", stream.shape, stream.dtype, ("frame", "y", "x"), length=stream.ratio, attributes=counts)
    if len(stream.families) > 1:
        create_array(group, "block_maps", block_map_shape(stream.shape), "uint8", ("snapshot", "block_y", "block_x"))
    GroupTable.create(group.create_group("groups"))
    described = {"version": FORMAT_VERSION, "stream": to_json(stream), "complete": False, "gaps": []}
    attributes: dict[str, Any] = {"ome": multiscales(stream, "frames"), "framefold": described}
    group.attrs.update(attributes)


def snapshot_dtype(stream: StreamMetadata) -> str:
    """The smallest of uint16, uint32 and uint64 that holds the sum of B of the detector's largest values."""
    largest = stream.ratio * int(np.iinfo(stream.dtype).max)
    return str(np.promote_types(np.uint16, np.min_scalar_type(largest)))


def open_layout(path: Path) -> tuple[zarr.Group, dict[str, Any]]:
    """The group, writable, and its `framefold` attribute. Raises `StoreError` when it is not a store of this version."""
    for partial in unfinished(path):
        partial.unlink(missing_ok=True)
    hint = "Name a folder STREAM.zarr that framefold-decoder wrote"
    try:
        group = zarr.open_group(DurableStore(path), mode="r+")
        described = group.attrs["framefold"]
        version = described["version"]  # type: ignore[index, call-overload]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a framefold store: {error!r}", hint=hint) from error
    if version != FORMAT_VERSION:
        hint = "Use the framefold version that wrote it"
        raise StoreError(f"store {path} has format version {version!r}, expected {FORMAT_VERSION}", hint=hint)
    return group, described  # type: ignore[return-value]
