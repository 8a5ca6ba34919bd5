"""Exactly once, whatever happens: real sessions against a perfect model in memory.

What ZeroMQ over TCP can do to a session: lose any message when a connection is cut; let what waits on the old connection be
read after what came on the new one, by either side; lose a decoder's answers to a connection that is gone. Within a connection
it neither doubles nor reorders. The link here does both as well, rarely, so that nothing rests on it.

Either side is killed at any moment: the encoder starts again from its journal and the same source, the decoder from its store.
A rival is a second encoder with a copy of the journal. The one that lost the stream, or whose copy is behind, stops and says
so.
The model is one list: the messages of the stream, a function of position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefold_protocol import wire
from framefold_protocol.claims import Claims, superseded
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.messages import Data, End, Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.session import (
    Acknowledged,
    DecoderSession,
    EncoderSession,
    Ended,
    Finished,
    Opened,
    Received,
    Refused,
    Welcomed,
)
from framefold_protocol.transitions import State

STREAM = StreamMetadata("0" * 32, "test", (4, 4), "uint8", (MaskSpec(ratio=5),), ("",), 0)
CREDIT = 3
FRAMES = (5, 7, 5, 3)
"""Of a snapshot, a gap, a snapshot, raw frames, and so on."""


def frames_before(position: int) -> int:
    return position // 4 * sum(FRAMES) + sum(FRAMES[: position % 4])


def message(position: int) -> Data:
    first, frames, pixels = frames_before(position), FRAMES[position % 4], bytes([position % 256])
    match position % 4:
        case 1:
            return Gap(position, first, frames, "disk full")
        case 3:
            return RawFrames(position, first, frames, 0, "uint8", "blosc2", pixels)
    return Snapshot(position, first, frames, 0, "uint16", "blosc2", pixels)


@dataclass(eq=False)
class Connection:
    """One connection of an encoder's life. What had arrived at either side when it was cut may be read later."""

    to_decoder: list[wire.Parts] = field(default_factory=list)
    to_encoder: list[wire.Parts] = field(default_factory=list)
    whole: bool = True

    def answer(self, parts: wire.Parts) -> None:
        if self.whole:
            self.to_encoder.append(parts)


class Encoder:
    """An encoder's process around its journal, which outlives it: positions `start` to `end`, and the count of its starts."""

    def __init__(self, start: int = 0, end: int = 0, run: int = 0) -> None:
        self.start, self.end, self.run = start, end, run
        self.restart()

    def restart(self) -> None:
        self.run += 1
        self.session = EncoderSession(STREAM, self.start, self.end, run=self.run)
        self.connections = [Connection()]
        self.finished = self.stopped = False

    @property
    def connection(self) -> Connection:
        return self.connections[-1]

    @property
    def alive(self) -> bool:
        return not self.stopped and not self.finished

    def send(self, parts: wire.Parts) -> None:
        self.connection.to_decoder.append(parts)

    def send_next(self) -> None:
        position = self.session.next_position
        assert self.start <= position < self.end, "the journal has forgotten what must be sent"
        self.send(wire.encode(message(position)))
        self.session.sent(position)

    def hear(self, parts: wire.Parts) -> str:
        """What stops this encoder for good, if it does."""
        try:
            event = self.session.receive(parts)
        except RemoteProtocolError as error:
            self.send(self.session.refuse(error))
            return error.code
        match event:
            case Acknowledged(position) | Welcomed(position):
                self.start = max(self.start, position)
            case Finished(position):
                self.end = position
                self.finished = True
            case Refused(error) if not error.retry:
                return error.code
        return ""


class Decoder:
    """A decoder's process around its store, which outlives it."""

    def __init__(self) -> None:
        self.store: list[Data] = []
        self.complete = False
        self.credit = CREDIT
        self.restart()

    def restart(self) -> None:
        self.sessions: dict[Connection, DecoderSession] = {}
        self.arrived: dict[Connection, list[Data]] = {}
        self.reached: dict[Connection, int] = {}
        """What the next position of each session must be."""
        self.claims: Claims[Connection] = Claims()

    def hear(self, connection: Connection, parts: wire.Parts) -> None:
        session = self.sessions.setdefault(connection, DecoderSession())
        expected = self._expected(connection, session, wire.decode(parts))
        refused = None
        try:
            event = session.receive(parts)
            self._handle(connection, session, event)
            found = type(event).__name__
        except RemoteProtocolError as error:
            found, refused = error.code, error
        assert expected in ("", found), f"{found} of {parts}, expected {expected}"
        if refused:
            self.refuse(connection, refused)

    def _expected(self, connection: Connection, session: DecoderSession, heard: object) -> str:
        """What a session that streams must make of data and of the end: the event's name or the error's code."""
        reached = self.reached.get(connection, 0)
        match heard:
            case Snapshot() | Gap() | RawFrames() if session.state is State.STREAMING:
                return ("Duplicate", "Received", "sequence-jump")[(heard.position > reached) + (heard.position >= reached)]
            case End() if session.state is State.STREAMING:
                return "Ended" if heard.position == reached else "sequence-jump"
        return ""

    def _handle(self, connection: Connection, session: DecoderSession, event: object) -> None:
        match event:
            case Opened():
                loser = self.claims.take(event, connection)
                if loser in self.sessions:
                    self.refuse(loser, superseded())
                stored = len(self.store)
                if self.complete:
                    connection.answer(session.done(stored))
                else:
                    position = stored + len(self.arrived.get(connection, []))
                    connection.answer(session.welcome(position, frames_before(position), self.credit, stored=stored))
                    self.reached[connection] = position
            case Received(data):
                self.reached[connection] += 1
                self.arrived.setdefault(connection, []).append(data)
            case Ended():
                self.save(connection)
                self.complete = True
                self.claims.drop(STREAM.stream_id, connection)
                connection.answer(session.done(len(self.store)))
            case Refused():
                del self.sessions[connection]
                self.arrived.pop(connection, None)
                self.claims.drop(STREAM.stream_id, connection)

    def refuse(self, connection: Connection, error: RemoteProtocolError) -> None:
        connection.answer(self.sessions.pop(connection).refuse(error))
        self.arrived.pop(connection, None)

    def save(self, connection: Connection) -> None:
        if arrived := self.arrived.pop(connection, []):
            self.store += arrived
            self.acknowledge(connection)

    def acknowledge(self, connection: Connection) -> None:
        connection.answer(self.sessions[connection].acknowledge(len(self.store), self.credit))


class Link(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = [Encoder()]
        self.decoder = Decoder()
        self.connections = [self.encoders[0].connection]
        self.length: int | None = None
        """Positions of the source, once an encoder has come to its end."""

    # --- the encoders

    def _encoder(self, data, condition=lambda encoder: True):
        able = [encoder for encoder in self.encoders if encoder.alive and condition(encoder)]
        return data.draw(st.sampled_from(able)) if able else None

    @rule(data=st.data())
    def hello(self, data):
        if encoder := self._encoder(data):
            encoder.send(encoder.session.hello())

    @rule(data=st.data())
    def fold_another_group(self, data):
        if encoder := self._encoder(data, self._source_goes_on):
            encoder.end += 1

    def _source_goes_on(self, encoder):
        return self.length is None or encoder.end < self.length

    @rule(data=st.data(), count=st.integers(1, 4))
    def send(self, data, count):
        for _ in range(count):
            if encoder := self._encoder(data, self._has_data):
                encoder.send_next()

    def _has_data(self, encoder):
        return encoder.session.may_send and encoder.session.next_position < encoder.end

    @rule(data=st.data())
    def send_and_ask_again(self, data):
        """The answer to what is sent is overdue; the decoder reads the hello right behind the data."""
        if encoder := self._encoder(data, self._has_data):
            encoder.send_next()
            encoder.send(encoder.session.hello())

    @rule(data=st.data(), now=st.sampled_from([True] + 5 * [False]))
    def end(self, data, now):
        """Rarely: once a stream is stored, nothing more can go wrong with it."""
        if now and (encoder := self._encoder(data, self._may_end)):
            self._end(encoder)

    def _end(self, encoder):
        self.length = encoder.end
        encoder.send(encoder.session.end(frames_before(encoder.end)))

    def _may_end(self, encoder):
        whole = self.length in (None, encoder.end) and encoder.end >= max(other.end for other in self.encoders)
        return whole and encoder.session.state is State.STREAMING and encoder.session.next_position == encoder.end

    @rule(data=st.data())
    def encoder_hears(self, data):
        if encoder := self._encoder(data, lambda encoder: any(c.to_encoder for c in encoder.connections)):
            connection = data.draw(st.sampled_from([c for c in encoder.connections if c.to_encoder]))
            self._hears(encoder, connection.to_encoder.pop(self._drawn(data, connection.to_encoder)))

    def _hears(self, encoder, parts):
        """With one encoder nothing stops it; of two, one may find that the other sends the stream, or is ahead."""
        code = encoder.hear(parts)
        assert not code or (len(self.encoders) == 2 and code in ("superseded", "rollback")), code
        encoder.stopped = bool(code)

    @rule(data=st.data())
    def encoder_is_killed(self, data):
        encoder = data.draw(st.sampled_from(self.encoders))
        encoder.restart()
        self.connections += encoder.connections

    @precondition(lambda self: len(self.encoders) == 1)
    @rule(now=st.sampled_from([True] + 5 * [False]))
    def a_rival_starts(self, now):
        """Rarely: two that stop each other leave little to happen."""
        if not now:
            return
        first = self.encoders[0]
        self.encoders.append(Encoder(first.start, first.end, first.run))
        self.connections += self.encoders[1].connections

    @rule(data=st.data(), groups=st.integers(1, 4), stored=st.booleans())
    def a_while_without_faults(self, data, groups, stored):
        """Brings a stream on, so that faults meet it in every state."""
        if encoder := self._encoder(data):
            self._make_ready(encoder, groups)
            self._send_all(encoder)
            self._exchange(encoder)
            if stored and encoder.connection in self.decoder.arrived:
                self.decoder.save(encoder.connection)

    def _make_ready(self, encoder, groups):
        """Welcomed, with groups to send."""
        for _ in range(groups):
            encoder.end += self._source_goes_on(encoder)
        if encoder.session.state is not State.STREAMING:
            encoder.send(encoder.session.hello())
            self._exchange(encoder)

    def _send_all(self, encoder):
        """As much as there is and credit allows."""
        while encoder.alive and self._has_data(encoder):
            encoder.send_next()

    def _exchange(self, encoder):
        """All that waits on an encoder's newest connection is heard, in order."""
        connection = encoder.connection
        while connection.to_decoder:
            self.decoder.hear(connection, connection.to_decoder.pop(0))
        while connection.to_encoder and encoder.alive:
            self._hears(encoder, connection.to_encoder.pop(0))

    # --- episodes: several of these in the order in which they do most harm, seldom met by chance

    @rule(data=st.data(), ending=st.sampled_from([True] + 3 * [False]), fault=st.sampled_from(["lost", "doubled", "swapped"]))
    def a_burst_that_does_not_arrive_whole(self, data, ending, fault):
        """The encoder sends all that it may, perhaps to the stream's end, and one of it is lost, doubled or overtaken."""
        if encoder := self._encoder(data):
            self._make_ready(encoder, 2)
            self._send_all(encoder)
            if ending and encoder.alive and self._may_end(encoder):
                self._end(encoder)
            queue = encoder.connection.to_decoder
            if not queue:
                return
            index = data.draw(st.integers(0, len(queue) - 1))
            match fault:
                case "lost":
                    del queue[index]
                case "doubled":
                    queue.insert(data.draw(st.integers(index, len(queue))), queue[index])
                case "swapped":
                    queue.append(queue.pop(index))
            self._exchange(encoder)
            if encoder.connection in self.decoder.arrived:
                self.decoder.save(encoder.connection)

    @rule(data=st.data(), heard=st.booleans())
    def a_cut_amid_the_greeting(self, data, heard):
        """A hello, or its answer, stays behind on the old connection and is read when the new one is in use."""
        if encoder := self._encoder(data):
            old = encoder.connection
            encoder.send(encoder.session.hello())
            while heard and old.to_decoder:
                self.decoder.hear(old, old.to_decoder.pop(0))
            self._cut(encoder)
            self._make_ready(encoder, 2)
            self._send_all(encoder)
            self._exchange(encoder)
            if encoder.connection in self.decoder.arrived:
                self.decoder.save(encoder.connection)

    @rule(data=st.data())
    def a_greeting_before_all_is_stored(self, data):
        """What arrived and is not stored yet must not be promised to the encoder, which asks, nor be lost on the way."""
        if encoder := self._encoder(data):
            self._make_ready(encoder, 2)
            self._send_all(encoder)
            self._exchange(encoder)
            if encoder.alive:
                encoder.send(encoder.session.hello())
                self._exchange(encoder)

    @rule(data=st.data())
    def old_answers_amid_a_greeting(self, data):
        """The encoder asks again; what comes first are answers to what it asked long ago."""
        if encoder := self._encoder(data):
            encoder.send(encoder.session.hello())
            for connection in encoder.connections[:-1]:
                while connection.to_encoder and encoder.alive:
                    self._hears(encoder, connection.to_encoder.pop(0))

    @rule(data=st.data())
    def old_messages_reach_the_decoder(self, data):
        """All that stayed behind on old connections."""
        if encoder := self._encoder(data):
            for connection in encoder.connections[:-1]:
                while connection.to_decoder:
                    self.decoder.hear(connection, connection.to_decoder.pop(0))

    # --- the link

    @rule(data=st.data())
    def connection_is_cut(self, data):
        """What is under way is lost or may still be read, but both ends may already use the new connection."""
        if encoder := self._encoder(data):
            for queue in (encoder.connection.to_decoder, encoder.connection.to_encoder):
                del queue[data.draw(st.integers(0, len(queue))) :]
            self._cut(encoder)

    def _cut(self, encoder):
        encoder.connection.whole = False
        encoder.connections.append(Connection())
        self.connections.append(encoder.connection)

    @rule(data=st.data(), to_decoder=st.booleans(), what=st.sampled_from(["lost", "doubled"]))
    def beyond_what_zeromq_does(self, data, to_decoder, what):
        queues = [c.to_decoder if to_decoder else c.to_encoder for c in self.connections]
        if queues := [queue for queue in queues if queue]:
            queue = data.draw(st.sampled_from(queues))
            index = data.draw(st.integers(0, len(queue) - 1))
            if what == "doubled":
                queue.append(queue[index])
            else:
                del queue[index]

    def _drawn(self, data, queue):
        """Mostly the first; sometimes a later one overtakes it."""
        return data.draw(st.sampled_from([0] * 8 + list(range(len(queue)))))

    # --- the decoder

    @rule(data=st.data(), count=st.integers(1, 4))
    def decoder_hears(self, data, count):
        for _ in range(count):
            if waiting := [connection for connection in self.connections if connection.to_decoder]:
                connection = data.draw(st.sampled_from(waiting))
                self.decoder.hear(connection, connection.to_decoder.pop(self._drawn(data, connection.to_decoder)))

    @precondition(lambda self: self.decoder.arrived)
    @rule(data=st.data())
    def decoder_stores(self, data):
        self.decoder.save(data.draw(st.sampled_from(list(self.decoder.arrived))))

    @precondition(lambda self: self.decoder.arrived)
    @rule(data=st.data())
    def decoder_cannot_store(self, data):
        connection = data.draw(st.sampled_from(list(self.decoder.arrived)))
        self.decoder.refuse(connection, RemoteProtocolError("disk failed", code="storage", retry=True))

    @rule(credit=st.sampled_from([0, 1, CREDIT]))
    def decoder_changes_its_credit(self, credit):
        self.decoder.credit = credit
        for connection, session in self.decoder.sessions.items():
            if session.state is State.STREAMING:
                self.decoder.save(connection)
                self.decoder.acknowledge(connection)

    @rule()
    def decoder_is_killed(self):
        """Its connections go with it; the encoders connect again without noticing."""
        self.decoder.restart()
        for connection in self.connections:
            connection.to_decoder.clear()
            connection.whole = False
        self.connections.clear()
        for encoder in self.encoders:
            encoder.connections.append(Connection())
            self.connections.append(encoder.connection)

    # --- what holds

    @invariant()
    def what_is_stored_is_what_was_sent_in_order_once(self):
        assert self.decoder.store == [message(position) for position in range(len(self.decoder.store))]

    @invariant()
    def nothing_is_forgotten_before_it_is_stored(self):
        assert all(encoder.start <= len(self.decoder.store) for encoder in self.encoders)

    @invariant()
    def done_means_stored(self):
        for encoder in self.encoders:
            if encoder.finished:
                assert self.decoder.complete
                assert encoder.end == self.length
        if self.decoder.complete:
            assert len(self.decoder.store) == self.length

    def teardown(self):
        """Whatever happened: once the faults end, the stream comes through. If two encoders stopped each other, a person
        starts the one again that came further."""
        self.decoder_is_killed()
        self.decoder.credit = CREDIT
        self.length = self.length if self.length is not None else max(encoder.end for encoder in self.encoders)
        self._work_until_all_stop()
        if not self.decoder.complete:
            assert len(self.encoders) == 2
            furthest = max(self.encoders, key=lambda encoder: encoder.end)
            furthest.restart()
            self._work_until_all_stop()
            assert furthest.finished
        assert self.decoder.complete
        assert len(self.decoder.store) == self.length

    def _work_until_all_stop(self):
        for _ in range(4 * self.length + 20):
            for encoder in self.encoders:
                if encoder.alive:
                    self._work(encoder)
            if not any(encoder.alive for encoder in self.encoders):
                return
        assert not any(encoder.alive for encoder in self.encoders)

    def _work(self, encoder):
        """What an uplink does on a link without faults: fold, send, hear; say hello when an answer is overdue."""
        encoder.end = max(encoder.end, self.length)
        if encoder.session.waiting:
            encoder.send(encoder.session.hello())
        for _ in range(2):
            while self._has_data(encoder):
                encoder.send_next()
            if self._may_end(encoder):
                encoder.send(encoder.session.end(frames_before(encoder.end)))
            while encoder.connection.to_decoder:
                self.decoder.hear(encoder.connection, encoder.connection.to_decoder.pop(0))
            for connection in list(self.decoder.arrived):
                self.decoder.save(connection)
            for connection in encoder.connections:
                while connection.to_encoder and encoder.alive:
                    self._hears(encoder, connection.to_encoder.pop(0))


Link.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLink = Link.TestCase


def test_the_model_numbers_frames_consecutively():
    assert [message(position).first_frame for position in range(9)] == [0, 5, 12, 17, 20, 25, 32, 37, 40]
    assert math.prod(FRAMES) > 0
