"""Messages to bytes and back; anything else is refused with RemoteProtocolError and nothing else."""

import struct
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold_protocol import wire
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
        ({"v": 4, "type": "ack", "position": 3, "credit": 4}, b"", "protocol version is 4, expected 1 to 3"),
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


def test_snapshot_headers_are_small():
    coded = wire.encode(Snapshot(10**6, 10**8, 20, 1_700_000_000_000_000_000, "uint16", "blosc2", b""))
    assert sum(map(len, coded)) < 200
