"""A TCP relay that lets bytes through at a stated rate: a token bucket between an encoder and its decoder on one machine.

Only the way from the encoder is limited; acknowledgements come back freely. TCP and IP headers are not counted.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress

from framefold_protocol.errors import InputError

BURST_S = 0.005
"""What the bucket holds, in seconds of the rate."""
_BUFFER = 256 << 10


def parse_rate(text: str) -> float:
    """`1Gbit`, `100Mbit`, `2.5Gbit` in bytes per second. Raises `InputError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])bit(?:/s)?", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise InputError(f"link is {text!r}, expected a rate such as 1Gbit or 100Mbit", hint="Correct --link")
    return float(found[1]) * {"M": 1e6, "G": 1e9}[found[2].upper()] / 8


class TokenBucket:
    """Lets `rate` bytes a second through, and `BURST_S` of them at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.burst = max(int(rate * BURST_S), 1500)
        self._tokens = float(self.burst)
        self._then = time.monotonic()

    def take(self, count: int) -> None:
        """Wait until `count` bytes may pass."""
        now = time.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._then) * self._rate) - count
        self._then = now
        if self._tokens < 0:
            time.sleep(-self._tokens / self._rate)


class LimitedLink:
    """Listens on a free port of the loopback and relays each connection to `target`. Threads are daemons; there is no close."""

    def __init__(self, rate: float, target: int) -> None:
        """`rate` in bytes per second, `target` a port of the loopback."""
        self._bucket = TokenBucket(rate)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        # What is under way should wait at the sender, as on a real line, not in the kernel's large loopback buffers.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_relay, args=(near, far, self._bucket), daemon=True).start()
            threading.Thread(target=_relay, args=(far, near, None), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, bucket: TokenBucket | None) -> None:
    size = min(bucket.burst, _BUFFER) if bucket else _BUFFER
    with suppress(OSError):  # either end has gone
        while data := source.recv(size):
            if bucket:
                bucket.take(len(data))
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
