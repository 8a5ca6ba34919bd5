"""The image and video coders, each tuned until it takes as many bytes as framefold did.

Bisection over the coder's own quality setting: the first one that takes no fewer bytes. So a rival may take up to one step
more, never less, unless it cannot take more. Headers that are alike in every frame of JPEG and JPEG 2000 are not counted.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bandwidth_parts.rivals import Unavailable, decode_video, each, each_back, encode_video

Counts = npt.NDArray[np.unsignedinteger]
STRIDE = 16
"""Values of a knob."""


@dataclass(frozen=True)
class Codec:
    """A coder with a knob."""

    name: str
    setting: str
    """What the knob is, `{}` for its value."""
    values: Sequence[float]
    """Of the knob; bytes grow along them."""
    encode: Callable[[Counts, float], list[bytes]]
    decode: Callable[[list[bytes]], Counts]
    data_marker: bytes = b""
    """What ends the header of each frame; empty: every byte counts."""

    def size(self, coded: list[bytes]) -> int:
        """Bytes that count."""
        return sum(len(one) - max(one.find(self.data_marker), 0) for one in coded)


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came out."""

    frames: Counts
    sent_bytes: int
    setting: str
    cpu_s: float
    """Of the one encoding that counts."""


def codecs() -> list[Codec]:
    """All of them; a missing library shows only when one is used."""
    return [
        Codec("JPEG", "quality {:g}", range(1, 101), _jpeg, partial(each_back, "jpeg8_decode"), b"\xff\xda"),
        Codec("JPEG 2000", "{:g} dB", np.arange(10, 80, 0.5), _jpeg_2000, partial(each_back, "jpeg2k_decode"), b"\xff\x93"),
        _video("HEVC", "x265", "medium", "hevc", np.arange(51, -0.1, -0.5)),
        _video("AV1", "SVT-AV1", "8", "libdav1d", range(63, 0, -1)),
    ]


def tune(codec: Codec, counts: Counts, allowed_bytes: int) -> Tuned:
    """Code (T, H, W) counts. Raises `Unavailable` when a library is missing or cannot hold the counts."""
    coded: dict[int, list[bytes]] = {}

    def size(index: int) -> int:
        if index not in coded:
            coded[index] = codec.encode(counts, codec.values[index])
        return codec.size(coded[index])

    # From the cheap end in strides: what takes many bytes takes long, too.
    last = len(codec.values) - 1
    high = next((k for k in range(0, last, STRIDE) if size(k) >= allowed_bytes), last)
    index = bisect_left(range(high), allowed_bytes, lo=max(0, high - STRIDE), key=size)
    start = time.process_time()
    found = codec.encode(counts, codec.values[index])
    cpu_s = time.process_time() - start
    return Tuned(codec.decode(found), codec.size(found), codec.setting.format(codec.values[index]), cpu_s)


def _jpeg(counts: Counts, quality: float) -> list[bytes]:
    if counts.max(initial=0) > 4095:
        raise Unavailable("JPEG holds 12 bits a pixel at most")
    return each("jpeg8_encode", counts, level=int(quality))


def _jpeg_2000(counts: Counts, quality: float) -> list[bytes]:
    return each("jpeg2k_encode", counts, level=float(quality), reversible=False, numthreads=1)


def _video(name: str, encoder: str, preset: str, decoder: str, crfs: Sequence[float] | npt.NDArray[Any]) -> Codec:
    def encode(counts: Counts, crf: float) -> list[bytes]:
        return encode_video(encoder, preset, crf, counts)

    return Codec(name, f"{encoder} preset {preset}, crf {{:g}}", list(map(float, crfs)), encode, partial(decode_video, decoder))
