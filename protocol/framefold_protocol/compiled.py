"""Numba's compiler, whose results stay on the disk where there is a folder for them.

It keeps them beside the source, or else in the user's cache folder or in NUMBA_CACHE_DIR, and where it may write in none of
these, as a service without a home may not, a decorator that asks for it fails. Then everything is compiled anew at every start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

_log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Function], Function]:
    """A decorator: compile without Python objects, and without the GIL. `options` are `numba.njit`'s."""

    def compile_or_load(function: Function) -> Function:
        try:
            found: Function = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder for it
            _tell()
            found = njit(nogil=True, **options)(function)
        return found

    return compile_or_load


@cache
def _tell() -> None:
    where = "neither framefold's own folders nor the user's cache can be written"
    _log.warning("%s: every start compiles anew, for many seconds; set NUMBA_CACHE_DIR to one that can", where)
