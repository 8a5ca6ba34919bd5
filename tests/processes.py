"""Real daemons for the tests: a decoder on free ports of the loopback, encoders run to their end."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from framefold_client import Client, ClientError

TIMEOUT_S = 120
PROGRAMS = Path(sys.executable).parent


WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_given: deque[int] = deque(maxlen=500)


def free_port() -> int:
    """A port that no other worker is given, nobody who lets the system choose, and nobody here a short while ago."""
    while True:
        port = random.SystemRandom().randrange(20_000 + 1_000 * (WORKER % 12), 21_000 + 1_000 * (WORKER % 12))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port


def start(program: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAMEFOLD_")}
    command = [str(PROGRAMS / program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


@dataclass
class Finished:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict:
        return json.loads(self.stdout.splitlines()[-1])


def finish(process: subprocess.Popen[str]) -> Finished:
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"{process.args} did not end; it said:\n{process.communicate()}") from None
    return Finished(process.returncode, stdout, stderr)


def heard_to_say(process: subprocess.Popen[str], words: str) -> str:
    """What a process says on stderr up to and with the line that has these words; one that never says them is killed."""
    said = ""
    patience = threading.Timer(TIMEOUT_S, process.kill)
    patience.start()
    try:
        for line in process.stderr:
            said += line
            if words in line:
                return said
    finally:
        patience.cancel()
    raise AssertionError(f"{process.args} never said {words!r}, but:\n{said}")


def run(program: str, *arguments: object, **options: object) -> Finished:
    return finish(start(program, *arguments, **options))


@dataclass
class Decoder:
    """`framefold-decoder serve` on a data folder; may be stopped and started again on the same ports."""

    data: Path
    options: tuple = ()
    link: str = field(default_factory=lambda: f"tcp://127.0.0.1:{free_port()}")
    http: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Decoder":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.communicate()

    def start(self) -> None:
        arguments = ("--data", self.data, "--ingest", self.link, "--http", self.http, *self.options)
        self.process = start("framefold-decoder", "serve", *arguments)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate())
            with self.client() as client, suppress(ClientError):
                client.streams()
                return
            time.sleep(0.1)
        raise AssertionError("the decoder did not start")

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> Finished:
        self.process.send_signal(with_signal)
        return finish(self.process)

    def client(self) -> Client:
        return Client(f"http://{self.http}")

    def run_encoder(self, source: str, *arguments: object) -> Finished:
        return run("framefold-encoder", "run", source, "--to", self.link, *arguments)

    def start_encoder(self, source: str, *arguments: object) -> subprocess.Popen[str]:
        return start("framefold-encoder", "run", source, "--to", self.link, *arguments)

    def wait_until(self, condition, what: str) -> dict:
        """The newest stream, once it fulfils the condition."""
        deadline = time.monotonic() + TIMEOUT_S
        with self.client() as client:
            while time.monotonic() < deadline:
                streams = client.streams()
                if streams and condition(streams[0]):
                    return client.stream(streams[0]["id"])
                time.sleep(0.1)
        raise AssertionError(f"never happened: {what}; streams are {streams}")

    def wait_until_decoded(self) -> dict:
        return self.wait_until(
            lambda stream: stream["state"] == "complete" and stream["decoded"] == stream["snapshots"],
            "everything stored and decoded",
        )
