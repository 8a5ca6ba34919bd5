"""The two ends of a stream's session, sans I/O: message parts in, events out; parts to send as return values.

No socket, clock or thread: the daemons wrap these. Which message may come when is the table in `transitions.py`; what makes a
stream exactly-once is here: positions are consecutive, frames are consecutive, what was seen before is a duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framefold_protocol import wire
from framefold_protocol.errors import LocalProtocolError, RemoteProtocolError
from framefold_protocol.messages import (
    Ack,
    Data,
    Done,
    End,
    Error,
    Gap,
    Hello,
    Message,
    RawFrames,
    Snapshot,
    StreamMetadata,
    Welcome,
)
from framefold_protocol.transitions import DECODER, ENCODER, State, Step, Table
from framefold_protocol.wire import Parts


@dataclass(frozen=True)
class Opened:
    """Decoder: a peer says hello. Answer with `welcome`, `done` or `refuse`."""

    stream: StreamMetadata


@dataclass(frozen=True)
class Received:
    """Decoder: the next data message. Store it, then send `acknowledge`."""

    data: Data


@dataclass(frozen=True)
class Duplicate:
    """Decoder: a position that had arrived before; nothing to store."""

    position: int


@dataclass(frozen=True)
class Ended:
    """Decoder: the stream is whole. Close it, then send `done`."""

    end: End


@dataclass(frozen=True)
class Welcomed:
    """Encoder: go on sending from `position`."""

    position: int


@dataclass(frozen=True)
class Acknowledged:
    """Encoder: everything before `position` is stored and may be forgotten."""

    position: int


@dataclass(frozen=True)
class Finished:
    """Encoder: the whole stream is stored."""


@dataclass(frozen=True)
class Refused:
    """Either side: the peer gave up; `error.retry` says whether a fresh hello may help."""

    error: Error


EncoderEvent = Welcomed | Acknowledged | Finished | Refused
DecoderEvent = Opened | Received | Duplicate | Ended | Refused


def _kind(message: Message) -> str:
    if isinstance(message, Snapshot | RawFrames | Gap):
        return "data"
    if isinstance(message, Error) and message.retry:
        return "retry"
    return type(message).__name__.lower()


class _Side:
    """State and table of one role."""

    def __init__(self, table: Table, state: State) -> None:
        self._table = table
        self.state = state

    def _received(self, message: Message) -> None:
        step = Step("receive", _kind(message))
        if step not in self._table[self.state]:
            unknown = self.state in (State.WAITING, State.FAILED)  # the peer believes in a session that is gone
            raise RemoteProtocolError(
                f"peer sent {step.kind} while the session is {self.state}",
                code="no-session" if unknown else "out-of-turn",
                hint="Say hello first",
                retry=unknown,
            )
        self.state = self._table[self.state][step]

    def _sending(self, message: Message) -> Parts:
        step = Step("send", _kind(message) if not isinstance(message, Error) else "error")
        if step not in self._table[self.state]:
            raise LocalProtocolError(f"cannot {step} while the session is {self.state}")
        self.state = self._table[self.state][step]
        return wire.encode(message)


class EncoderSession(_Side):
    """The sending end of one stream."""

    def __init__(self, stream: StreamMetadata) -> None:
        super().__init__(ENCODER, State.IDLE)
        self.stream = stream
        self.next_position = 0
        """The position to send next."""
        self.acknowledged = 0
        """Everything before it is stored at the decoder."""
        self._furthest = 0
        self._ends_at: int | None = None
        self._credit = 0

    @property
    def may_send(self) -> bool:
        """Whether credit allows to send `next_position` now."""
        return self.state is State.STREAMING and self.next_position < self.acknowledged + self._credit

    def hello(self) -> Parts:
        """Open the stream, or ask again after a silence."""
        return self._sending(Hello(self.stream))

    def sent(self, position: int) -> None:
        """The data message of this position, encoded before, was handed to the link."""
        if not self.may_send or position != self.next_position:
            raise LocalProtocolError(f"cannot send position {position}: next is {self.next_position}, session {self.state}")
        self.next_position += 1
        self._furthest = max(self._furthest, self.next_position)

    def end(self, frames: int) -> Parts:
        """All positions were sent; the stream has this many frames."""
        self._ends_at = self.next_position
        return self._sending(End(self.next_position, frames))

    def receive(self, parts: Sequence[bytes]) -> EncoderEvent:
        """What the decoder's message means. Raises `RemoteProtocolError`."""
        message = wire.decode(parts)
        self._received(message)
        if self.state is State.DONE and not isinstance(message, Done):
            return Finished()  # a late answer to what was said before
        match message:
            case Welcome(position, credit):
                self.next_position, self._credit = self._resumable(position), credit
                return Welcomed(position)
            case Ack(position, credit):
                self.acknowledged, self._credit = max(self.acknowledged, self._sent_before(position)), credit
                self.next_position = max(self.next_position, position)
                return Acknowledged(self.acknowledged)
            case Done(position):
                if position != self._ends_at:
                    raise RemoteProtocolError(f"decoder is done at position {position}, but the stream ends at {self._ends_at}")
                self.acknowledged = position
                return Finished()
            case Error():
                return Refused(message)
        raise AssertionError(message)  # the table lets nothing else through

    def _resumable(self, position: int) -> int:
        if position < self.acknowledged:
            message = f"decoder asks for position {position}, but had acknowledged everything before {self.acknowledged}"
            hint = "Its data folder was replaced or rolled back; restore it, then run the encoder again"
            raise RemoteProtocolError(message, code="rollback", hint=hint)
        return self._sent_before(position)

    def _sent_before(self, position: int) -> int:
        if position > self._furthest:
            raise RemoteProtocolError(f"decoder speaks of position {position}, but only {self._furthest} were sent")
        return position


class DecoderSession(_Side):
    """The storing end of one stream, for one peer."""

    def __init__(self) -> None:
        super().__init__(DECODER, State.WAITING)
        self.stream: StreamMetadata | None = None
        self.expected = 0
        """The position that must come next."""
        self._frames = 0

    def receive(self, parts: Sequence[bytes]) -> DecoderEvent:
        """What the encoder's message means. Raises `RemoteProtocolError`."""
        message = wire.decode(parts)
        self._received(message)
        match message:
            case Hello(stream):
                if self.stream is not None and stream.stream_id != self.stream.stream_id:
                    raise RemoteProtocolError(
                        "one peer cannot open two streams", code="out-of-turn", hint="Use two connections"
                    )
                self.stream = stream
                return Opened(stream)
            case Snapshot() | RawFrames() | Gap():
                return self._data(message)
            case End(position, frames):
                self._check_consecutive("end", position, self.expected, "position")
                self._check_consecutive("end", frames, self._frames, "frames")
                return Ended(message)
            case Error():
                return Refused(message)
        raise AssertionError(message)

    def welcome(self, position: int, frames: int, credit: int) -> Parts:
        """Take the stream: everything before `position`, `frames` frames, is here already."""
        self.expected, self._frames = position, frames
        return self._sending(Welcome(position, credit))

    def acknowledge(self, position: int, credit: int) -> Parts:
        """Everything before `position` is stored."""
        return self._sending(Ack(position, credit))

    def done(self, position: int) -> Parts:
        """The stream is stored and closed."""
        return self._sending(Done(position))

    def refuse(self, error: RemoteProtocolError) -> Parts:
        """Give the session up and say why; allowed in every state."""
        self.state = State.FAILED
        return wire.encode(Error(error.code, str(error), error.retry))

    def _data(self, data: Data) -> Received | Duplicate:
        if data.position < self.expected:
            return Duplicate(data.position)
        if self.state is not State.STREAMING:
            raise RemoteProtocolError(f"position {data.position} comes after the end", code="out-of-turn")
        self._check_consecutive("data", data.position, self.expected, "position")
        self._check_consecutive("data", data.first_frame, self._frames, "first frame")
        if data.frames < 1:
            raise RemoteProtocolError(f"position {data.position} holds {data.frames} frames, expected at least 1")
        self.expected += 1
        self._frames += data.frames
        return Received(data)

    def _check_consecutive(self, what: str, found: int, expected: int, name: str) -> None:
        if found != expected:
            message = f"{what} has {name} {found}, expected {expected}"
            raise RemoteProtocolError(message, code="sequence-jump", hint="Say hello and resume", retry=True)
