"""Which connection feeds a stream: at the decoder, one at a time, whatever order their hellos are read in. Sans I/O.

After a cut or a restart the encoder says hello on a new connection while hellos of the old one may still wait to be read. The
claim with the higher (run, attempt) is the newer; so a late hello never takes a stream from the encoder that sends it now, and
of two encoders with copies of one journal exactly one is left: at equal claims the first.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.session import Opened

Connection = TypeVar("Connection")


class Claims(Generic[Connection]):
    """The newest claim on each open stream. `Connection` is whatever the caller tells connections by."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int, Connection]] = {}

    def take(self, opened: Opened, connection: Connection) -> Connection | None:
        """Give the stream to this connection; returns the one that loses it, if another had it.

        Raises `RemoteProtocolError` (code `superseded`) when a newer claim was heard.
        """
        key = opened.stream.stream_id
        run, attempt, holder = self._newest.get(key, (0, 0, connection))
        held, claimed = (run, attempt), (opened.run, opened.attempt)
        # No encoder counts two hellos alike, but its copy does: it must not take the stream and then find its journal too old.
        counted = opened.attempt > 0  # encoders of protocol 1 do not
        if holder != connection and (claimed < held or (claimed == held and counted)):
            raise superseded()
        self._newest[key] = (*max(held, claimed), connection)
        return holder if holder != connection else None

    def drop(self, stream_id: str, connection: Connection) -> None:
        """This connection feeds the stream no more: it is complete, or the encoder gave up."""
        if self._newest.get(stream_id, (0, 0, None))[2] == connection:
            del self._newest[stream_id]


def superseded() -> RemoteProtocolError:
    """What a connection is told that has lost its stream to a newer one."""
    hint = "Another encoder sends this stream; stop one of them, or give this one a journal folder of its own"
    return RemoteProtocolError("a newer connection has opened the same stream", code="superseded", hint=hint)
