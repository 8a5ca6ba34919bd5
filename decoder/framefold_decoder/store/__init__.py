"""The store: one Zarr v3 group a stream, snapshots as the truth, frames that can be made again. Format: `layout.py`."""

from framefold_decoder.store.stream_store import StreamStore

__all__ = ["StreamStore"]
