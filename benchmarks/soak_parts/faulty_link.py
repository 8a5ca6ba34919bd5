"""A TCP relay between encoder and decoder that breaks as networks break.

* `reset`: every connection is reset at once, in the middle of whatever is under way;
* `refuse`: the same, and new connections are refused for a while: the cable is out;
* `stall`: nothing moves for a while, then all of it does: a switch that is busy elsewhere;
* `swallow`: what is sent arrives nowhere for a while, then the connections are reset: a router that forgot them.

TCP allows no other damage: bytes that arrive are the right ones, in order, up to where a connection ended.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from bandwidth_parts.limited_link import TokenBucket

CUTS = ("reset", "refuse", "stall", "swallow")
_BUFFER = 64 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultyLink:
    """Listens on a free port of the loopback and relays to `target`, a port of the loopback. Threads are daemons."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._bucket: TokenBucket | None = None
        self._moving = threading.Event()
        self._moving.set()
        self._refusing = self._swallowing = False
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def limit(self, rate: float | None) -> None:
        """Let so many bytes a second through on the way to the decoder; None: all there are."""
        self._bucket = TokenBucket(rate) if rate else None

    def cut(self, kind: str) -> None:
        """Begin one of `CUTS`."""
        self._refusing, self._swallowing = kind == "refuse", kind == "swallow"
        if kind == "stall":
            self._moving.clear()
        if kind in ("reset", "refuse"):
            self._reset()

    def mend(self) -> None:
        """End whatever was begun."""
        if self._swallowing:
            self._reset()
        self._refusing = self._swallowing = False
        self._moving.set()

    def _reset(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    connection.shutdown(socket.SHUT_RD)  # wakes its relay, which closes it: closing resets now

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            with suppress(OSError):  # the decoder is away
                far = None if self._refusing else socket.create_connection(("127.0.0.1", self._target))
                if far is not None:
                    self._join(near, far)
                    continue
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            near.close()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._connections |= {near, far}
        threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
        threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, limited: bool) -> None:
        with suppress(OSError):  # either end has gone
            while data := source.recv(self._bucket.burst if limited and self._bucket else _BUFFER):
                self._moving.wait()
                if limited and self._bucket:
                    self._bucket.take(len(data))
                if not self._swallowing:
                    target.sendall(data)
        with self._lock:
            self._connections.discard(source)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RD)
        source.close()
