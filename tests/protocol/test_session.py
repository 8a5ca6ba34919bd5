"""The session's two ends step by step; what holds over any interleaving of faults is in `test_session_stateful.py`."""

import pytest

from framefold_protocol import wire
from framefold_protocol.errors import LocalProtocolError, RemoteProtocolError
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
    Stale,
    Welcomed,
)
from framefold_protocol.transitions import State

STREAM = StreamMetadata("0" * 32, "test", (4, 4), "uint8", (MaskSpec(ratio=5),), ("",), 0)


def snapshot(position: int, ratio: int = 5) -> Snapshot:
    return Snapshot(position, position * ratio, ratio, 0, "uint16", "blosc2", bytes([position % 256]))


def streaming(credit: int = 2) -> tuple[EncoderSession, DecoderSession]:
    encoder, decoder = EncoderSession(STREAM), DecoderSession()
    assert decoder.receive(encoder.hello()) == Opened(STREAM, run=1, attempt=1)
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
    assert encoder.receive(decoder.done(3)) == Finished(3)
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
    with pytest.raises(RemoteProtocolError, match="done at position 1, but the stream ends at None") as caught:
        encoder.receive(wire.encode(Done(1)))
    assert caught.value.code == "rollback"


def test_late_answers_after_the_end_change_nothing():
    encoder, decoder = streaming()
    late = wire.encode(Welcome(0, 2))
    decoder.receive(encoder.end(0))
    encoder.hello()
    assert encoder.receive(decoder.done(0)) == Finished(0)
    assert encoder.receive(late) == Finished(0)
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


@pytest.mark.parametrize("message", [Ack(7, 2), Snapshot(0, 0, 5, 0, "uint16", "blosc2", b""), Hello(STREAM)])
def test_the_encoder_refuses_what_cannot_be(message):
    encoder, _ = streaming()
    with pytest.raises(RemoteProtocolError):
        encoder.receive(wire.encode(message))


def test_a_decoder_that_lost_what_it_acknowledged_is_noticed():
    encoder, decoder = streaming()
    encoder.sent(0)
    encoder.receive(decoder.acknowledge(1, 2))
    encoder.hello()
    with pytest.raises(RemoteProtocolError, match="replaced or rolled back") as caught:
        encoder.receive(wire.encode(Welcome(0, 2, attempt=2)))
    assert caught.value.code == "rollback"


def test_an_encoder_that_lost_what_it_sent_is_noticed():
    encoder = EncoderSession(STREAM, start=3, end=5)
    encoder.hello()
    with pytest.raises(RemoteProtocolError, match="only 5 were sent"):
        encoder.receive(wire.encode(Welcome(6, 2, attempt=1)))


def test_an_encoder_started_again_goes_on_where_its_journal_or_the_decoder_is():
    for stored in (3, 4, 5):
        encoder, decoder = EncoderSession(STREAM, start=3, end=5, run=2), DecoderSession()
        assert decoder.receive(encoder.hello()) == Opened(STREAM, run=2, attempt=1)
        assert encoder.receive(decoder.welcome(stored, 5 * stored, 8)) == Welcomed(stored)
        assert (encoder.acknowledged, encoder.next_position) == (stored, stored)
        for position in range(stored, 7):
            encoder.sent(position)


def test_a_stream_that_an_earlier_run_ended_is_finished():
    encoder = EncoderSession(STREAM, start=3, end=5)
    encoder.hello()
    assert encoder.receive(wire.encode(Done(5))) == Finished(5)


@pytest.mark.parametrize("position", [3, 4, 6])
def test_a_stream_that_was_ended_elsewhere_than_the_journal_is_refused(position):
    encoder = EncoderSession(STREAM, start=3, end=5)
    encoder.hello()
    with pytest.raises(RemoteProtocolError, match=f"done at position {position}, but the stream ends at 5"):
        encoder.receive(wire.encode(Done(position)))


def test_the_welcome_to_an_older_hello_changes_nothing():
    encoder, decoder = EncoderSession(STREAM), DecoderSession()
    decoder.receive(encoder.hello())
    late = decoder.welcome(0, 0, 2)
    decoder.receive(encoder.hello())
    assert encoder.receive(late) == Stale()
    assert not encoder.may_send
    newest = decoder.welcome(0, 0, 2)
    assert encoder.receive(newest) == Welcomed(0)
    assert encoder.receive(newest) == Stale()
    assert encoder.may_send


def test_a_late_ack_takes_nothing_back():
    encoder, _ = streaming(credit=2)
    encoder.sent(0)
    encoder.sent(1)
    assert encoder.receive(wire.encode(Ack(2, 2))) == Acknowledged(2)
    assert encoder.receive(wire.encode(Ack(1, 0))) == Acknowledged(2)
    assert encoder.may_send


def test_what_a_welcome_finds_stored_uses_up_no_credit():
    encoder, decoder = EncoderSession(STREAM, start=0, end=4), DecoderSession()
    decoder.receive(encoder.hello())
    encoder.receive(decoder.welcome(3, 15, credit=2))
    assert encoder.acknowledged == 3
    assert encoder.may_send


def test_an_encoder_waits_where_nothing_goes_on_without_an_answer():
    encoder, decoder = EncoderSession(STREAM), DecoderSession()
    assert encoder.waiting
    decoder.receive(encoder.hello())
    encoder.receive(decoder.welcome(0, 0, credit=0))
    assert encoder.waiting  # for credit
    encoder.receive(decoder.acknowledge(0, credit=1))
    assert not encoder.waiting
    encoder.sent(0)
    assert encoder.waiting  # for the ack
    encoder.receive(decoder.acknowledge(1, credit=1))
    assert not encoder.waiting
    encoder.end(5)
    assert encoder.waiting


@pytest.mark.parametrize(
    "make", [lambda: EncoderSession(STREAM), DecoderSession, lambda: streaming()[0], lambda: streaming()[1]]
)
def test_either_side_can_give_up_and_say_why_and_more_than_once(make):
    session = make()
    for _ in range(2):
        said = wire.decode(session.refuse(RemoteProtocolError("no", code="metadata", hint="Correct it")))
        assert said == Error("metadata", "no. Correct it")
        assert session.state is State.FAILED


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
