"""One shape for every error the service answers with: `{"error": {"message": ..., "hint": ...}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from framefold_protocol.errors import FramefoldError, InputError


class ErrorDetail(BaseModel):
    """What went wrong and what to do."""

    message: str = Field(description="What was asked for, what was found, what was expected.")
    hint: str = Field(description="What to do next; may be empty.")


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail = Field(description="The error, in the same shape for every status.")


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint, self.headers = status, message, hint, headers


def error_responses(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: `error_responses(s404="No such stream.")`."""
    return {int(name[1:]): {"model": ErrorBody, "description": text} for name, text in descriptions.items()}


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of the app take the one shape."""

    @app.exception_handler(ApiError)
    def _(_: Request, error: ApiError) -> JSONResponse:
        return _answer(error.status, error.message, error.hint, error.headers)

    @app.exception_handler(FramefoldError)
    def _(_: Request, error: FramefoldError) -> JSONResponse:
        return _answer(422 if isinstance(error, InputError) else 500, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    def _(_: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(422, "; ".join(map(_told, error.errors())), "See /docs for the parameters")

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, f"{request.method} {request.url.path}: {error.detail}", "See /docs", error.headers)

    @app.exception_handler(Exception)
    def _(_: Request, error: Exception) -> JSONResponse:
        return _answer(500, f"the service failed: {type(error).__name__}", "See the decoder's log")


def _answer(status: int, message: str, hint: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = ErrorBody(error=ErrorDetail(message=message, hint=hint))
    return JSONResponse(body.model_dump(), status, headers)


def _told(problem: Mapping[str, Any]) -> str:
    place, *names = problem["loc"]
    if problem["type"] == "json_invalid":
        return f"body is no JSON at character {names[0]}: {problem['ctx']['error']}"
    where = f"{place} parameter {'.'.join(map(str, names))!r}" if names else place
    if problem["type"] == "missing":
        return f"{where} is missing"
    return f"{where} is {str(problem.get('input'))[:80]!r}: {problem['msg']}"
