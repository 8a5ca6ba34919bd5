"""The coders a facility might use instead: what each makes of single frames or of a movie. One thread each.

Lossless ones must keep the shot noise, so none gets far below its entropy. Lossy ones are as good as what they leave over: each
row says how far the decoded counts are from the delivered ones, in units of the shot noise's sigma (0: lossless, 1: the noise
is gone, and whatever hid in it), and where the truth is known, their PSNR against it. JPEG codes 12 bits where 8 are too few.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import blosc2
import numpy as np

from bandwidth_parts.material import Counts

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells of errors only


class Unavailable(Exception):
    """Why a coder cannot be measured here: a library that is missing, or frames it cannot hold."""


@dataclass(frozen=True)
class Rival:
    """One coder. `encode` takes (T, H, W) counts; `decode` takes its result and returns counts of that shape."""

    name: str
    setting: str
    lossless: bool
    encode: Callable[[Counts], list[bytes]]
    decode: Callable[[list[bytes]], Counts] | None = None
    """None where the result is exact by construction."""


def rivals() -> list[Rival]:
    """All of them; a missing library shows only when one is used."""
    return [
        Rival("raw", "as delivered", True, lambda frames: [frame.tobytes() for frame in frames]),
        Rival("zstd", "byte shuffle, level 1", True, zstd),
        Rival("bitshuffle-LZ4", "Blosc2", True, bitshuffle_lz4),
        Rival("JPEG", "libjpeg-turbo, quality 75", False, jpeg, partial(each_back, "jpeg8_decode")),
        Rival("JPEG 2000", "OpenJPEG, reversible", True, jpeg_2000, partial(each_back, "jpeg2k_decode")),
        Rival("JPEG-LS", "CharLS", True, partial(each, "jpegls_encode", level=0), partial(each_back, "jpegls_decode")),
        *(_video("HEVC", "x265", "hevc", crf) for crf in (18, 28)),
        *(_video("AV1", "SVT-AV1", "libdav1d", crf) for crf in (20, 35)),
    ]


def error_in_sigma(decoded: Counts, counts: Counts, gain: float) -> float:
    """RMS difference of decoded and delivered counts over the RMS of their shot noise."""
    return float(np.sqrt(np.mean((decoded.astype(np.float32) - counts) ** 2) / (gain * max(float(counts.mean()), 1e-9))))


def zstd(frames: Counts) -> list[bytes]:
    """Byte shuffle and zstd, as framefold codes its snapshots."""
    return [_blosc(frame, blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE, 1) for frame in frames]


def bitshuffle_lz4(frames: Counts) -> list[bytes]:
    """Bitshuffle and LZ4, as DECTRIS detectors and many HDF5 files do."""
    return [_blosc(frame, blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE, 5) for frame in frames]


def jpeg(frames: Counts) -> list[bytes]:
    """libjpeg-turbo at quality 75; 12 bits where 8 are too few."""
    if frames.max(initial=0) > 4095:
        raise Unavailable("JPEG holds 12 bits a pixel at most")
    return each("jpeg8_encode", frames, level=75)


def jpeg_2000(frames: Counts) -> list[bytes]:
    """OpenJPEG, reversible 5/3 wavelet."""
    return each("jpeg2k_encode", frames, level=0, reversible=True, numthreads=1)


def each(function: str, frames: Counts, **options: Any) -> list[bytes]:
    """Single frames by an encoder of imagecodecs."""
    encode = getattr(_library("imagecodecs"), function)
    return [bytes(encode(frame, **options)) for frame in frames]


def each_back(function: str, coded: Sequence[bytes]) -> Counts:
    """Single frames back by a decoder of imagecodecs."""
    decode = getattr(_library("imagecodecs"), function)
    return np.stack([decode(one) for one in coded])


def _blosc(frame: Counts, codec: blosc2.Codec, shuffle: blosc2.Filter, level: int) -> bytes:
    packed: bytes = blosc2.compress2(
        np.ascontiguousarray(frame), codec=codec, filters=[shuffle], clevel=level, typesize=frame.itemsize, nthreads=1
    )
    return packed


def _video(name: str, encoder: str, decoder: str, crf: int) -> Rival:
    preset = "fast" if encoder == "x265" else "10"
    encode = partial(encode_video, encoder, preset, crf)
    return Rival(f"{name} crf {crf}", f"{encoder} preset {preset}", False, encode, partial(decode_video, decoder))


def encode_video(encoder: str, preset: str, crf: float, frames: Counts) -> list[bytes]:
    """A movie by `x265` or `SVT-AV1` on one thread; crf of SVT-AV1 are whole numbers."""
    av = _library("av")
    try:
        context = av.CodecContext.create({"x265": "libx265", "SVT-AV1": "libsvtav1"}[encoder], "w")
    except ValueError as error:  # PyAV built without it
        raise Unavailable(f"this PyAV has no {encoder}") from error
    context.height, context.width = frames.shape[1:]
    context.pix_fmt = _pixel_format(encoder, int(frames.max()).bit_length())
    context.framerate, context.time_base, context.thread_count = 25, Fraction(1, 25), 1
    one_thread = {"x265-params": "pools=1:frame-threads=1:log-level=error"} if encoder == "x265" else {"svtav1-params": "lp=1"}
    context.options = {"preset": preset, "crf": str(crf), **one_thread}
    packets = []
    for index, frame in enumerate(frames):
        packets += context.encode(_picture(av, frame, context.pix_fmt, index))
    return [bytes(packet) for packet in packets + context.encode(None)]


def _pixel_format(encoder: str, bits: int) -> str:
    formats = {"x265": ((8, "gray"), (10, "gray10le"), (12, "gray12le")), "SVT-AV1": ((8, "yuv420p"), (10, "yuv420p10le"))}
    fitting = [name for depth, name in formats[encoder] if bits <= depth]
    if not fitting:
        raise Unavailable(f"{encoder} cannot hold {bits} bits a pixel")
    return fitting[0]


def _picture(av: Any, frame: Counts, pixel_format: str, index: int) -> Any:
    pixels = frame.astype(np.uint8 if pixel_format in ("gray", "yuv420p") else np.uint16)
    if pixel_format.startswith("yuv"):  # with grey chroma below
        grey = 128 if pixels.itemsize == 1 else 512
        pixels = np.concatenate([pixels, np.full((len(pixels) // 2, pixels.shape[1]), grey, pixels.dtype)])
    picture = av.VideoFrame.from_ndarray(pixels, format=pixel_format)
    picture.pts = index
    return picture


def decode_video(decoder: str, coded: list[bytes]) -> Counts:
    """A movie back, by FFmpeg's decoder of this name."""
    av = _library("av")
    context = av.CodecContext.create(decoder, "r")
    pictures = [picture for one in coded for picture in context.decode(av.Packet(one))] + context.decode(None)
    return np.stack([picture.to_ndarray()[: picture.height] for picture in pictures])


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} is not installed: pip install {name}") from error
