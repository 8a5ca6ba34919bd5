"""The other end of the link in a process of its own: it acknowledges messages as a decoder does and keeps nothing.

So neither disk nor reconstruction is measured, only the way there. `python -m bandwidth_parts.far_side [RATE]` prints the ports
of decoder and plain TCP sink as one JSON line and ends with its standard input; with a RATE in bytes per second both are behind
one limited link.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgpack
import zmq

from bandwidth_parts.limited_link import LimitedLink
from framefold_protocol import wire
from framefold_protocol.messages import Ack, Done, Message, Welcome

CREDIT = 32
"""As the decoder's default."""


@dataclass(frozen=True)
class FarSide:
    """Where the other end listens."""

    decoder: int
    sink: int
    process: int
    """Its number."""

    @property
    def cpu_s(self) -> float:
        """Time it has spent on the machine's cores so far."""
        user, system = Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def endpoint(self) -> str:
        """The decoder's address for an encoder."""
        return f"tcp://127.0.0.1:{self.decoder}"


@contextmanager
def far_side(rate: float | None = None) -> Iterator[FarSide]:
    """Run it as a process, behind a link of `rate` bytes per second or an unlimited one."""
    command = [sys.executable, "-m", "bandwidth_parts.far_side", *([str(rate)] if rate else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            yield FarSide(**json.loads(process.stdout.readline()), process=process.pid)
        finally:
            process.kill()


def main() -> None:
    """Serve until standard input ends."""
    router = zmq.Context().socket(zmq.ROUTER)
    decoder = router.bind_to_random_port("tcp://127.0.0.1")
    listener = socket.create_server(("127.0.0.1", 0))
    ports = [decoder, listener.getsockname()[1]]
    if len(sys.argv) > 1:
        ports = [LimitedLink(float(sys.argv[1]), port).port for port in ports]
    threading.Thread(target=_acknowledge, args=(router,), daemon=True).start()
    threading.Thread(target=_swallow, args=(listener,), daemon=True).start()
    print(json.dumps(dict(zip(("decoder", "sink"), ports, strict=True))), flush=True)
    sys.stdin.read()


def _acknowledge(router: zmq.Socket[bytes]) -> None:
    """Answer as a decoder does, after the headers alone: whatever is spent here is taken from the encoder's cores."""
    while True:
        identity, header, *_ = router.recv_multipart(copy=False)
        fields = msgpack.unpackb(header.bytes)
        match fields["type"]:
            case "hello":
                answer: Message = Welcome(0, CREDIT, fields["attempt"])
            case "end":
                answer = Done(fields["position"])
            case "snapshot" | "raw-frames" | "gap":
                answer = Ack(fields["position"] + 1, CREDIT)
            case _:
                continue
        router.send_multipart([identity.bytes, *wire.encode(answer, fields["v"])])


def _swallow(listener: socket.socket) -> None:
    """Take what comes; when a sender has finished, tell it how much that was."""
    while True:
        connection, _ = listener.accept()
        taken, buffer = 0, bytearray(1 << 20)
        with connection:
            while count := connection.recv_into(buffer):
                taken += count
            connection.sendall(str(taken).encode())


if __name__ == "__main__":
    main()
    os._exit(0)  # sockets and threads need no farewell
