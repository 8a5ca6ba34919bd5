"""The encoder's side of the handshake: its keys on the socket, and what to say and do when the decoder does not let it in.

The transport says nothing of a refusal but to its socket's monitor, and after some it does not try again: this does both.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

from framefold_protocol.keys import LinkKeys

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
"""Before the next try."""
_CHANCES = 3
"""Failed handshakes until one is told: a single one may be a decoder that was stopped in the middle of it."""
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH


class Handshake:
    """Watches one DEALER socket's connection to one endpoint. Make it before the socket connects."""

    def __init__(self, dealer: zmq.Socket[bytes], endpoint: str, keys: LinkKeys | None) -> None:
        self._dealer = dealer
        self._endpoint = endpoint
        self._keys = keys
        self._failures = 0
        self._told = set[str]()
        self._connect_at: float | None = None
        self._monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED | _REFUSED)
        if keys:
            dealer.setsockopt(zmq.CURVE_SERVERKEY, keys.decoder.encode())
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public.encode())
            dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())

    def mind(self) -> None:
        """Look at what has happened; never waits. To be called often."""
        while self._monitor.poll(0):
            self._heed(parse_monitor_message(self._monitor.recv_multipart())["event"])
        if self._connect_at is not None and time.monotonic() >= self._connect_at:
            self._connect_at = None
            with suppress(zmq.ZMQError):  # it had gone by itself
                self._dealer.disconnect(self._endpoint)
            self._dealer.connect(self._endpoint)

    def _heed(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._failures, self._connect_at = 0, None
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
