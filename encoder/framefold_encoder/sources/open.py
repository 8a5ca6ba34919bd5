"""The SOURCE argument: `scheme:rest`, and which scheme is opened by what.

Each opener takes the rest of the string and knows its own grammar; this module knows only the schemes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from framefold_encoder.sources.base import Source
from framefold_protocol.errors import InputError


def _open_simulation(rest: str) -> Source:
    from framefold_encoder.sources.simulated import open_simulation  # compiles with numba: only when asked for

    return open_simulation(rest)


def _open_file(rest: str) -> Source:
    from framefold_encoder.sources.file import open_file

    return open_file(rest)


_OPENERS: dict[str, Callable[[str], Source]] = {"sim": _open_simulation, "file": _open_file}
_NOT_YET_BUILT = ("watch", "dectris", "merlin", "shm")


def open_source(uri: str) -> Source:
    """Open a frame source.

    `uri` is `sim:`, `sim:?shape=512x512&dose=20`, `file:PATH` or `file:PATH#DATASET`. Raises `InputError` when the scheme is
    unknown or the source cannot be opened; the message says what to write instead.
    """
    scheme, colon, rest = uri.partition(":")
    opener = _OPENERS.get(scheme.lower()) if colon else None
    if opener is None:
        raise _no_such_scheme(uri, scheme if colon else "")
    return opener(rest)


def _no_such_scheme(uri: str, scheme: str) -> InputError:
    built = " and ".join(f"'{name}:'" for name in _OPENERS)
    if scheme.lower() in _NOT_YET_BUILT:
        return InputError(f"source {uri!r}: '{scheme}:' is not built yet", hint=f"This version reads {built}")
    if _is_path(uri):
        return InputError(f"source {uri!r} has no known scheme", hint=f"For the file of that name write 'file:{uri}'")
    nearest = difflib.get_close_matches(scheme.lower(), _OPENERS, n=1)
    hint = f"Did you mean '{nearest[0]}:'?" if nearest else "Write 'file:PATH' for a recording, 'sim:' for the simulator"
    what = f"unknown source scheme '{scheme}:' in {uri!r}" if scheme else f"source {uri!r} has no scheme"
    return InputError(f"{what}; known are {built}", hint=hint)


def _is_path(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a file name, or with a NUL
        return False
