"""What every durable file needs of the operating system: whole or not there, one process at a time, errors with a cure."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from framefold_protocol.errors import StoreError

PARTIAL = ".partial"
"""Suffix of what a crash may leave behind: never read, safe to delete."""

_HINTS = {
    errno.ENOSPC: "Free space on the disk; nothing that was confirmed is lost",
    errno.EDQUOT: "Raise the quota or free space; nothing that was confirmed is lost",
    errno.EACCES: "Make the folder writable for the user framefold runs as, or choose another",
    errno.EPERM: "Make the folder writable for the user framefold runs as, or choose another",
    errno.EROFS: "The file system is mounted read-only; choose a folder on another",
    errno.ENOTDIR: "A part of this path is a file; choose another folder",
}


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn the operating system's errors into `StoreError`; `what` is the operation and its path."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "Check the disk and the folder's permissions")
        raise StoreError(f"{what} failed: {error.strerror or error}", hint=hint) from error


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, on the disk when this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_durably(path: Path, data: bytes | memoryview, beside: Path | None = None) -> None:
    """Write a file: afterwards it is whole and on the disk; before, its old version, if any, is. Raises `OSError`.

    `beside`: next to what a crash may leave the unfinished file, see `unfinished`; None: next to the file itself.
    """
    make_folder(path.parent)
    beside = beside or path
    partial = beside.with_name(f"{beside.name}.{uuid.uuid4().hex}{PARTIAL}")
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


def unfinished(beside: Path) -> list[Path]:
    """What crashes have left of `write_durably` next to this path; safe to delete when nobody writes."""
    return list(beside.parent.glob(f"{beside.name}.*{PARTIAL}"))


def lock_folder(folder: Path) -> TextIO | None:
    """Take a folder for this process until the file returned is closed or the process ends; None when another has it."""
    lock = (folder / "lock").open("a")  # another program's file of that name stays as it is
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
