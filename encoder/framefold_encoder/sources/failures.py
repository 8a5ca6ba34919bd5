"""Turning what file libraries raise into errors a user can act on.

Both context managers are meant to wrap library calls only, so that a bug of ours still shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framefold_protocol.errors import InputError, installing

COPY_AGAIN = "Copy it again from where it was recorded"
"""What to do about a file that was cut off or damaged."""


@contextmanager
def needs(library: str, path: Path) -> Iterator[None]:
    """Around the import of an optional library: a missing one becomes `InputError` with the command that installs it."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs the Python package {library!r}, which is not installed",
            hint=f"Install it: {installing('zarr' if library == 'zarr' else 'io')}",
        ) from error


@contextmanager
def damage(path: Path, what: str, kinds: tuple[type[Exception], ...], hint: str = COPY_AGAIN) -> Iterator[None]:
    """Around a library call: exceptions of `kinds` become `InputError(f"{path}: {what}: ...")`."""
    try:
        yield
    except kinds as error:
        raise InputError(f"{path}: {what}: {_one_line(error)}", hint=hint) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
