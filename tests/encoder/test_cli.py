"""The encoder's command line: what an interrupt does."""

import io
import signal
import threading

import pytest

from framefold_encoder.cli import _stop_on_signals, main


class Busy(io.StringIO):
    """A stream in whose midst an interrupt came: it does not take another text."""

    def write(self, text):
        raise RuntimeError("reentrant call")


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_something_is_printed_ends_the_stream_and_the_next_the_process(number, monkeypatch, capfd):
    stop = threading.Event()
    _stop_on_signals(stop)
    monkeypatch.setattr("sys.stderr", Busy())
    signal.raise_signal(number)
    assert stop.is_set()
    assert signal.getsignal(number) is signal.SIG_DFL
    assert capfd.readouterr().err == "framefold-encoder: sending what was read; interrupt again to end at once\n"


def test_an_error_that_nobody_foresaw_ends_with_another_status_than_lost_frames(monkeypatch, caplog):
    """1, Python's own, says that all but a camera's lost frames is stored."""

    def fail(settings, *rest):
        raise ZeroDivisionError

    monkeypatch.setattr("framefold_encoder.cli._run", fail)
    assert main(["run", "sim:"]) == 2
    assert "report it" in caplog.text
