"""Messages to bytes and back; anything else is refused with RemoteProtocolError and nothing else."""

import struct
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_protocol import payload, wire
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.messages import Ack, Snapshot
from strategies import messages_of_the_link


def sealed(header: dict, body: bytes = b"") -> list[bytes]:
    """A message with a right checksum, whatever is in it."""
    packed = msgpack.packb(header)
    return [packed, body, struct.pack("<I", zlib.crc32(packed + body))]


@given(messages_of_the_link)
def test_every_message_survives_the_wire(message):
    assert wire.decode(wire.encode(message)) == message


@given(messages_of_the_link, st.data())
def test_any_changed_byte_is_noticed(message, data):
    parts = [bytearray(part) for part in wire.encode(message)]
    part = data.draw(st.sampled_from([part for part in parts if part]))
    part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        wire.decode([bytes(part) for part in parts])


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_garbage_is_refused(parts):
    with pytest.raises(RemoteProtocolError):
        wire.decode(parts)


@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), lambda inner: st.lists(inner), max_leaves=5
    ).map(msgpack.packb)
)
def test_a_header_that_is_no_map_is_refused(packed):
    with pytest.raises(RemoteProtocolError, match="expected a map"):
        wire.decode([packed, b"", struct.pack("<I", zlib.crc32(packed))])


def test_unknown_fields_are_ignored():
    assert wire.decode(sealed({"v": 1, "type": "ack", "position": 3, "credit": 4, "colour": "red"})) == Ack(3, 4)


@pytest.mark.parametrize(
    ("header", "body", "named"),
    [
        ({"v": 2, "type": "ack", "position": 3, "credit": 4}, b"", "protocol version is 2, expected 1"),
        ({"type": "ack", "position": 3, "credit": 4}, b"", "protocol version is None"),
        ({"v": 1, "type": "shout"}, b"", "type 'shout' is unknown"),
        ({"v": 1, "type": ["ack"]}, b"", "is unknown"),
        ({"v": 1, "type": "ack", "position": 3}, b"", "ack lacks the field 'credit'"),
        ({"v": 1, "type": "ack", "position": "3", "credit": 4}, b"", "ack.position is '3', expected int"),
        ({"v": 1, "type": "ack", "position": True, "credit": 4}, b"", "ack.position is True"),
        ({"v": 1, "type": "ack", "position": -1, "credit": 4}, b"", "ack.position is -1"),
        ({"v": 1, "type": "ack", "position": 3, "credit": 4}, b"x", "has a payload of 1 bytes"),
    ],
)
def test_a_wrong_header_is_refused_by_name(header, body, named):
    with pytest.raises(RemoteProtocolError, match=named):
        wire.decode(sealed(header, body))


arrays = st.tuples(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]), st.integers(1, 5), st.integers(1, 70), st.integers(0, 99)
)


@given(arrays)
@settings(max_examples=50, deadline=None)
def test_pixels_survive_the_payload(drawn):
    kind, height, width, seed = drawn
    pixels = np.random.default_rng(seed).poisson(9, (height, width)).astype(kind)
    coded = payload.encode(pixels)
    assert np.array_equal(payload.decode(coded, payload.CODEC, pixels.dtype.name, pixels.shape), pixels)


@given(st.binary(max_size=300))
def test_a_payload_of_garbage_is_refused(coded):
    with pytest.raises(RemoteProtocolError):
        payload.decode(coded, payload.CODEC, "uint16", (50, 70))


@pytest.mark.parametrize(
    ("codec", "dtype", "shape", "named"),
    [
        ("zip", "uint16", (50, 70), "codec 'zip'"),
        ("blosc2", "float32", (50, 70), "'float32'"),
        ("blosc2", "uint16", (50, 71), "expected 7100"),
        ("blosc2", "uint16", (10**6, 10**6), "expected 2000000000000"),
    ],
)
def test_a_payload_that_is_not_what_was_promised_is_refused(codec, dtype, shape, named):
    coded = payload.encode(np.zeros((50, 70), np.uint16))
    with pytest.raises(RemoteProtocolError, match=named):
        payload.decode(coded, codec, dtype, shape)


def test_a_truncated_payload_is_refused():
    coded = payload.encode(np.random.default_rng(0).poisson(60, (50, 70)).astype(np.uint16))
    for cut in (coded[:-1], coded[: len(coded) // 2], coded + b"x"):
        with pytest.raises(RemoteProtocolError):
            payload.decode(cut, payload.CODEC, "uint16", (50, 70))


def test_snapshot_headers_are_small():
    coded = wire.encode(Snapshot(10**6, 10**8, 20, 1_700_000_000_000_000_000, "uint16", "blosc2", b""))
    assert sum(map(len, coded)) < 200
