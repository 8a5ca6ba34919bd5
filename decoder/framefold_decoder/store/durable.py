"""Files that are on the disk before anyone can see them: written beside their place, fsynced, renamed, folder fsynced.

`DurableStore` makes Zarr write that way (its own `LocalStore` renames without fsync, so a power cut may leave an empty file
under a good name). Nothing here knows what the files hold.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore

from framefold_protocol.errors import StoreError

PARTIAL = ".partial"
"""Suffix of what a crash may leave behind: never read, safe to delete."""

_HINTS = {
    errno.ENOSPC: "Free space on the disk; nothing that was acknowledged is lost",
    errno.EDQUOT: "Raise the quota or free space; nothing that was acknowledged is lost",
    errno.EACCES: "Make the data folder writable for the user the decoder runs as, or choose another with --data",
    errno.EPERM: "Make the data folder writable for the user the decoder runs as, or choose another with --data",
    errno.EROFS: "The file system is mounted read-only; choose another data folder with --data",
    errno.ENOTDIR: "A part of this path is a file; choose another data folder with --data",
}


class DurableStore(LocalStore):
    """A Zarr store in a local folder whose every write is atomic and survives a power cut."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write one key from this thread."""
        write_durably(self.root / key, value.as_numpy_array().data)


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write a file: afterwards it is whole and on the disk; before, its old version, if any, is."""
    _make_folder(path.parent)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path) -> TextIO:
    """Take a folder for this process until the file returned is closed. Raises `StoreError` when another process has it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        hint = "Stop the other framefold-decoder, or choose another data folder with --data"
        raise StoreError(f"data folder {folder} is in use by another process", hint=hint) from error
    return lock


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors into `StoreError`; `what` is the operation and its path."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "Check the disk and the permissions of the data folder")
        raise StoreError(f"{what} failed: {error.strerror or error}", hint=hint) from error
