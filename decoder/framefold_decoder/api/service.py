"""Routes about the service itself: models, metrics, health, readiness."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from framefold_decoder.api.context import Context, ContextOf
from framefold_decoder.api.schemas import Health, ModelInfo, Readiness

models_router = APIRouter(prefix="/models", tags=["models"])
metrics_router = APIRouter(tags=["health"])
health_router = APIRouter(tags=["health"])


@models_router.get("")
def list_models(context: ContextOf) -> list[ModelInfo]:
    """The models and solvers this decoder can reconstruct with, those that cannot be used among them."""
    return [ModelInfo.model_validate(model) for model in context.models()]


_EXPOSITION = {"text/plain": {"schema": {"type": "string"}}}


@metrics_router.get(
    "/metrics", response_class=Response, responses={200: {"description": "Prometheus' text format.", "content": _EXPOSITION}}
)
def get_metrics(context: ContextOf) -> Response:
    """What the decoder has counted since it started, and where it stands, for Prometheus."""
    return Response(context.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@health_router.get("/healthz")
def get_health(context: ContextOf) -> Health:
    """Whether the process answers; it does, whatever the problems are."""
    return Health(version=version("framefold"), problems=_problems(context))


@health_router.get("/readyz", responses={503: {"model": Readiness, "description": "Something is in the way."}})
def get_readiness(context: ContextOf, response: Response) -> Readiness:
    """Whether the service can store, reconstruct and serve."""
    problems = _problems(context)
    if problems:
        response.status_code = 503
    return Readiness(ready=not problems, problems=problems)


def _problems(context: Context) -> list[str]:
    return [*context.library.problems(), *context.problems()]
