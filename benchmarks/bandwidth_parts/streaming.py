"""Whole streams: the encoder with all its threads, from frames in memory to acknowledged snapshots.

Unlimited, its speed is compared with the fold kernel alone on the same frames and threads, and with what the machine's cores
could carry if none was ever idle (`bound`): the other end runs on them, too. Through a limited link it shows how
many frames a second arrive with folding, and how many when the same frames are sent as they are.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bandwidth_parts.far_side import FarSide, far_side
from bandwidth_parts.folded import RATIO
from bandwidth_parts.material import Counts
from common_parts.document import cores
from framefold_encoder.daemon import Encoder
from framefold_encoder.folding import Folder
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import SourceInfo
from framefold_encoder.summary import Summary
from framefold_protocol import payload
from framefold_protocol.masks import MaskSpec, derive_masks

PIPELINE_CASES = (
    ("uint8", RATIO, 1, False),
    ("uint8", RATIO, 2, False),
    ("uint8", 30, 1, False),
    ("uint16", RATIO, 1, False),
    ("uint16", RATIO, 2, False),
    ("uint8", RATIO, 1, True),
    ("uint16", RATIO, 1, True),
)
"""Type, B, folding threads, and whether masks go by motion, as they do by default; the first stands for all."""


class MemorySource:
    """Frames in memory, over and over for a time: a camera whose frames lie in the host's memory. A `LendingSource`."""

    def __init__(self, frames: Counts, seconds: float) -> None:
        """`frames` holds whole groups."""
        self._frames = frames
        self._seconds = seconds
        self._deadline: float | None = None
        self._position = 0
        self.info = SourceInfo("memory", frames.shape[1:], frames.dtype, None)

    def lend(self, count: int) -> Counts:
        """The next frames; none once the time is over."""
        self._deadline = self._deadline or time.monotonic() + self._seconds
        if time.monotonic() > self._deadline:
            return self._frames[:0]
        if self._position + count > len(self._frames):
            self._position = 0
        self._position += count
        return self._frames[self._position - count : self._position]

    def read_into(self, out: Counts) -> int:
        """The same, copied."""
        frames = self.lend(len(out))
        out[: len(frames)] = frames
        return len(frames)

    def skip(self, count: int) -> None:
        """The same frames come over and over: nothing to go past."""

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> MemorySource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Run:
    """One stream, from its first group to the last acknowledgement."""

    frames_s: float
    pixels_s: float
    gb_s: float
    """Of frames, as all three."""
    summary: Summary
    far_cpu_s_per_gigapixel: float
    """What the other end took, on the same cores."""

    @property
    def most_gb_s(self) -> float:
        """With never an idle core: what all cores would carry of the time that both ends spend on a pixel."""
        pixels_s = 1e9 * cores() / (self.summary.cpu_s_per_gigapixel + self.far_cpu_s_per_gigapixel)
        return self.gb_s * pixels_s / self.pixels_s


def stream(
    frames: Counts, to: FarSide, seconds: float, threads: int, memory_mb: int, ratio: str = str(RATIO), *, adaptive: bool = True
) -> Run:
    """Stream for some seconds and wait until all of it is acknowledged."""
    groups: list[tuple[float, int]] = []
    keys = {"to": to.endpoint, "ratio": ratio, "threads": threads, "memory_mb": memory_mb, "adaptive": adaptive}
    far_before = to.cpu_s
    encoder = Encoder(MemorySource(frames, seconds), EncoderSettings.model_validate(keys))
    encoder.run(threading.Event(), lambda summary: groups.append((time.perf_counter(), summary.frames)))
    end, (start, first) = time.perf_counter(), groups[0]
    frames_s = (encoder.summary.frames - first) / (end - start)
    far_s = (to.cpu_s - far_before) / (encoder.summary.frames * frames[0].size) * 1e9
    return Run(frames_s, frames_s * frames[0].size, frames_s * frames[0].nbytes / 1e9, encoder.summary, far_s)


def measure_pipeline(frames: Counts, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The encoder against the kernel alone, for each type, B and number of folding threads; kernel, stages and encoder in
    turns."""
    kinds = {"uint8": frames, "uint16": frames.astype(np.uint16)}
    chosen = [one for one in PIPELINE_CASES if one[2] <= cores()]
    return [_pipeline_case(kinds[kind], *how, rounds, seconds) for kind, *how in chosen]


def _pipeline_case(frames: Counts, ratio: int, threads: int, adaptive: bool, rounds: int, seconds: float) -> dict[str, Any]:
    frames = np.resize(frames, (ratio, *frames.shape[1:])) if len(frames) < ratio else frames[: len(frames) // ratio * ratio]
    families = (derive_masks(MaskSpec(ratio=ratio), frames.shape[1:]),)
    folder = Folder(families, frames.dtype, threads)
    kernel, stages, runs = [], [], []
    with far_side() as far:
        for _ in range(rounds):
            kernel.append(_kernel_gb_s(folder, frames, seconds / 3))
            stages.append(_stages_gb_s(Folder(families, frames.dtype), frames, seconds / 3))
            runs.append(stream(frames, far, seconds, threads, memory_mb=64, ratio=str(ratio), adaptive=adaptive))
    return {
        "threads": threads,
        "ratio": ratio,
        "adaptive": adaptive,
        "dtype": frames.dtype.name,
        "side": frames.shape[1],
        "gb_s": statistics.median(run.gb_s for run in runs),
        "kernel_gb_s": statistics.median(kernel),
        "fraction_of_kernel": statistics.median(run.gb_s / alone for run, alone in zip(runs, kernel, strict=True)),
        "bound": statistics.median(run.most_gb_s / alone for run, alone in zip(runs, kernel, strict=True)),
        "stages_gb_s": statistics.median(stages),
        "fraction_of_stages": statistics.median(run.gb_s / bare for run, bare in zip(runs, stages, strict=True)),
        "cpu_s_per_gigapixel": statistics.median(run.summary.cpu_s_per_gigapixel for run in runs),
        "far_cpu_s_per_gigapixel": statistics.median(run.far_cpu_s_per_gigapixel for run in runs),
        "wire_ratio": statistics.median(run.summary.wire_ratio for run in runs),
    }


def _stages_gb_s(folder: Folder, frames: Counts, seconds: float) -> float:
    """Folding and coding on every core of the machine, each by itself, without ring, order and link: the pipeline's limit."""
    start, ratio = time.perf_counter(), folder.ratio

    def work(_: int) -> int:
        memory, done = np.empty(frames[0].size * folder.sum_dtype.itemsize, np.uint8), 0
        while time.perf_counter() < start + seconds or not done:
            for first in range(0, len(frames), ratio):
                payload.pack(folder.fold(frames[first : first + ratio], None, memory))
            done += frames.nbytes
        return done

    with ThreadPoolExecutor(cores()) as pool:
        done = sum(pool.map(work, range(cores())))
    return done / (time.perf_counter() - start) / 1e9


def _kernel_gb_s(folder: Folder, frames: Counts, seconds: float) -> float:
    sums: npt.NDArray[Any] = np.empty(frames.shape[1:], folder.sum_dtype)
    start, done, ratio = time.perf_counter(), 0, folder.ratio
    while time.perf_counter() < start + seconds or not done:
        for first in range(0, len(frames), ratio):
            folder.add(frames[first : first + ratio], 0, sums)
        done += frames.nbytes
    return done / (time.perf_counter() - start) / 1e9


def measure_link(frames: Counts, rate: float, seconds: float) -> dict[str, Any]:
    """Frames per second through a link of `rate` bytes per second, folded and as they are."""
    with far_side(rate) as far:
        raw = _raw_frames_s(frames, far.sink, seconds)
        memory_mb = max(1, int(rate * seconds / 10e6))
        folded = stream(frames, far, seconds, 1, memory_mb)
        free = stream(frames, far, seconds, 1, memory_mb, ratio="auto")
    ratios = free.summary.ratios
    return {
        "gbit_s": rate * 8 / 1e9,
        "shape": list(frames.shape[1:]),
        "dtype": frames.dtype.name,
        "raw_frames_s": raw,
        "folded_frames_s": folded.frames_s,
        "times_raw": folded.frames_s / raw,
        "auto_frames_s": free.frames_s,
        "auto_mean_ratio": ratios.total() and sum(ratio * count for ratio, count in ratios.items()) / ratios.total(),
        "wire_ratio": folded.summary.wire_ratio,
        "all_arrived": folded.summary.complete and free.summary.complete,
    }


def _raw_frames_s(frames: Counts, port: int, seconds: float) -> float:
    """Frames per second over plain TCP, from the first byte to the far side's word that it has the last."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        start, sent = time.perf_counter(), 0
        while time.perf_counter() < start + seconds or not sent:
            connection.sendall(frames[sent % len(frames)])
            sent += 1
        connection.shutdown(socket.SHUT_WR)
        arrived = int(connection.recv(64))
        assert arrived == sent * frames[0].nbytes
        return sent / (time.perf_counter() - start)
