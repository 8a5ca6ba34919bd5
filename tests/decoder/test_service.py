"""The service as a whole, started and stopped in this process."""

import os
import signal

import pytest
import uvicorn

from framefold_decoder.service import serve
from framefold_decoder.settings import DecoderSettings
from processes import free_port


@pytest.fixture
def own_signals():
    """The service takes over the process's signal handlers; a service that does not end is ended by an alarm."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGALRM
    before = [signal.getsignal(number) for number in numbers]

    def overdue(number, frame):
        raise TimeoutError("the service did not end")

    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(30)
    yield
    signal.alarm(0)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_before_rest_listens_to_signals_ends_it_too(tmp_path, monkeypatch, number):
    run = uvicorn.Server.run

    def interrupted_at_once(server, sockets):
        os.kill(os.getpid(), number)
        run(server, sockets=sockets)

    monkeypatch.setattr(uvicorn.Server, "run", interrupted_at_once)
    serve(
        DecoderSettings(data=tmp_path, model="none", ingest=f"tcp://127.0.0.1:{free_port()}", http=f"127.0.0.1:{free_port()}")
    )
