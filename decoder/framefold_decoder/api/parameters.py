"""Query parameters that a route does not have are refused: a misspelt one would otherwise quietly do nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from framefold_decoder.api.errors import ApiError, error_responses


def refuse_unknown(request: Request) -> None:
    """Raise `ApiError` (422) for a query parameter that this route does not take."""
    known = sorted(set(_names(request.scope["route"].dependant)))
    for name in request.query_params:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            nearest = f"Did you mean {close[0]!r}? " if close else ""
            raise ApiError(422, f"unknown query parameter {name[:80]!r}", f"{nearest}There are: {', '.join(known) or 'none'}")


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (one.alias for one in dependant.query_params)
    for part in dependant.dependencies:
        yield from _names(part)


OnlyKnown = Depends(refuse_unknown)
UNKNOWN = error_responses(s422="A parameter that there is not, or that is out of bounds.")
