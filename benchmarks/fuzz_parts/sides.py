"""The two sides that are fed: each a session, and around it what a daemon does with its events, without socket or disk.

`plausible` is a message the side would take, `hear` what it makes of a message: the event's name, or the code of the error it
answers. Any other exception is a finding.
"""

from __future__ import annotations

import random
from copy import copy
from dataclasses import replace
from typing import Any

from framefold_decoder.gatekeeper import Door
from framefold_decoder.store.incoming import check_order, unpack
from framefold_decoder.store.metadata import check_metadata
from framefold_protocol import wire
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.messages import PROTOCOL_VERSION, Ack, Data, Done, End, Error, Hello, StreamMetadata, Welcome
from framefold_protocol.session import DecoderSession, EncoderSession, Finished, Opened, Received, Refused, Welcomed
from framefold_protocol.transitions import State
from framefold_protocol.wire import Parts, Reader

MAX_MESSAGE_MB = 128
"""The least the decoder's settings allow: of coded and of decoded pixels."""
_DOOR = Door(max_message_mb=MAX_MESSAGE_MB)
_READER = Reader(max_payload_bytes=MAX_MESSAGE_MB * 10**6)
_LENGTH = 12
"""Positions of a stream, about."""
_AS_IF_NOTHING = 0.8
"""How often a session goes on as it was before what it refused: else few would come far."""


class DecoderSide:
    """A `DecoderSession`, the checks at the door, and the decoding of pixels."""

    def __init__(self, chance: random.Random, stream: StreamMetadata, data: list[Data]) -> None:
        self._chance = chance
        self._stream = stream
        self._data = data
        self.restart()

    def plausible(self) -> Parts:
        """What the encoder would say next."""
        if self._session.state in (State.WAITING, State.DONE) or self._chance.random() < 0.05:
            return wire.encode(Hello(self._stream, 1, self._chance.randrange(1, 9)), PROTOCOL_VERSION)
        place = {"position": self._session.expected, "first_frame": self._frames}
        if self._session.expected >= _LENGTH:
            return wire.encode(End(self._session.expected, self._frames))
        return wire.encode(replace(self._chance.choice(self._data), **place))

    def hear(self, parts: Parts) -> str:
        """The event's name or the error's code."""
        before, frames = copy(self._session), self._frames
        try:
            event = self._session.receive(parts)
            self._react(event)
        except RemoteProtocolError as error:
            self._session.refuse(error)
            self.restart()
            if self._chance.random() < _AS_IF_NOTHING:
                self._session, self._frames = before, frames
            return error.code
        return type(event).__name__

    def restart(self) -> None:
        """A session nobody has spoken to."""
        self._session = DecoderSession(_READER)
        self._frames = 0

    def _react(self, event: Any) -> None:
        match event:
            case Opened(stream):
                check_metadata(stream)
                _DOOR.check_sizes(stream)
                self._session.welcome(self._session.expected, self._frames, credit=4)
            case Received(data):
                check_order([data], self._frames)
                assert self._session.stream is not None
                unpack(data, self._session.stream)
                self._frames += data.frames
                self._session.acknowledge(self._session.expected, credit=4)
            case Refused():
                self.restart()
            case _ if self._session.state is State.ENDING:
                self._session.done(self._session.expected)


class EncoderSide:
    """An `EncoderSession` with a journal of a few messages."""

    def __init__(self, chance: random.Random, stream: StreamMetadata) -> None:
        self._chance = chance
        self._stream = stream
        self.restart()

    def plausible(self) -> Parts:
        """What the decoder would say next."""
        session, sent = self._session, self._session.next_position
        if session.state is State.GREETING:
            return wire.encode(Welcome(session.acknowledged, self._chance.choice((0, 1, 8)), self._attempt), PROTOCOL_VERSION)
        if session.state is State.ENDING and self._chance.random() < 0.3:
            return wire.encode(Done(sent))
        if self._chance.random() < 0.1:
            return wire.encode(Error("storage", "no room", True))
        return wire.encode(Ack(self._chance.randint(session.acknowledged, sent), self._chance.choice((0, 1, 8))))

    def hear(self, parts: Parts) -> str:
        """The event's name or the error's code."""
        before = copy(self._session), self._attempt
        try:
            event = self._session.receive(parts)
        except RemoteProtocolError as error:
            self._session.refuse(error)
            self.restart()
            if self._chance.random() < _AS_IF_NOTHING:
                self._session, self._attempt = before
            return error.code
        if isinstance(event, Finished) or (isinstance(event, Refused) and not event.error.retry):
            self.restart()
        elif isinstance(event, Refused):
            self._hello()
        elif isinstance(event, Welcomed) or self._chance.random() < 0.5:
            self._send()
        return type(event).__name__

    def restart(self) -> None:
        """A session that may have a journal."""
        start = self._chance.choice((0, 0, 3))
        stream = replace(self._stream, audit=self._chance.choice((0, 5)))
        self._session = EncoderSession(stream, start, start + self._chance.choice((0, 2)), run=self._chance.randint(1, 3))
        self._attempt = 0
        if self._chance.random() < 0.9:
            self._hello()

    def _hello(self) -> None:
        self._session.hello()
        self._attempt += 1

    def _send(self) -> None:
        while self._session.may_send and self._session.next_position < _LENGTH:
            self._session.sent(self._session.next_position)
        if self._session.state is State.STREAMING and self._session.next_position >= _LENGTH:
            self._session.end(frames=60)
