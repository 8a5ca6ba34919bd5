"""Steady streaming without any fault: does memory stay as it is, and how long does a group take?

One encoder, one decoder, the simulated camera at a pace this machine keeps up with, both ends on the ordinary disk. Resident
memory is sampled; its slope is a straight line's through what came after the warm-up, when caches and arenas have filled.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from soak_parts.ack_watch import AckWatch
from soak_parts.daemon import Daemon, SoakFailure
from soak_parts.latency import latency_ms
from soak_parts.ports import free_port

SHAPE, RATE_HZ, RATIO = (128, 128), 20.0, 20
"""A group a second: the net that ships takes a quarter of a second of one core for each."""
SAMPLE_S = 1.0
WARM_UP = 0.25
"""Fraction of the time, `WARM_UP_S` at most."""
WARM_UP_S = 600.0
Sample = tuple[float, float, float]
"""Seconds since the start; resident memory, and what of it is no file's, in MB."""
SETTLE_S = 120.0
"""How long the last groups' reconstruction may take."""


@dataclass
class Calm:
    """What was seen; the fields are the JSON document's."""

    minutes: float
    frames: int = 0
    snapshots: int = 0
    gaps: int = 0
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """p50, p99 and max from a group's last frame to its `ack`, and to its stored `reconstruction`."""
    memory_slope_mb_per_h: dict[str, float] = field(default_factory=dict)
    """Of each process's resident memory, after the warm-up."""
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    """Resident memory after the warm-up: `first`, `last`, `peak`."""
    anonymous_slope_mb_per_h: dict[str, float] = field(default_factory=dict)
    """Of the part that is no file's: what a leak would grow, and what no other program's need of memory takes away."""


def stream_calmly(folder: Path, minutes: float) -> Calm:
    """Stream for so long. Raises `SoakFailure` when a process ends or something stays behind."""
    frames = max(int(minutes * 60 * RATE_HZ), 3 * RATIO) // RATIO * RATIO
    link, http = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    unfolded: dict[int, float] = {}

    def hear(unix_s: float, line: str) -> None:
        if found := re.search(r"position (\d+): .*chi2", line):
            unfolded[int(found[1])] = unix_s

    watch = AckWatch(link)
    data = folder / "data"
    source = f"sim:?shape={SHAPE[0]}x{SHAPE[1]}&frames={frames}&rate={RATE_HZ:g}"
    serve = ("serve", "--data", data, "--ingest", link, "--http", http, "--threads", 1)
    run = ("run", source, "--to", watch.endpoint, "--ratio", RATIO, "--journal", folder / "journal")
    with (
        Daemon("framefold-decoder", serve, folder / "decoder.log", listen=hear) as decoder,
        Daemon("framefold-encoder", run, folder / "encoder.log") as encoder,
    ):
        samples = _sample(encoder, decoder)
        summary = encoder.summary
        deadline = time.monotonic() + SETTLE_S
        while len(unfolded) < summary["snapshots"]:
            if time.monotonic() > deadline:
                raise SoakFailure(f"calm: {summary['snapshots'] - len(unfolded)} snapshots are left without frames")
            time.sleep(0.2)
        decoder.stop()
    store = data / "streams" / f"{summary['stream_id']}.zarr"
    calm = Calm(minutes, summary["frames"], summary["snapshots"], summary["gaps"])
    calm.latency_ms = latency_ms(store, RATE_HZ, watch.acks, unfolded)
    for side, values in samples.items():
        warm = np.array([value for value in values if value[0] >= min(WARM_UP * values[-1][0], WARM_UP_S)])  # (n, 3)
        calm.memory_mb[side] = {"first": warm[0, 1], "last": warm[-1, 1], "peak": warm[:, 1].max()}
        calm.memory_slope_mb_per_h[side] = _slope_per_h(warm[:, 0], warm[:, 1])
        calm.anonymous_slope_mb_per_h[side] = _slope_per_h(warm[:, 0], warm[:, 2])
    return calm


def _sample(encoder: Daemon, decoder: Daemon) -> dict[str, list[Sample]]:
    """Of both, while the encoder runs."""
    samples: dict[str, list[Sample]] = {"encoder": [], "decoder": []}
    start = time.monotonic()
    while encoder.status is None:
        for daemon in (encoder, decoder):
            if resident := daemon.resident_mb:
                samples[daemon.name].append((time.monotonic() - start, resident, daemon.anonymous_mb))
        if decoder.status is not None:
            raise SoakFailure(f"calm: the decoder ended with {decoder.status}: {decoder.last_words}")
        time.sleep(SAMPLE_S)
    if encoder.wait(10) != 0:
        raise SoakFailure(f"calm: the encoder ended with {encoder.status}: {encoder.last_words}")
    return samples


def _slope_per_h(seconds: Any, sizes: Any) -> float:
    return round(float(np.polyfit(seconds, sizes, 1)[0]) * 3600, 2) if len(seconds) > 2 else 0.0
