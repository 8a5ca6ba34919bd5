"""HTTP/1.1 connections with an end to patience: one that does not get its request out is closed, and makes room for others.

uvicorn closes connections that are idle, but waits without end for the rest of a request that comes a byte at a time.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""From the connection, or from the answer before, to the last byte of a request."""
MAX_CONNECTIONS = 256
"""One more puts out one that still owes its request, or is put out itself when all of them are at work."""


class PatientProtocol(H11Protocol):
    """One connection."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it in, if there is room or can be made."""
        super().connection_made(transport)
        self._mind()
        if len(self.connections) > MAX_CONNECTIONS:
            others = (cast(PatientProtocol, other) for other in self.connections if other is not self)
            next((other for other in others if other.owes_request), self).transport.abort()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or several."""
        super().data_received(data)
        self._mind()

    def on_response_complete(self) -> None:
        """It may ask for more."""
        super().on_response_complete()
        self._mind()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        if self._patience:
            self._patience.cancel()

    @property
    def owes_request(self) -> bool:
        """Whether it is the peer's turn to speak."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _mind(self) -> None:
        if not self.owes_request and self._patience:
            self._patience.cancel()
            self._patience = None
        elif self.owes_request and not self._patience:
            self._patience = self.loop.call_later(REQUEST_S, self.transport.abort)
