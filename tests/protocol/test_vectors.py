"""The messages of `protocol/vectors/` read and written, and the bytes there that must be refused."""

import json
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import msgpack
import pytest

from framefold_protocol import wire
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.messages import Message

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "messages.json").read_text())


def parts(case: dict) -> wire.Parts:
    return [bytes.fromhex(part) for part in case["parts"]]


def plain(value: object) -> object:
    """Bytes in hex, as the vectors have them."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value


def built(fields: dict) -> wire.Message:
    """The message of such fields, not of the bytes beside them."""
    values = {name: bytes.fromhex(value) if name == "block_map" and value else value for name, value in fields.items()}
    payload = bytes.fromhex(values.pop("payload", ""))
    header = msgpack.packb({"v": 3} | values)
    return wire.decode([header, payload, struct.pack("<I", zlib.crc32(header + payload))])


@pytest.mark.parametrize("case", VECTORS["messages"] + VECTORS["read_only"], ids=lambda case: case["what"])
def test_the_bytes_are_read_as_the_fields(case):
    message = wire.decode(parts(case))
    assert plain(asdict(message)) | {"type": case["fields"]["type"]} == case["fields"]
    assert message == built(case["fields"])


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: case["what"])
def test_the_fields_are_written_as_the_bytes(case):
    assert wire.encode(built(case["fields"]), version=3) == parts(case)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_what_must_be_refused_is_refused_by_its_code(case):
    with pytest.raises(RemoteProtocolError) as caught:
        wire.decode(parts(case))
    assert caught.value.code == case["code"]


def test_every_message_has_a_vector():
    assert {type(wire.decode(parts(case))) for case in VECTORS["messages"]} == set(get_args(Message))
