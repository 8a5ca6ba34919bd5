"""The app: routers, error shape and context put together. Serve it with uvicorn; it owns no sockets and no threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from framefold_decoder.api import frames, service, streams
from framefold_decoder.api.access import REFUSALS, Authorized
from framefold_decoder.api.context import Context, Decode
from framefold_decoder.api.errors import add_error_handlers, error_responses
from framefold_decoder.api.parameters import UNKNOWN, OnlyKnown
from framefold_decoder.api.tokens import Tokens
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics

API_VERSION = "1.6.0"
"""Of the description in `openapi.json`: the middle number counts additions, the first one changes that break clients."""

PREFIX = "/api/v1"
MAX_BYTES = 256 * 2**20


def create_app(
    library: Library,
    models: Callable[[], Iterable[object]] = list,
    problems: Callable[[], Iterable[str]] = list,
    max_bytes: int = MAX_BYTES,
    tokens: Tokens | None = None,
    metrics: Metrics | None = None,
    decode: Decode | None = None,
    sending: Callable[[str], bool] = lambda stream_id: False,
    undecodable: Callable[[str, int], str | None] = lambda stream_id, position: None,
) -> FastAPI:
    """The REST service of a library.

    `models` tells the models, objects or maps with the fields of `schemas.ModelInfo`; `problems`, what else than the library
    keeps the service from its work (`/readyz`); `max_bytes` bounds the frames in one answer; `tokens` says who may ask, None:
    everybody who reaches loopback; `decode` has snapshots decoded again; `sending` tells which streams cannot be deleted,
    `undecodable` why a position's snapshot will not be decoded. The caller closes the library.
    """
    app = FastAPIOffline(
        title="framefold decoder",
        version=API_VERSION,
        description="Streams of coded snapshots, the frames reconstructed from them, and how far these can be trusted.",
        generate_unique_id_function=lambda route: route.name,
        responses=error_responses(s500="The service failed."),
    )
    metrics = metrics or Metrics()
    metrics.watch(library, problems)
    app.state.context = Context(library, models, problems, max_bytes, tokens, metrics, decode, sending, undecodable)
    for router in (streams.router, frames.router, service.models_router):
        app.include_router(router, prefix=PREFIX, dependencies=[Authorized, OnlyKnown], responses=REFUSALS | UNKNOWN)
    app.include_router(service.metrics_router, dependencies=[Authorized, OnlyKnown], responses=REFUSALS | UNKNOWN)
    app.include_router(service.health_router)  # whoever watches may ask as it likes
    add_error_handlers(app)
    return app
