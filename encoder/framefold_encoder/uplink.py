"""The encoder's end of the link: a thread around a DEALER socket, an `EncoderSession` and a journal.

The journal is the bounded queue between the fold and the link: `put` waits when it is full. What the decoder has not stored yet
stays in it and is sent again after a reconnect, and after a restart when the journal is on the disk; only what is safe there is
sent. The link sends the journal's own bytes, and copies no pixels.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import msgpack
import zmq

from framefold_encoder.handshake import Handshake
from framefold_encoder.syncer import Syncer
from framefold_protocol import wire
from framefold_protocol.errors import FramefoldError, InputError, RemoteProtocolError
from framefold_protocol.journal import Journal
from framefold_protocol.keys import LinkKeys
from framefold_protocol.messages import PROTOCOL_VERSION, StreamMetadata
from framefold_protocol.session import Acknowledged, EncoderEvent, EncoderSession, Finished, Refused, Welcomed
from framefold_protocol.transitions import State
from framefold_protocol.wire import PLANES_SINCE, Parts, Reader

_log = logging.getLogger(__name__)
_TICK_MS = 100


_KEEPALIVE = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 30),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)
"""Of a dead connection the system tells after a minute, even while there is nothing to send; firewalls remember a live one."""
_READER = Reader(versions=(PLANES_SINCE, PROTOCOL_VERSION))
"""What is written here no older decoder can read."""


@dataclass
class UplinkCounters:
    """What crossed the link so far."""

    bytes_wire: int = 0
    """Bytes sent, repeats and ZMTP frame headers included; TCP/IP headers are not."""


class StreamClosed(InputError):
    """There are more frames than the stream has, and it is closed."""


class Uplink:
    """Sends one stream. A context manager: leaving it closes the sockets, whatever is not stored yet is dropped."""

    def __init__(
        self, stream: StreamMetadata, endpoint: str, journal: Journal, silence_s: float, keys: LinkKeys | None = None
    ) -> None:
        """`journal`: what is in it already was put there by an earlier run, and goes first."""
        self.counters = UplinkCounters()
        self._session = EncoderSession(stream, journal.start, journal.end, run=journal.run, reader=_READER)
        self._endpoint = endpoint
        self._journal = journal
        self._silence_s = silence_s
        self._frames_at_end: int | None = None
        self._hello_due = True
        self._hello_not_before = 0.0
        self._last_heard = self._last_asked = time.monotonic()
        self._silences = 0  # since something was heard
        self._away = False
        self._failure: FramefoldError | None = None
        self._finished = threading.Event()
        self._finished_at = 0
        self._closing = threading.Event()
        self._changed = threading.Condition()  # told when there is room in the journal, or none needed
        self._syncer = Syncer(journal, self._synced, self._syncer_failed)
        self._context = zmq.Context()
        self._woken, self._bell = self._bell_pair()
        self._bell_lock = threading.Lock()
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)  # nothing queues for a decoder that is not there
        self._dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        self._dealer.setsockopt(zmq.LINGER, 0)  # what waits on a connection that is given up goes with it
        for option, value in _KEEPALIVE:
            self._dealer.setsockopt(option, value)
        self._handshake = Handshake(self._dealer, endpoint, keys)
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def __enter__(self) -> Uplink:
        self._handshake.connect()
        self._syncer.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        self._syncer.__exit__(kind, error, trace)
        self._context.destroy(linger=200)  # what it told the decoder last

    @property
    def backlog(self) -> float:
        """Share of the journal's bound that waits for the decoder, 0 to 1."""
        return self._journal.fill

    @property
    def finished(self) -> bool:
        """Whether the decoder has stored the whole stream; an earlier run may have ended it."""
        return self._finished.is_set()

    def put(self, parts: Parts, timeout_s: float) -> bool:
        """Hand over the message of the next position; False when the journal stayed full.

        Raises what ended the link, and `StreamClosed` when an earlier run had ended the stream.
        """
        with self._changed:
            room = self._changed.wait_for(
                lambda: not self._journal.full or self._failure is not None or self.finished, timeout_s
            )
            self.check()
        if self.finished:
            self._check_whole()
            raise self._closed(parts)
        if room:
            self._journal.append(parts)
            if self._journal.synced < self._journal.end:
                self._syncer.wake()
            self._ring()
        return room

    def finish(self, frames: int, timeout_s: float) -> bool:
        """End the stream, which has this many frames; True once the decoder has stored all of it, False after the timeout.

        Raises what ended the link, and `StreamClosed` when an earlier run had ended the stream before the last message.
        """
        deadline = time.monotonic() + timeout_s
        self.end(frames)
        while not self._finished.wait(_TICK_MS / 1000):
            self.check()
            if time.monotonic() > deadline:
                return False
        self._check_whole()
        return True

    def end(self, frames: int) -> None:
        """The stream has this many frames: the decoder is told when it has them all. Never waits; `finish` does."""
        self._frames_at_end = frames
        self._ring()

    def check(self) -> None:
        """Raise what ended the link, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _check_whole(self) -> None:
        """Of a stream that is stored: a message may have been put before the decoder said that it had been ended earlier."""
        if self._finished_at < self._journal.end:
            raise self._closed(self._journal.read(self._finished_at))

    def _closed(self, missing: Parts) -> StreamClosed:
        """`missing` is the first message that is not stored."""
        frames = msgpack.unpackb(missing[0])["first_frame"]
        stored = f"stream {self._session.stream.stream_id} is closed: its first {frames} frames are stored, those after are not"
        hint = "An interrupt had ended it. Run the encoder again to stream the whole source as a new stream"
        return StreamClosed(stored, hint=hint)

    def _bell_pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """Two ends of a wire: a message on it wakes the thread from its poll."""
        ends = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        for end, how in zip(ends, ("bind", "connect"), strict=True):
            end.set_hwm(1)
            getattr(end, how)("inproc://bell")
        return ends

    def _synced(self) -> None:
        self._ring()
        with self._changed:
            self._changed.notify_all()

    def _syncer_failed(self, error: Exception) -> None:
        _log.error("the journal failed", exc_info=error)
        self._fail(FramefoldError(f"the journal failed: {error!r}", hint="Please report this"))

    def _ring(self) -> None:
        with self._bell_lock, suppress(zmq.Again):  # it has been rung already
            self._bell.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        try:
            while not self._closing.is_set() and not self._finished.is_set():
                self._turn()
        except FramefoldError as error:
            self._fail(error)
        except Exception as error:  # the fold must hear of it instead of waiting forever
            _log.exception("the uplink failed")
            self._fail(FramefoldError(f"the uplink to {self._endpoint} failed: {error!r}", hint="Please report this"))

    def _fail(self, error: FramefoldError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _turn(self) -> None:
        poller = zmq.Poller()
        sends = self._handshake.succeeded and self._has_to_send()
        poller.register(self._dealer, zmq.POLLIN | (zmq.POLLOUT if sends else 0))
        poller.register(self._woken, zmq.POLLIN)
        poller.register(self._handshake.events, zmq.POLLIN)
        ready = dict(poller.poll(_TICK_MS))
        if self._woken in ready:
            self._woken.recv()
        if ready.get(self._dealer, 0) & zmq.POLLIN:
            self._hear(self._dealer.recv_multipart())
        if ready.get(self._dealer, 0) & zmq.POLLOUT and self._has_to_send():  # what was heard may have changed it
            self._send_next()
        self._handshake.mind()
        self._mind_silence(time.monotonic())

    def _mind_silence(self, now: float) -> None:
        """Ask again when an answer, or a connection to send on, has been due for `silence_s`."""
        if not (self._has_to_send() or self._session.waiting):
            self._last_asked = now  # nothing is due: silence begins to count when something is
        elif now - max(self._last_heard, self._last_asked) > self._silence_s:
            self._ask_again()

    def _has_to_send(self) -> bool:
        if self._hello_due:
            return time.monotonic() >= self._hello_not_before
        if self._session.next_position < self._journal.synced:
            return self._session.may_send
        return self._at_end and self._session.state is State.STREAMING

    @property
    def _at_end(self) -> bool:
        return self._frames_at_end is not None and self._session.next_position == self._journal.end

    def _send_next(self) -> None:
        position = self._session.next_position
        if self._hello_due:
            self._hello_due = not self._send(self._session.hello())
        elif position < self._journal.synced:
            if self._send(self._journal.read(position)):
                self._session.sent(position)
        elif self._at_end and self._frames_at_end is not None:
            self._send(self._session.end(self._frames_at_end))

    def _ask_again(self) -> None:
        if not self._away:
            self._away = True
            _log.warning("the decoder at %s does not answer; trying until it does", self._endpoint)
        self._last_asked = self._hello_not_before = time.monotonic()
        self._hello_due = True
        self._silences += 1
        if self._silences > 1:  # a firewall may have forgotten the connection, and nobody tells
            self._handshake.connect()

    def _hear(self, parts: Parts) -> None:
        self._last_heard, self._silences = time.monotonic(), 0
        match self._receive(parts):
            case Welcomed(position):
                self._hello_due = False
                _log.info("%s at position %d", "the decoder is back, going on" if self._away else "welcomed", position)
                self._away = False
                self._forget_before(position)
            case Acknowledged(position):
                self._forget_before(position)
            case Finished(position):
                self._finished_at = position
                self._finished.set()
                with self._changed:
                    self._changed.notify_all()
            case Refused(error) if error.retry:
                if not self._hello_due:
                    _log.warning("the decoder at %s: %s; saying hello again", self._endpoint, error.message)
                    self._hello_due = True
                    # At once, unless what it refuses may be the hello itself: then after a pause.
                    pause_s = self._silence_s if self._session.state is State.GREETING else 0.0
                    self._hello_not_before = time.monotonic() + pause_s
            case Refused(error):
                message = f"the decoder at {self._endpoint} refused the stream: {error.message}"
                raise RemoteProtocolError(message, code=error.code)

    def _receive(self, parts: Parts) -> EncoderEvent:
        try:
            return self._session.receive(parts)
        except RemoteProtocolError as error:
            self._send(self._session.refuse(error))
            raise

    def _forget_before(self, position: int) -> None:
        """The decoder has stored what is before this position."""
        self._journal.release(position)
        with self._changed:
            self._changed.notify_all()

    def _send(self, parts: Parts) -> bool:
        """Whether it went; it does not when the connection was lost in this moment."""
        try:
            self._dealer.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        self.counters.bytes_wire += wire.size(parts)
        return True
