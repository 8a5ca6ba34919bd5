"""Ways to spoil a message: its parts, its bytes, its fields, what its payload says of itself. Seeded, so that a run repeats.

Most spoilt messages get a right checksum again: else nothing behind the checksum would ever be reached.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack

Parts = list[bytes]

_HOSTILE: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        7,
        255,
        256,
        257,
        4097,
        65535,
        65536,
        2**31,
        2**32 - 1,
        2**53,
        2**63,
        2**64 - 1,
        -1,
        -(2**63),
    ),
    *(0.0, -0.0, 1.0, 0.5, 1e300, 5e-324, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "a",
        "0" * 32,
        "uint8",
        "uint16",
        "uint64",
        "float64",
        "blosc2",
        "anscombe",
        "file",
        "ones",
        "../x",
        "\0",
        "µ" * 3000,
    ),
    *(b"", b"\0", b"\xff" * 9, b"\0" * 1000, [], [[]], [0] * 1024, [4, 6], [4096, 4096], [65535] * 2, [1, 2, 3], [2, 1]),
    *({}, {"v": 1}, [{}] * 300, {"": {"": {"": {}}}}, msgpack.ExtType(5, b"xyz"), msgpack.Timestamp(1, 2)),
]
_SIZES = (0, 1, 31, 32, 33, 48, 2**16, 2**20, 2**27, 2**31 - 33, 2**31 - 1, 2**31, 2**32 - 1)
_BOMBS = [
    *(b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(
        b"\x91" * 3000,
        b"\x81\xa1v" * 1000,
        b"\xc9\xff\xff\xff\xff\0",
        b"\xc1",
        b"",
        b"\x80",
        b"\xd4\xff\0",
        b"\xd7" + b"\xff" * 9,
    ),
]
_TYPES = ["hello", "welcome", "snapshot", "raw-frames", "audit", "gap", "ack", "end", "done", "error", "shout", ""]


def seal(header: bytes, payload: bytes) -> Parts:
    """A message with a right checksum."""
    return [header, payload, struct.pack("<I", zlib.crc32(payload, zlib.crc32(header)))]


class Mutator:
    """Spoils messages, one to three ways each."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def spoil(self, parts: Parts) -> Parts:
        """Another message, or no message any more."""
        ways = self._chance.choices(_WAYS, _WEIGHTS, k=self._chance.choice((1, 1, 1, 2, 3)))
        for way in ways:
            parts = way(self, parts) if len(parts) == 3 else parts
        return parts

    def _fields(self, parts: Parts) -> Parts:
        """A field changed, lost, doubled under another name, or a new one; at any depth."""
        try:
            header = msgpack.unpackb(parts[0], strict_map_key=False)
        except Exception:  # spoilt before
            return parts
        if isinstance(header, dict) and header:
            self._change(header)
        return seal(_pack(header, parts[0]), parts[1])

    def _change(self, node: Any) -> None:
        chance = self._chance
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            place = chance.choice(places)
            inner = node[place]
            if not (isinstance(inner, dict | list) and inner and chance.random() < 0.8):
                break
            node = inner
        kind = chance.random()
        if kind < 0.6:
            node[place] = chance.choice(_HOSTILE)
        elif kind < 0.7 and isinstance(inner, int):
            node[place] = inner + chance.choice((-1, 1, 2, 64, 2**32))
        elif kind < 0.8:
            del node[place]
        elif kind < 0.9 and isinstance(node, dict):
            node[chance.choice(["x", "", b"x", 3, "versions", "payload", "v", "type", "position", "run"])] = chance.choice(
                _HOSTILE
            )
        elif isinstance(node, list):
            node.append(chance.choice([inner, *_HOSTILE]))

    def _type(self, parts: Parts) -> Parts:
        """The fields of one type under another type's name, or version."""
        try:
            header = msgpack.unpackb(parts[0], strict_map_key=False)
        except Exception:
            return parts
        if isinstance(header, dict):
            name = self._chance.choice(("type", "type", "v"))
            header[name] = self._chance.choice(_TYPES if name == "type" else [0, 1, 2, 3, 255, 2**64 - 1, None, "1"])
        return seal(_pack(header, parts[0]), parts[1])

    def _header_bytes(self, parts: Parts) -> Parts:
        return seal(self._bytes(parts[0]), parts[1])

    def _payload_bytes(self, parts: Parts) -> Parts:
        """Anywhere, or where a Blosc2 chunk says what it is and how large."""
        payload = bytearray(parts[1])
        if len(payload) >= 32 and self._chance.random() < 0.5:
            if self._chance.random() < 0.5:
                payload[self._chance.randrange(32)] = self._chance.choice((0, 1, 5, 0x10, 0x20, 0x7F, 0x80, 0xFF))
            else:
                size = self._chance.choice(
                    (0, 1, 31, 32, 33, 255, 2**16, 2**31 - 33, 2**31 - 1, 2**31, 2**32 - 1, len(payload))
                )
                struct.pack_into("<I", payload, self._chance.choice((4, 8, 12)), size)
            return seal(parts[0], bytes(payload))
        return seal(parts[0], self._bytes(parts[1]))

    def _zeros(self, parts: Parts) -> Parts:
        """A chunk of 32 bytes that stands for any number of zeros, and a header that says so too."""
        pixels = self._chance.choice((24, 48))
        size = self._chance.choice(_SIZES) // pixels * pixels
        chunk = b"\5\1\x95\1" + struct.pack("<III", size, min(size, 2**19), 32) + bytes(6) + b"\5" + bytes(8) + b"\x10"
        try:
            header = msgpack.unpackb(parts[0])
            header |= {name: size // pixels for name in ("frames", "count") if name in header}
        except Exception:
            return seal(parts[0], chunk)
        return seal(_pack(header, parts[0]), chunk)

    def _unsealed(self, parts: Parts) -> Parts:
        """A changed bit that the checksum must notice."""
        which = self._chance.randrange(3)
        return [self._bytes(part) if index == which else part for index, part in enumerate(parts)]

    def _parts(self, parts: Parts) -> Parts:
        """Other than three parts, or in another order."""
        return self._chance.choice(
            ([], parts[:1], parts[:2], [*parts, b""], parts[::-1], [parts[0], b"", parts[2]], parts * 100)
        )

    def _bomb(self, parts: Parts) -> Parts:
        """A header, or the end of one, that claims to be huge or deep."""
        bomb = self._chance.choice(_BOMBS)
        opened = bytes([min(parts[0][0] + 1, 0x8F)]) + parts[0][1:] + b"\xa1x" if parts[0] else b""
        return seal(self._chance.choice((bomb, opened + bomb)), parts[1])

    def _bytes(self, data: bytes) -> bytes:
        """Bits flipped, bytes lost, put in, doubled; or noise."""
        chance, changed = self._chance, bytearray(data)
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 | 1 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                del changed[at : at + chance.choice((1, 1, 4, 1000))]
            case 3:
                changed[at:at] = chance.randbytes(chance.choice((1, 1, 4, 40)))
            case 4:
                changed[at:at] = changed[at : at + 16]
            case 5:
                changed[at : at + 8] = chance.randbytes(8)
        return bytes(changed)


_WAYS: list[Callable[[Mutator, Parts], Parts]] = [
    Mutator._fields,
    Mutator._type,
    Mutator._header_bytes,
    Mutator._payload_bytes,
    Mutator._zeros,
    Mutator._unsealed,
    Mutator._parts,
    Mutator._bomb,
]
_WEIGHTS = [50, 8, 14, 14, 1, 5, 3, 5]


def _pack(header: Any, otherwise: bytes) -> bytes:
    try:
        packed: bytes = msgpack.packb(header)
    except (ValueError, OverflowError):  # an integer that msgpack does not have
        return otherwise
    return packed
