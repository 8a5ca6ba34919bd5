"""Peers of different protocol versions: they settle on one that both speak, or say clearly that there is none.

Version 2 brought audit groups, version 3 payloads in planes; a decoder of version 1 is one that reads no other.
"""

import struct
import zlib
from dataclasses import replace

import msgpack
import pytest

from framefold_protocol import wire
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.messages import Audit, End, Error, Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.session import (
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
from framefold_protocol.wire import Reader

STREAM = StreamMetadata("0" * 32, "test", (4, 4), "uint8", (MaskSpec(ratio=5),), ("",), 0)
OLD, BOTH, NEW = Reader(versions=(1, 1)), Reader(versions=(1, 2)), Reader(versions=(2, 2))


def version(parts: wire.Parts) -> int:
    return msgpack.unpackb(parts[0])["v"]


def from_the_future(parts: wire.Parts) -> wire.Parts:
    """The same message with a field more, of a type that none has today."""
    header = msgpack.packb(msgpack.unpackb(parts[0]) | {"mood": {"of": ["the", b"day", 0.5]}})
    return [header, parts[1], struct.pack("<I", zlib.crc32(parts[1], zlib.crc32(header)))]


def refusal(session, parts: wire.Parts) -> wire.Parts:
    """What the session answers to a message that it must refuse."""
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive(parts)
    return session.refuse(caught.value)


def stream_one_snapshot(encoder: EncoderSession, decoder: DecoderSession, spoken: int) -> None:
    """From a decoder that was just greeted to the end of the stream; all of it in this version."""
    said = [decoder.welcome(0, 0, 2)]
    assert encoder.receive(from_the_future(said[-1])) == Welcomed(0)
    said.append(wire.encode(Snapshot(0, 0, 5, 0, "uint16", "blosc2", b""), encoder.version))
    encoder.sent(0)
    decoder.receive(from_the_future(said[-1]))
    said.append(decoder.acknowledge(1, 2))
    encoder.receive(said[-1])
    said.append(encoder.end(5))
    decoder.receive(said[-1])
    said.append(decoder.done(1))
    assert encoder.receive(said[-1]) == Finished(1)
    assert {version(parts) for parts in said} == {spoken}


def test_two_of_the_newest_speak_the_newest():
    encoder, decoder = EncoderSession(STREAM, reader=BOTH), DecoderSession(BOTH)
    assert decoder.receive(encoder.hello()) == Opened(STREAM, 1, 1)
    stream_one_snapshot(encoder, decoder, spoken=2)


def test_a_newer_decoder_answers_an_older_encoder_in_its_version():
    encoder, decoder = EncoderSession(STREAM, reader=OLD), DecoderSession(BOTH)
    assert decoder.receive(encoder.hello()) == Opened(STREAM, 1, 1)
    stream_one_snapshot(encoder, decoder, spoken=1)


def test_a_newer_encoder_goes_down_to_an_older_decoders_version():
    encoder = EncoderSession(STREAM, reader=BOTH)
    hello = encoder.hello()
    assert version(hello) == 2
    event = encoder.receive(refusal(DecoderSession(OLD), hello))
    assert isinstance(event, Refused)
    assert event.error.retry
    assert event.error.versions == (1, 1)
    decoder = DecoderSession(OLD)
    assert decoder.receive(encoder.hello()) == Opened(STREAM, 1, 2)
    stream_one_snapshot(encoder, decoder, spoken=1)


@pytest.mark.parametrize(("ours", "theirs"), [(OLD, NEW), (NEW, OLD)])
def test_without_a_common_version_the_encoder_is_told_which_there_are(ours, theirs):
    encoder = EncoderSession(STREAM, reader=ours)
    event = encoder.receive(from_the_future(refusal(DecoderSession(theirs), encoder.hello())))
    assert isinstance(event, Refused)
    assert event.error.code == "version"
    assert not event.error.retry
    assert event.error.versions == theirs.versions
    assert f"version is {ours.versions[1]}, expected {theirs.versions[0]} to {theirs.versions[1]}" in event.error.message
    assert encoder.state is State.FAILED


def test_a_decoder_that_becomes_older_in_mid_stream_is_followed():
    encoder, decoder = EncoderSession(STREAM, reader=BOTH), DecoderSession(BOTH)
    decoder.receive(encoder.hello())
    encoder.receive(decoder.welcome(0, 0, 8))
    late = []
    for position in range(3):
        data = Snapshot(position, 5 * position, 5, 0, "uint16", "blosc2", b"")
        late.append(refusal(DecoderSession(OLD), wire.encode(data, encoder.version)))
        encoder.sent(position)
    assert encoder.receive(late[0]).error.retry
    hello = encoder.hello()
    assert encoder.receive(late[1]).error.retry  # of what was sent before: changes nothing
    assert encoder.receive(late[2]).error.retry
    assert version(hello) == 1
    older = DecoderSession(OLD)
    older.receive(hello)
    assert encoder.receive(older.welcome(0, 0, 2)) == Welcomed(0)


def test_data_that_the_agreed_version_cannot_read_ends_the_stream_instead_of_looping():
    encoder = EncoderSession(STREAM, reader=OLD)
    decoder = DecoderSession(OLD)
    decoder.receive(encoder.hello())
    encoder.receive(decoder.welcome(0, 0, 2))
    answer = refusal(decoder, wire.encode(Snapshot(0, 0, 5, 0, "", "", b""), 2))
    assert not encoder.receive(answer).error.retry
    assert encoder.state is State.FAILED


@pytest.mark.parametrize("said", [0, 3, 2**63, None, True, 1.0, "1", -1])
def test_a_message_of_an_unknown_version_is_refused_and_an_error_is_heard(said):
    def sealed(header):
        packed = msgpack.packb(header)
        return [packed, b"", struct.pack("<I", zlib.crc32(packed))]

    with pytest.raises(RemoteProtocolError) as caught:
        BOTH.read(sealed({"v": said, "type": "ack", "position": 1, "credit": 1}))
    assert caught.value.code == "version"
    error = {"v": said, "type": "error", "code": "version", "message": "no", "retry": False, "versions": [3, 4], "more": 1}
    if type(said) is int and said >= 0:
        assert BOTH.read(sealed(error)) == (said, Error("version", "no", False, (3, 4)))
    else:
        with pytest.raises(RemoteProtocolError, match="protocol version is"):
            BOTH.read(sealed(error))


def test_a_message_is_written_in_the_lowest_version_that_has_it():
    pixels = ("uint8", "blosc2", b"")
    for one in (Snapshot(0, 0, 5, 0, "uint16", "planes", b""), Audit(0, 0, 5, 0, "uint8", "planes", b"")):
        assert version(wire.encode(one)) == 3
    assert version(wire.encode(Snapshot(0, 0, 5, 0, "uint16", "blosc2", b""))) == 1
    assert version(wire.encode(RawFrames(0, 0, 5, 0, *pixels))) == version(wire.encode(Gap(0, 0, 1, ""))) == 1
    assert version(wire.encode(Audit(0, 0, 5, 0, *pixels))) == 2


def test_a_stream_with_audit_groups_is_not_sent_to_a_decoder_that_does_not_know_them():
    encoder = EncoderSession(replace(STREAM, audit=3))
    event = encoder.receive(refusal(DecoderSession(OLD), encoder.hello()))
    assert isinstance(event, Refused)
    assert not event.error.retry
    assert "version is 3, expected 1 to 1. Update framefold" in event.error.message
    plain = EncoderSession(STREAM)
    assert plain.receive(refusal(DecoderSession(OLD), plain.hello())).error.retry


def test_audit_frames_take_a_position_and_add_no_frames():
    stream = replace(STREAM, audit=1)
    encoder, decoder = EncoderSession(stream), DecoderSession()
    decoder.receive(encoder.hello())
    encoder.receive(decoder.welcome(0, 0, 8))
    audit = Audit(0, 0, 3, 7, "uint8", "blosc2", b"")
    for message in (audit, replace(audit, position=1, count=2), Snapshot(2, 0, 5, 7, "uint16", "blosc2", b"")):
        assert decoder.receive(wire.encode(message)) == Received(message)
        encoder.sent(message.position)
    assert decoder.receive(wire.encode(audit)) == Duplicate(0)
    with pytest.raises(RemoteProtocolError, match="first frame 0, expected 5"):
        decoder.receive(wire.encode(replace(audit, position=3)))
    assert decoder.receive(encoder.end(5)) == Ended(End(3, 5))
