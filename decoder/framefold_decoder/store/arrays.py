"""Zarr arrays as framefold makes them: a codec and a checksum, named axes, grown in large steps and trimmed at the end.

Growing rewrites an array's metadata (about 25 ms), so lengths double; a shape longer than what is stored costs nothing on disk.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

zarr.config.set({"array.write_empty_chunks": True})  # zeros are written too, so that a missing file is a loss

GROWTH_STEP = 1024
"""Positions an array starts with; lengths double from there."""


def create_array(
    group: zarr.Group,
    name: str,
    item: tuple[int, ...],
    dtype: str,
    axes: tuple[str, ...],
    *,
    fill: float = 0,
    chunk: int = 1,
    shard: int | None = None,
    length: int = GROWTH_STEP,
    attributes: dict[str, Any] | None = None,
) -> None:
    """An array of `length` items; `chunk` items are coded together, `shard` items share a file (None: a file per chunk)."""
    group.create_array(
        name,
        shape=(length, *item),
        chunks=(chunk, *item),
        shards=None if shard is None else (shard, *item),
        dtype=dtype,
        fill_value=fill,
        # On shot noise zstd-1 behind a byte shuffle is both the smallest and the fastest of the codecs tried.
        compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()),
        dimension_names=axes,
        attributes=attributes,
    )


def file_of(folder: Path, array: zarr.Array[Any], item: int) -> Path:
    """Where an item lies that has a file of its own; `folder` is the array's. Of a file that is gone Zarr would read zeros."""
    return folder / array.metadata.encode_chunk_key((item, *(0 for _ in array.shape[1:])))


def grow(array: zarr.Array[Any], length: int) -> None:
    """Make an array at least this long."""
    if length > array.shape[0]:
        array.resize((max(length, 2 * array.shape[0]), *array.shape[1:]))


def trim(array: zarr.Array[Any], length: int) -> None:
    """Cut an array to its true length. Nothing was written beyond; Zarr would look for every chunk there."""
    if length != array.shape[0]:
        asyncio.run(array.async_array.resize((length, *array.shape[1:]), delete_outside_chunks=False))
