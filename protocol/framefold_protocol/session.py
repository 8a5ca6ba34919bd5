"""The two ends of a stream's session, sans I/O: message parts in, events out; parts to send as return values.

No socket, clock or thread: the daemons wrap these. Which message may come when is the table in `transitions.py`; what makes a
stream exactly-once is here: positions are consecutive, frames are consecutive, what was seen before is a duplicate. Which of
several connections feeds a stream is in `claims.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from framefold_protocol import wire
from framefold_protocol.errors import LocalProtocolError, RemoteProtocolError
from framefold_protocol.messages import (
    Ack,
    Audit,
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
from framefold_protocol.wire import AUDITS_SINCE, DEFAULT_READER, Parts, Reader


@dataclass(frozen=True)
class Opened:
    """Decoder: a peer says hello. Answer with `welcome`, `done` or `refuse`."""

    stream: StreamMetadata
    run: int = 0
    attempt: int = 0


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
    """Encoder: go on sending from `position`; everything before it is stored and may be forgotten."""

    position: int


@dataclass(frozen=True)
class Acknowledged:
    """Encoder: everything before `position` is stored and may be forgotten."""

    position: int


@dataclass(frozen=True)
class Finished:
    """Encoder: the whole stream is stored. After a restart it may come before `end` was called: an earlier run had ended it."""

    position: int
    """Positions of the stream."""


@dataclass(frozen=True)
class Stale:
    """Encoder: the welcome to an older hello; the one to the newest will come."""


@dataclass(frozen=True)
class Refused:
    """Either side: the peer gave up; `error.retry` says whether a fresh hello may help."""

    error: Error


_UPDATE = "Update framefold on both sides, and report this if it comes back"
_CURES = {
    "codec": "Update the decoder",
    "metadata": "Correct the encoder's settings, or start a new stream",
    "payload": "Run the encoder again; if it comes back, look for faulty memory",
    "too-many-streams": "Wait until one ends; the encoder asks again",
    "internal": "Report this, with the decoder's log",
}
"""What a peer is told to do where whoever found the error knows no better."""
_JOURNAL_LOST = "This encoder's journal was replaced or rolled back; send the source as a new stream, with an empty journal"

EncoderEvent = Welcomed | Acknowledged | Finished | Stale | Refused
DecoderEvent = Opened | Received | Duplicate | Ended | Refused


class _Side:
    """State, table and protocol version of one role."""

    def __init__(self, table: Table, state: State, reader: Reader) -> None:
        self._table = table
        self._reader = reader
        self.state = state
        self.version = reader.versions[1]
        """The protocol version to speak; the newest until the peer asks for an older one."""

    def refuse(self, error: RemoteProtocolError) -> Parts:
        """Give the session up and say why; allowed in every state."""
        versions = self._reader.versions if error.code == "version" else None
        message = str(error) if error.hint else f"{error}. {_CURES.get(error.code, _UPDATE)}"
        return self._sending(Error(error.code, message, error.retry, versions))

    def _received(self, message: Message) -> None:
        step = Step("receive", self._kind(message))
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
        step = Step("send", "error" if isinstance(message, Error) else self._kind(message))
        if step not in self._table[self.state]:
            raise LocalProtocolError(f"cannot {step} while the session is {self.state}")
        self.state = self._table[self.state][step]
        return wire.encode(message, self.version)

    def _kind(self, message: Message) -> str:
        return "data" if isinstance(message, Snapshot | RawFrames | Audit | Gap) else type(message).__name__.lower()


class EncoderSession(_Side):
    """The sending end of one stream.

    `start` and `end` are what an earlier run left in its journal: everything before `start` is stored at the decoder, anything
    before `end` may have been sent, and the stream may have been ended there. `run` counts the encoder's starts on this stream.
    A stream with audit groups is sent in version 2 or not at all.
    """

    def __init__(
        self, stream: StreamMetadata, start: int = 0, end: int = 0, *, run: int = 1, reader: Reader = DEFAULT_READER
    ) -> None:
        if stream.audit:
            reader = replace(reader, versions=(max(AUDITS_SINCE, reader.versions[0]), reader.versions[1]))
        super().__init__(ENCODER, State.IDLE, reader)
        self.stream = stream
        self.next_position = start
        """The position to send next."""
        self.acknowledged = start
        """Everything before it is stored at the decoder."""
        self._run = run
        self._attempt = 0
        self._furthest = end
        self._ends_at: int | None = end
        self._credit = 0

    @property
    def may_send(self) -> bool:
        """Whether credit allows to send `next_position` now."""
        return self.state is State.STREAMING and self.next_position < self.acknowledged + self._credit

    @property
    def waiting(self) -> bool:
        """Whether the decoder's answer is due: nothing goes on without it, and after a silence it should be asked again."""
        return not self.may_send or self.acknowledged < self.next_position

    def hello(self) -> Parts:
        """Open the stream, or ask again after a silence."""
        self._attempt += 1
        return self._sending(Hello(self.stream, self._run, self._attempt))

    def sent(self, position: int) -> None:
        """The data message of this position, encoded before, was handed to the link."""
        if not self.may_send or position != self.next_position:
            raise LocalProtocolError(f"cannot send position {position}: next is {self.next_position}, session {self.state}")
        self.next_position += 1
        if self.next_position > self._furthest:
            self._furthest, self._ends_at = self.next_position, None

    def end(self, frames: int) -> Parts:
        """All positions were sent; the stream has this many frames."""
        self._ends_at = self.next_position
        return self._sending(End(self.next_position, frames))

    def receive(self, parts: Sequence[bytes]) -> EncoderEvent:
        """What the decoder's message means. Raises `RemoteProtocolError`."""
        _, message = self._reader.read(parts)
        kind = self._kind(message)
        self._received(message)
        if self.state is State.DONE and not isinstance(message, Done):
            return Finished(self.acknowledged)  # a late answer to what was said before
        match message:
            case Welcome() if kind == "stale":
                return Stale()
            case Welcome(position, credit):
                self.acknowledged = self.next_position = self._resumable(position)
                self._credit = credit
                return Welcomed(position)
            case Ack(position, credit):
                if self._sent_before(position) >= self.acknowledged:  # else it is a late one
                    self.acknowledged, self._credit = position, credit
                    self.next_position = max(self.next_position, position)
                return Acknowledged(self.acknowledged)
            case Done(position):
                if position != self._ends_at:
                    found = f"decoder is done at position {position}, but the stream ends at {self._ends_at}"
                    raise RemoteProtocolError(found, code="rollback", hint=_JOURNAL_LOST)
                self.acknowledged = position
                return Finished(position)
            case Error():
                if kind == "downgrade":
                    self.version = self._common_version(message)
                return Refused(replace(message, retry=kind != "error"))
        raise AssertionError(message)  # the table lets nothing else through

    def _kind(self, message: Message) -> str:
        match message:
            case Welcome(attempt=attempt) if attempt != self._attempt or self.state is not State.GREETING:
                return "stale"
            case Error(retry=True):
                return "retry"
            case Error(code="version"):
                common = self._common_version(message)
                if 0 < common < self.version:
                    return "downgrade"
                late = common == self.version and self.state in (State.IDLE, State.GREETING)
                return "retry" if late else "error"
        return super()._kind(message)

    def _common_version(self, error: Error) -> int:
        """The newest version that both sides speak; 0 when there is none."""
        low, high = error.versions or (0, 0)
        common = min(high, self._reader.versions[1])
        return common if common >= max(low, self._reader.versions[0]) else 0

    def _resumable(self, position: int) -> int:
        if position < self.acknowledged:
            message = f"decoder asks for position {position}, but had acknowledged everything before {self.acknowledged}"
            hint = "Its data folder was replaced or rolled back; restore it, then run the encoder again"
            raise RemoteProtocolError(message, code="rollback", hint=hint)
        return self._sent_before(position)

    def _sent_before(self, position: int) -> int:
        if position > self._furthest:
            message = f"decoder speaks of position {position}, but only {self._furthest} were sent"
            raise RemoteProtocolError(message, code="rollback", hint=_JOURNAL_LOST)
        return position


class DecoderSession(_Side):
    """The storing end of one stream, for one peer."""

    def __init__(self, reader: Reader = DEFAULT_READER) -> None:
        super().__init__(DECODER, State.WAITING, reader)
        self.stream: StreamMetadata | None = None
        self.expected = 0
        """The position that must come next."""
        self._frames = 0
        self._attempt = 0

    def receive(self, parts: Sequence[bytes]) -> DecoderEvent:
        """What the encoder's message means. Raises `RemoteProtocolError`."""
        version, message = self._reader.read(parts)
        self._received(message)
        match message:
            case Hello(stream, run, attempt):
                if self.stream is not None and stream.stream_id != self.stream.stream_id:
                    raise RemoteProtocolError(
                        "one peer cannot open two streams", code="out-of-turn", hint="Use two connections"
                    )
                self.stream, self.version, self._attempt = stream, version, attempt
                return Opened(stream, run, attempt)
            case Snapshot() | RawFrames() | Audit() | Gap():
                return self._data(message)
            case End(position, frames):
                self._check_consecutive("end", position, self.expected, "position")
                self._check_consecutive("end", frames, self._frames, "frames")
                return Ended(message)
            case Error():
                return Refused(message)
        raise AssertionError(message)

    def welcome(self, position: int, frames: int, credit: int, *, stored: int | None = None) -> Parts:
        """Take the stream: everything before `position`, `frames` frames, has arrived.

        `stored` when not all of that is stored yet: the peer is told this position, for it forgets what is before the one it
        is told; what it sends again is a duplicate.
        """
        self.expected, self._frames = position, frames
        return self._sending(Welcome(position if stored is None else stored, credit, self._attempt))

    def acknowledge(self, position: int, credit: int) -> Parts:
        """Everything before `position` is stored."""
        return self._sending(Ack(position, credit))

    def done(self, position: int) -> Parts:
        """The stream is stored and closed."""
        return self._sending(Done(position))

    def _data(self, data: Data) -> Received | Duplicate:
        if data.position < self.expected:
            return Duplicate(data.position)
        if self.state is not State.STREAMING:
            raise RemoteProtocolError(f"position {data.position} comes after the end", code="out-of-turn")
        self._check_consecutive("data", data.position, self.expected, "position")
        self._check_consecutive("data", data.first_frame, self._frames, "first frame")
        if data.frames < 1 and not isinstance(data, Audit):
            raise RemoteProtocolError(f"position {data.position} holds {data.frames} frames, expected at least 1")
        self.expected += 1
        self._frames += data.frames
        return Received(data)

    def _check_consecutive(self, what: str, found: int, expected: int, name: str) -> None:
        if found != expected:
            message = f"{what} has {name} {found}, expected {expected}"
            raise RemoteProtocolError(message, code="sequence-jump", hint="Say hello and resume", retry=True)
