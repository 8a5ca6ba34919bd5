"""What the routes need of the app: the library, the models, the stream a path names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Path, Request

from framefold_decoder.api.errors import ApiError
from framefold_decoder.api.tokens import Tokens
from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.store import StreamStore


class Decode(Protocol):
    """As `unfolding.Unfolder.request`."""

    def __call__(self, stream_id: str, model: str, start: int, stop: int | None) -> int:
        """How many snapshots will be decoded."""


@dataclass(frozen=True)
class Context:
    """What the service serves."""

    library: Library
    models: Callable[[], Iterable[object]]
    """Objects with the fields of `schemas.ModelInfo` as attributes or keys."""
    problems: Callable[[], Iterable[str]]
    """What keeps the rest of the service from its work; nothing when all is well."""
    max_bytes: int
    """Of frames in one answer."""
    tokens: Tokens | None
    """None: no token is needed, which only loopback may allow."""
    metrics: Metrics
    decode: Decode | None
    """Has snapshots decoded again; None: nothing is decoded here."""
    sending: Callable[[str], bool]
    """Whether the stream of an id is being sent, or what arrived of it is not all stored."""
    undecodable: Callable[[str, int], str | None]
    """Why the snapshot of a stream's position will not be decoded as things are; None: it may be."""


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context)]

StreamId = Annotated[str, Path(description="The stream's id: 32 hex digits.")]


def _record(stream_id: StreamId, context: ContextOf) -> StreamRecord:
    record = context.library.catalogue.stream(stream_id)
    if record is None:
        raise ApiError(404, f"stream {stream_id[:80]!r} is unknown", "GET /api/v1/streams lists the streams there are")
    return record


RecordOf = Annotated[StreamRecord, Depends(_record)]


def _store(record: RecordOf, context: ContextOf) -> StreamStore:
    return context.library.store(record.metadata.stream_id)


StoreOf = Annotated[StreamStore, Depends(_store)]
