"""Between an encoder and its decoder on the link itself: every message goes on as it is, the time of every ack is kept."""

from __future__ import annotations

import threading
import time

import zmq

from framefold_protocol import wire
from framefold_protocol.messages import Ack


class AckWatch:
    """Listens on a free port of the loopback for one encoder, and passes its messages to `target` and the answers back."""

    def __init__(self, target: str) -> None:
        """`target` is the decoder's address."""
        self.acks: list[tuple[int, float]] = []
        """(position, when everything before it was acknowledged, seconds since 1970)."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._near, self._far = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        self._far.connect(target)
        self.endpoint = f"tcp://127.0.0.1:{self._near.bind_to_random_port('tcp://127.0.0.1')}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._near, self._far):
            poller.register(socket, zmq.POLLIN)
        identity = b""
        while True:
            ready = dict(poller.poll())
            if self._near in ready:
                identity, *parts = self._near.recv_multipart()
                self._far.send_multipart(parts)
            if self._far in ready:
                parts = self._far.recv_multipart()
                now = time.time()
                self._near.send_multipart([identity, *parts])
                message = wire.decode(parts)
                if isinstance(message, Ack):
                    self.acks.append((message.position, now))
