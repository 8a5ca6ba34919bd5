"""The encoder's connection: its keys on the socket, and what to say and do when the decoder does not let it in.

The transport says nothing of a refusal but to its socket's monitor, and after some it does not try again: this does both.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import zmq
from zmq.utils.monitor import parse_monitor_message

from framefold_protocol.errors import SettingsError
from framefold_protocol.keys import LinkKeys

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
"""Before the next try."""
_CHANCES = 3
"""Failed handshakes until one is told: a single one may be a decoder that was stopped in the middle of it."""
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


class Handshake:
    """Makes and watches one DEALER socket's connection to one endpoint."""

    def __init__(self, dealer: zmq.Socket[bytes], endpoint: str, keys: LinkKeys | None) -> None:
        self._dealer = dealer
        self._endpoint = endpoint
        self._keys = keys
        self._failures = 0
        self._told = set[str]()
        self._connect_at: float | None = None
        self.succeeded = False
        """Of the newest connection. Send nothing before: for a short while it might still go out on the one before."""
        self.events = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED | _REFUSED)
        """Readable when `mind` has something to look at."""
        if keys:
            dealer.setsockopt(zmq.CURVE_SERVERKEY, keys.decoder.encode())
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public.encode())
            dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())

    def connect(self) -> None:
        """Connect; when that was done before, give that connection up, with what was not sent on it yet, for another one.

        Raises `SettingsError` when the endpoint is none.
        """
        self._look()  # at what the connection before had to say
        self.succeeded, self._connect_at = False, None
        with suppress(zmq.ZMQError):  # there is none, or it had gone by itself
            self._dealer.disconnect(self._endpoint)
        self._dealer.setsockopt(zmq.IPV6, needs_ipv6(self._endpoint))
        try:
            self._dealer.connect(self._endpoint)
        except zmq.ZMQError as error:
            message = f"to is {self._endpoint!r}, expected the address of a decoder"
            raise SettingsError(message, hint="For example tcp://127.0.0.1:5571") from error

    def mind(self) -> None:
        """Look at what has happened; never waits. To be called often."""
        self._look()
        if self._connect_at is not None and time.monotonic() >= self._connect_at:
            self.connect()

    def _look(self) -> None:
        while self.events.poll(0):
            self._heed(parse_monitor_message(self.events.recv_multipart())["event"])

    def _heed(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.succeeded, self._failures, self._connect_at = True, 0, None
            self._told.clear()
            return
        self._failures += 1
        self._connect_at = time.monotonic() + _PAUSE_S
        why = self._why(event)
        if why not in self._told and (event == _REFUSED or self._failures >= _CHANCES):
            self._told.add(why)
            _log.warning("the decoder at %s %s; trying on", self._endpoint, why)

    def _why(self, event: int) -> str:
        if event == _REFUSED and self._keys:
            return f"does not allow this encoder's key {self._keys.own.public}: copy its .key file into allowed_keys there"
        if self._keys:
            return "does not have the key in decoder_key, or has none, or is no decoder"
        return "asks for keys, or is no decoder: make some with framefold-encoder keygen, and set key and decoder_key"


def needs_ipv6(endpoint: str) -> bool:
    """Whether its host has no IPv4 address, as far as is known.

    With IPv6 the transport tries the first address of a name only: of localhost that may be ::1, where no decoder listens that
    was told 127.0.0.1.
    """
    try:
        found = socket.getaddrinfo(urlsplit(endpoint).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # not known, or no name
        return True  # asked again with the next connection
    return all(family != socket.AF_INET for family, *_ in found)
