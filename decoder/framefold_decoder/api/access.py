"""Who may ask for what: every route behind `authorize` needs a token, or, on loopback without a token file, nothing.

The method tells the scope: GET needs `read`; POST, PUT and PATCH `write`; anything else `admin`.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from framefold_decoder.api.context import ContextOf
from framefold_decoder.api.errors import ApiError, error_responses
from framefold_decoder.api.tokens import Scope
from framefold_protocol.endpoint import is_loopback
from framefold_protocol.errors import SettingsError

_log = logging.getLogger(__name__)
_SCOPES = {
    "GET": Scope.READ, "HEAD": Scope.READ, "POST": Scope.WRITE, "PUT": Scope.WRITE, "PATCH": Scope.WRITE
}  # fmt: skip
REFUSALS = error_responses(
    s401="A token is needed, and this request has none or one that is not known.",
    s403="The token's scope does not allow this.",
)

_bearer = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token made with `framefold-decoder token NAME --scope SCOPE`."
)


def authorize(
    request: Request, context: ContextOf, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raise `ApiError` 401 or 403 unless the request may pass."""
    if context.tokens is None:
        _check_host(request)
        return
    try:
        token = context.tokens.find(credentials.credentials) if credentials else None
    except SettingsError as error:
        _log.error("nobody may ask for anything: %s", error)
        raise ApiError(503, "the token file cannot be used", "See the decoder's log") from error
    if token is None:
        message = "this token is not known" if credentials else "this service needs a token"
        hint = "Send Authorization: Bearer TOKEN; framefold-decoder token makes one"
        raise ApiError(401, message, hint, headers={"WWW-Authenticate": "Bearer"})
    needed = _SCOPES.get(request.method, Scope.ADMIN)
    if not token.scope.allows(needed):
        hint = f"Ask for a token with scope {needed}"
        raise ApiError(403, f"{request.method} needs scope {needed}, token {token.name!r} has {token.scope}", hint)
    if needed is not Scope.READ:
        _log.info("token %s: %s %s", token.name, request.method, request.url.path)


def _check_host(request: Request) -> None:
    """A web page may have its own name resolve to this machine and have the browser ask; it cannot hide that name."""
    host = request.url.hostname or ""
    if not is_loopback(host):
        hint = "Use 127.0.0.1, or give the service a token file"
        raise ApiError(403, f"host {host[:80]!r} is not this machine's loopback, and there are no tokens", hint)


Authorized = Depends(authorize)
