"""The session's two ends over a link that loses, doubles, reorders and cuts: everything arrives exactly once, in order."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefold_protocol import wire
from framefold_protocol.errors import LocalProtocolError, RemoteProtocolError
from framefold_protocol.journal import MemoryJournal
from framefold_protocol.masks import MaskSpec
from framefold_protocol.messages import Ack, Done, End, Error, Gap, Hello, RawFrames, Snapshot, StreamMetadata, Welcome
from framefold_protocol.session import (
    Acknowledged,
    DecoderSession,
    Duplicate,
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


def snapshot(position: int, ratio: int = 5) -> Snapshot:
    return Snapshot(position, position * ratio, ratio, 0, "uint16", "blosc2", bytes([position % 256]))


class FaultyLink(RuleBasedStateMachine):
    """Two real sessions; the model is the list of what the decoder stored."""

    def __init__(self):
        super().__init__()
        self.encoder = EncoderSession(STREAM)
        self.journal = MemoryJournal(10**9)
        self.to_decoder, self.to_encoder = [], []
        self.stored, self.arrived, self.ended, self.complete = [], [], False, False
        self.decoder = DecoderSession()

    @rule()
    def hello(self):
        if self.encoder.state is not State.DONE:
            self.to_decoder.append(self.encoder.hello())

    @rule()
    def fold_another_group(self):
        if not self.ended:
            self.journal.append(wire.encode(snapshot(self.journal.end)))

    @precondition(lambda self: self.encoder.may_send and self.encoder.next_position < self.journal.end)
    @rule()
    def send(self):
        self.to_decoder.append(self.journal.read(self.encoder.next_position))
        self.encoder.sent(self.encoder.next_position)

    @precondition(lambda self: self.encoder.state is State.STREAMING and self.encoder.next_position == self.journal.end)
    @rule()
    def end(self):
        self.ended = True
        self.to_decoder.append(self.encoder.end(self.journal.end * 5))

    @precondition(lambda self: self.to_decoder)
    @rule(data=st.data())
    def decoder_hears(self, data):
        parts = self.to_decoder.pop(self._drawn(data, self.to_decoder))
        if not parts:
            return
        try:
            self._decoder_handles(self.decoder.receive(parts))
        except RemoteProtocolError as error:
            self.to_encoder.append(self.decoder.refuse(error))
            self.decoder = DecoderSession()
            self.arrived = list(self.stored)

    def _decoder_handles(self, event):
        match event:
            case Opened() if self.complete:
                self.to_encoder.append(self.decoder.done(len(self.stored)))
            case Opened():
                self.to_encoder.append(self.decoder.welcome(len(self.arrived), len(self.arrived) * 5, credit=3))
            case Received(message):
                self.arrived.append(message)
            case Ended():
                self.stored, self.complete = list(self.arrived), True
                self.to_encoder.append(self.decoder.done(len(self.stored)))

    @precondition(lambda self: self.decoder.state in (State.STREAMING, State.ENDING))
    @rule()
    def decoder_stores(self):
        self.stored = list(self.arrived)
        self.to_encoder.append(self.decoder.acknowledge(len(self.stored), credit=3))

    @rule()
    def decoder_is_killed(self):
        self.decoder = DecoderSession()
        self.arrived = list(self.stored)
        self.to_encoder.clear()
        self.to_decoder.clear()

    @rule()
    def link_is_cut(self):
        self.to_encoder.clear()
        self.to_decoder.clear()

    @precondition(lambda self: self.to_decoder)
    @rule(data=st.data())
    def a_message_is_doubled(self, data):
        self.to_decoder.append(data.draw(st.sampled_from(self.to_decoder)))

    @precondition(lambda self: self.to_encoder)
    @rule()
    def encoder_hears(self):
        event = self.encoder.receive(self.to_encoder.pop(0))
        match event:
            case Acknowledged(position):
                self.journal.release(position)
            case Refused(error):
                assert error.retry, error

    def _drawn(self, data, queue):
        """Mostly the first; sometimes a later one overtakes it."""
        return data.draw(st.sampled_from([0] * 5 + list(range(len(queue)))))

    @invariant()
    def stored_exactly_once_in_order(self):
        assert [message.position for message in self.stored] == list(range(len(self.stored)))
        assert [message.first_frame for message in self.stored] == [5 * k for k in range(len(self.stored))]

    @invariant()
    def nothing_is_forgotten_before_it_is_stored(self):
        assert self.journal.start <= len(self.stored)
        if self.encoder.state is State.DONE:
            assert len(self.stored) == self.journal.end

    def teardown(self):
        """Whatever happened: on a link that works again the stream comes through."""
        self.link_is_cut()
        for turn in range(4 * self.journal.end + 20):
            if self.encoder.state is State.DONE:
                break
            if turn == 0 or self.encoder.state in (State.IDLE, State.GREETING):  # at first after the silence of the cut
                self.to_decoder.append(self.encoder.hello())
            while self.encoder.may_send and self.encoder.next_position < self.journal.end:
                self.send()
            if self.encoder.state is State.STREAMING and self.encoder.next_position == self.journal.end:
                self.end()
            while self.to_decoder:
                parts = self.to_decoder.pop(0)
                try:
                    self._decoder_handles(self.decoder.receive(parts))
                except RemoteProtocolError as error:
                    self.to_encoder.append(self.decoder.refuse(error))
                    self.decoder, self.arrived = DecoderSession(), list(self.stored)
            if self.decoder.state is State.STREAMING:
                self.decoder_stores()
            while self.to_encoder:
                self.encoder_hears()
        assert self.encoder.state is State.DONE
        assert len(self.stored) == self.journal.end


FaultyLink.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestFaultyLink = FaultyLink.TestCase


def streaming(credit: int = 2) -> tuple[EncoderSession, DecoderSession]:
    encoder, decoder = EncoderSession(STREAM), DecoderSession()
    assert decoder.receive(encoder.hello()) == Opened(STREAM)
    assert encoder.receive(decoder.welcome(0, 0, credit)) == Welcomed(0)
    return encoder, decoder


def test_credit_bounds_what_is_under_way():
    encoder, decoder = streaming(credit=2)
    encoder.sent(0)
    encoder.sent(1)
    assert not encoder.may_send
    with pytest.raises(LocalProtocolError, match="cannot send position 2"):
        encoder.sent(2)
    encoder.receive(decoder.acknowledge(1, credit=2))
    assert encoder.may_send
    encoder.receive(decoder.acknowledge(1, credit=0))
    assert not encoder.may_send


def test_a_whole_stream():
    encoder, decoder = streaming()
    assert decoder.receive(wire.encode(snapshot(0))) == Received(snapshot(0))
    encoder.sent(0)
    assert decoder.receive(wire.encode(Gap(1, 5, 7, "disk full"))) == Received(Gap(1, 5, 7, "disk full"))
    encoder.sent(1)
    encoder.receive(decoder.acknowledge(2, 2))
    raw = RawFrames(2, 12, 3, 0, "uint8", "blosc2", b"")
    assert decoder.receive(wire.encode(raw)) == Received(raw)
    encoder.sent(2)
    assert decoder.receive(encoder.end(15)) == Ended(End(3, 15))
    assert encoder.receive(decoder.done(3)) == Finished()
    assert encoder.state is decoder.state is State.DONE


def test_what_came_before_is_a_duplicate():
    _, decoder = streaming()
    decoder.receive(wire.encode(snapshot(0)))
    assert decoder.receive(wire.encode(snapshot(0))) == Duplicate(0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (snapshot(1), "sequence-jump"),
        (Snapshot(0, 5, 5, 0, "uint16", "blosc2", b""), "sequence-jump"),
        (Gap(0, 0, 0, ""), "malformed"),
        (End(1, 5), "sequence-jump"),
        (End(0, 5), "sequence-jump"),
        (Ack(0, 1), "out-of-turn"),
        (Welcome(0, 1), "out-of-turn"),
        (Done(0), "out-of-turn"),
        (Hello(StreamMetadata("1" * 32, "other", (4, 4), "uint8", (MaskSpec(),), ("",), 0)), "out-of-turn"),
    ],
)
def test_the_decoder_refuses_what_does_not_follow(message, code):
    _, decoder = streaming()
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.receive(wire.encode(message))
    assert caught.value.code == code


def test_data_without_a_session_may_be_tried_again_after_a_hello():
    with pytest.raises(RemoteProtocolError) as caught:
        DecoderSession().receive(wire.encode(snapshot(0)))
    assert caught.value.retry
    assert caught.value.code == "no-session"


def test_a_done_before_the_end_was_sent_is_refused():
    encoder, _ = streaming()
    encoder.sent(0)
    with pytest.raises(RemoteProtocolError, match="done at position 1, but the stream ends at None"):
        encoder.receive(wire.encode(Done(1)))


def test_late_answers_after_the_end_change_nothing():
    encoder, decoder = streaming()
    late = wire.encode(Welcome(0, 2))
    decoder.receive(encoder.end(0))
    encoder.hello()
    assert encoder.receive(decoder.done(0)) == Finished()
    assert encoder.receive(late) == Finished()
    assert encoder.state is State.DONE


def test_several_messages_to_a_restarted_decoder_cost_one_hello():
    encoder, _ = streaming(credit=3)
    restarted, answers = DecoderSession(), []
    for position in range(3):
        encoder.sent(position)
        with pytest.raises(RemoteProtocolError) as caught:
            restarted.receive(wire.encode(snapshot(position)))
        answers.append(restarted.refuse(caught.value))
        restarted = DecoderSession()
    assert isinstance(encoder.receive(answers[0]), Refused)
    restarted.receive(encoder.hello())
    for late in answers[1:]:
        assert isinstance(encoder.receive(late), Refused)
    assert encoder.receive(restarted.welcome(0, 0, 3)) == Welcomed(0)


def test_data_after_the_end_is_refused():
    encoder, decoder = streaming()
    decoder.receive(encoder.end(0))
    with pytest.raises(RemoteProtocolError, match="after the end"):
        decoder.receive(wire.encode(snapshot(0)))


@pytest.mark.parametrize("message", [Welcome(7, 2), Ack(7, 2), Snapshot(0, 0, 5, 0, "uint16", "blosc2", b""), Hello(STREAM)])
def test_the_encoder_refuses_what_cannot_be(message):
    encoder, _ = streaming()
    with pytest.raises(RemoteProtocolError):
        encoder.receive(wire.encode(message))


def test_a_decoder_that_lost_what_it_acknowledged_is_noticed():
    encoder, decoder = streaming()
    encoder.sent(0)
    encoder.receive(decoder.acknowledge(1, 2))
    encoder.hello()
    with pytest.raises(RemoteProtocolError, match="replaced or rolled back"):
        encoder.receive(wire.encode(Welcome(0, 2)))


def test_an_error_ends_the_session_and_a_retry_does_not():
    encoder, _ = streaming()
    retry = Error("no-session", "say hello", retry=True)
    assert encoder.receive(wire.encode(retry)) == Refused(retry)
    assert encoder.state is State.IDLE
    encoder.hello()
    final = Error("mask-hash", "other masks")
    assert encoder.receive(wire.encode(final)) == Refused(final)
    with pytest.raises(LocalProtocolError, match="cannot send hello while the session is failed"):
        encoder.hello()


def test_the_journal_keeps_what_is_not_released():
    journal = MemoryJournal(limit_bytes=10)
    positions = [journal.append([np.full(4, k, np.uint8).tobytes()]) for k in range(3)]
    assert positions == [0, 1, 2]
    assert journal.full
    journal.release(2)
    assert (journal.start, journal.end, journal.full) == (2, 3, False)
    assert journal.read(2) == [b"\2\2\2\2"]
    for position in (1, 3):
        with pytest.raises(LocalProtocolError, match=f"not {position}"):
            journal.read(position)
    journal.release(99)
    assert (journal.start, journal.end) == (3, 3)
