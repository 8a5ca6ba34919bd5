"""A Zarr store whose files are on the disk before anyone can see them: written beside their place, fsynced, renamed.

Zarr's own `LocalStore` renames without fsync, so a power cut may leave an empty file under a good name; and a killed process'
unfinished file stays among the chunks. Here it lies beside the store, where it is found without looking through all folders.
"""

from __future__ import annotations

import asyncio

from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore

from framefold_protocol.durable import write_durably


class DurableStore(LocalStore):
    """A Zarr store in a local folder whose every write is atomic and survives a power cut."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write one key from this thread."""
        write_durably(self.root / key, value.as_numpy_array().data, beside=self.root)
