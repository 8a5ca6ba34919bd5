"""One stream from encoder process to decoder process, and what was seen of it from outside."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from soak_parts.ack_watch import AckWatch
from soak_parts.daemon import Daemon, SoakFailure
from soak_parts.ports import free_port

PATIENCE_S = 600
"""How long a stream and its reconstruction may take at most."""
_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Streamed:
    """One stream. Times are seconds since 1970."""

    summary: Mapping[str, Any]
    """The encoder's last word."""
    store: Path
    began: float
    """When the first frame reached the encoder."""
    stored: float
    """When the decoder had all of it on its disk and the stream closed."""
    unfolded: Mapping[int, float]
    """When each position's frames were on the disk too; empty without reconstruction."""
    acks: list[tuple[int, float]]
    """(position, when all before it was acknowledged); empty when nobody watched."""
    decoder_cpu_s: float
    """CPU time the decoder's process spent on it, all threads."""
    peak_mb: Mapping[str, float]
    """Resident memory of each process at its peak."""

    @property
    def encoder_cpu_s(self) -> float:
        """CPU time the encoder's process spent on it, all threads, without starting up."""
        return float(self.summary["cpu_s_per_gigapixel"] * self.summary["bytes_in"] / 1e9)  # a byte a pixel


def stream(
    folder: Path, source: str, ratio: int, *, model: str, data: Path, journal: Path | None, watch: bool = False
) -> Streamed:
    """Stream a finite source and wait until it is stored, and reconstructed unless the model is `none`.

    Logs go into `folder`, `data` and `journal` are the two processes' folders. `watch` times the acks, which costs a hop.
    """
    link, http = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    heard = _Heard()
    watched = AckWatch(link) if watch else None
    serve = ("serve", "--data", data, "--ingest", link, "--http", http, "--model", model)
    run = ("run", source, "--ratio", ratio, "--to", watched.endpoint if watched else link)
    keep = ("--journal", journal) if journal else ()
    with Daemon("framefold-decoder", serve, folder / "decoder.log", listen=heard.hear) as decoder:
        if decoder.wait_for("data in", 60) is None:
            raise SoakFailure(f"the decoder did not start: {decoder.last_words}")
        cpu_s = decoder.cpu_s
        with Daemon("framefold-encoder", (*run, *keep), folder / "encoder.log") as encoder:
            peaks = _peaks(encoder, decoder)
            summary = encoder.summary
        expected = 0 if model == "none" else summary["snapshots"]
        deadline = time.monotonic() + PATIENCE_S
        while not heard.complete or len(heard.unfolded) < expected:
            if time.monotonic() > deadline or decoder.status is not None:
                raise SoakFailure(f"the stream was not finished: {decoder.last_words}")
            time.sleep(_SAMPLE_S)
        peaks["decoder"] = max(peaks["decoder"], decoder.peak_mb)
        cpu_s = decoder.cpu_s - cpu_s
        decoder.stop()
    store = data / "streams" / f"{summary['stream_id']}.zarr"
    began = float(np.min(zarr.open_group(store, mode="r")["groups/timestamp_ns"][:])) / 1e9  # type: ignore[index, arg-type]
    acks = watched.acks if watched else []
    return Streamed(summary, store, began, heard.complete, heard.unfolded, acks, cpu_s, peaks)


class _Heard:
    """What the decoder's log tells, as it tells it."""

    def __init__(self) -> None:
        self.complete = 0.0
        self.unfolded: dict[int, float] = {}

    def hear(self, unix_s: float, line: str) -> None:
        if found := re.search(r"position (\d+): .*chi2", line):
            self.unfolded[int(found[1])] = unix_s
        elif "is complete" in line:
            self.complete = unix_s


def _peaks(encoder: Daemon, decoder: Daemon) -> dict[str, float]:
    """Peak resident memory in MB of both, once the encoder has ended well."""
    peaks = {"encoder": 0.0, "decoder": 0.0}
    while encoder.status is None:
        for daemon in (encoder, decoder):
            peaks[daemon.name] = max(peaks[daemon.name], daemon.peak_mb)
        if decoder.status is not None:
            raise SoakFailure(f"the decoder ended with {decoder.status}: {decoder.last_words}")
        time.sleep(_SAMPLE_S)
    if encoder.wait(10) != 0:
        raise SoakFailure(f"the encoder ended with {encoder.status}: {encoder.last_words}")
    return peaks
