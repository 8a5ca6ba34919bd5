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
        assert fields["v"] in (1, 2, 3)
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
    images = {"snapshot": 1, "raw-frames": fields.get("frames"), "audit": fields.get("count")}[fields["type"]]
    assert fields["codec"] == ("bins" if fields.get("quantisation") else "planes")
    numbers, rows = [], 32 * max(1, 2**15 // width)
    for top in range(0, images * height, rows):
        packed = struct.unpack_from("<I", payload, 12)[0]
        numbers += integers(fields["dtype"], fields["shift"], payload[:packed], min(rows, images * height - top), width)
        payload = payload[packed:]
    assert not payload
    return counts(fields, numbers) if fields.get("quantisation") else numbers


def integers(dtype: str, shift: int, payload: bytes, height: int, width: int) -> list[int]:
    planes = blosc2.decompress(payload)
    across, down, size = -(-width // 32), -(-height // 32), height * width
    widths = [8] * (shift // 8) + [width for width in (4, 2, 1) if shift & width]
    pairs, fields = -(-size // 2), sum(-(-size * width // 8) for width in widths)
    whole = struct.calcsize(LETTERS[dtype])
    above = next(k for k in (1, whole) if 2 * pairs + (k - 1) * size + fields + k * across * down == len(planes))
    low, high, rest = planes[:pairs], planes[pairs : 2 * pairs], planes[2 * pairs : 2 * pairs + (above - 1) * size]
    bits = planes[2 * pairs + len(rest) : 2 * pairs + len(rest) + fields]
    means = struct.unpack(f"<{across * down}{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[above] }", planes[-above * across * down :])
    found = []
    for pixel in range(size):
        half = 4 * (pixel % 2)
        residual = (low[pixel // 2] >> half & 15) + 16 * (high[pixel // 2] >> half & 15)
        residual += sum(rest[byte * size + pixel] << 8 * (byte + 1) for byte in range(above - 1))
        mean = means[pixel // width // 32 * across + pixel % width // 32]
        found.append((residual + mean - 8) % 256**above << shift)
        start, below = 0, 0
        for field in widths:
            at = pixel * field
            found[-1] += (bits[start + at // 8] >> at % 8) % 2**field << below
            start, below = start - (-size * field // 8), below + field
    return found


def counts(fields: dict, numbers: list[int]) -> list[int]:
    g, o, s, q = (fields["quantisation"][name] for name in ("gain", "offset", "read_noise", "step"))
    d = 3 / 8 * g**2 + s**2
    v = max(d, 1 / q**2)
    b0 = (o + (v - d) / g) / (q * math.sqrt(v))
    below = lambda b: b * q * math.sqrt(v)  # noqa: E731
    above = lambda b: o + ((math.sqrt(v) + (b - b0) * g * q / 2) ** 2 - d) / g  # noqa: E731
    return [round(below(b) if b <= b0 else above(b)) for b in numbers]
