"""Reads a captured stream, written from SPEC.md alone: nothing of framefold, no numpy; msgpack, zlib, blosc2.

    stream, groups = read(captured)     # the multiparts an encoder sent, in any order it may send them

A group is its header, and its numbers: sums of a snapshot, counts of raw frames or of an audit; nothing of a gap.
"""

import math
import struct
import zlib

import blosc2
import msgpack

LETTERS = {"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"}


def read(captured: list[list[bytes]]) -> tuple[dict, list[tuple[dict, list[int]]]]:
    stream, groups, frames, ended = None, [], 0, False
    for header, payload, checksum in captured:
        assert struct.pack("<I", zlib.crc32(header + payload)) == checksum
        fields = msgpack.unpackb(header)
        assert fields["v"] in (1, 2)
        if fields["type"] == "hello":
            stream = stream or fields["stream"]
            assert fields["stream"] == stream
        elif fields["type"] == "end":
            assert (fields["position"], fields["frames"]) == (len(groups), frames)
            ended = True
        elif fields["position"] >= len(groups):  # else it was sent before
            assert (fields["position"], fields["first_frame"]) == (len(groups), frames)
            frames += 0 if fields["type"] == "audit" else fields["frames"]
            groups.append((fields, pixels(fields, payload, *stream["shape"])))
    assert ended
    return stream, groups


def pixels(fields: dict, payload: bytes, height: int, width: int) -> list[int]:
    if fields["type"] == "gap":
        return []
    if fields["codec"] == "anscombe":
        return counts(fields, bins(fields["dtype"], payload, height, width))
    images = {"snapshot": 1, "raw-frames": fields.get("frames"), "audit": fields.get("count")}[fields["type"]]
    values, rest = chunk(payload, fields["dtype"], images * height * width)
    assert not rest
    return [(value + fields["base"]) % 256 ** struct.calcsize(LETTERS[fields["dtype"]]) for value in values]


def chunk(payload: bytes, dtype: str, length: int) -> tuple[tuple[int, ...], bytes]:
    """The numbers in the first chunk, and what is behind it."""
    size, packed = struct.unpack_from("<I4xI", payload, 4)
    decoded = blosc2.decompress(payload[:packed])
    assert len(decoded) == size == length * struct.calcsize(LETTERS[dtype])
    return struct.unpack(f"<{length}{LETTERS[dtype]}", decoded), payload[packed:]


def bins(dtype: str, payload: bytes, height: int, width: int) -> list[int]:
    across, pairs = -(-width // 32), -(-height * width // 2)
    blocks = -(-height // 32) * across
    kind = "uint8" if struct.unpack_from("<I", payload, 4)[0] == blocks else dtype
    means, payload = chunk(payload, kind, blocks)
    low, payload = chunk(payload, "uint8", pairs)
    high, payload = chunk(payload, "uint8", pairs)
    rest = chunk(payload, kind, height * width)[0] if kind != "uint8" else [0] * (height * width)
    found = []
    for pixel in range(height * width):
        shift = 4 * (pixel % 2)
        residual = (low[pixel // 2] >> shift & 15) + 16 * (high[pixel // 2] >> shift & 15) + 256 * rest[pixel]
        mean = means[pixel // width // 32 * across + pixel % width // 32]
        found.append((residual + mean - 8) % 256 ** struct.calcsize(LETTERS[kind]))
    return found


def counts(fields: dict, numbers: list[int]) -> list[int]:
    g, o, s, q = (fields["quantisation"][name] for name in ("gain", "offset", "read_noise", "step"))
    d = 3 / 8 * g**2 + s**2
    v = max(d, 1 / q**2)
    b0 = (o + (v - d) / g) / (q * math.sqrt(v))
    below = lambda b: b * q * math.sqrt(v)  # noqa: E731
    above = lambda b: o + ((math.sqrt(v) + (b - b0) * g * q / 2) ** 2 - d) / g  # noqa: E731
    return [round(below(b) if b <= b0 else above(b)) for b in numbers]
