"""What is measured of one frame size: speed with and without the safety of journals and disks, cost, latency."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_parts.frames import write_movie
from pipeline_parts.streaming import Streamed, stream
from soak_parts.latency import latency_ms

RATIO = 20
LIVE_HZ, LIVE_PIXELS_S = 200.0, 50e6
"""The camera's pace where nothing is reconstructed: what one core simulates with ease beside all else."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A frame size and how much of everything."""

    side: int
    frames: int
    """Of the stream that is stored."""
    unfolded: int
    """Of the stream that is reconstructed too."""
    live_s: float
    """Of each stream at a camera's pace."""


class Bench:
    """Measures cases. `fast` is a folder in memory, `disk` one on the disk; each stream gets folders of its own.

    `disk_gb_s` is what the disk takes of large blocks.
    """

    def __init__(self, fast: Path, disk: Path, disk_gb_s: float, rounds: int, model: str) -> None:
        self._fast, self._disk, self._disk_gb_s = fast, disk, disk_gb_s
        self._rounds = rounds
        self._model = model
        self._streams = 0

    def measure(self, case: Case) -> Row:
        """Everything of one frame size."""
        path = self._fast / f"{case.side}.npy"
        source = write_movie(path, case.side, case.frames)
        plain, safe = [], []
        for _ in range(self._rounds):  # in turns, so that what disturbs one disturbs the other
            plain.append(self._stream(source, "none", journals=False))
            safe.append(self._stream(source, "none", journals=True))
        write_movie(path, case.side, case.unfolded)
        unfolded = self._stream(source, self._model, journals=True)
        path.unlink()
        rate_hz = _frames_s(unfolded, max(unfolded.unfolded.values())) / 2
        return {
            "side": case.side,
            "dtype": "uint8",
            "ratio": RATIO,
            "stored": _speed(case, safe),
            "stored_without_journals": _speed(case, plain),
            "fraction_of_without_journals": statistics.median(
                _speed_of(a) / _speed_of(b) for a, b in zip(safe, plain, strict=True)
            ),
            "written_gb_s": statistics.median(_payload_gb_s(run) for run in safe),
            "fraction_of_the_lower": statistics.median(
                _payload_gb_s(a) / min(_payload_gb_s(b), self._disk_gb_s) for a, b in zip(safe, plain, strict=True)
            ),
            "reconstructed": _speed(case, [unfolded], max(unfolded.unfolded.values())),
            "cpu_ms_per_frame": {
                "encoder": statistics.median(run.encoder_cpu_s / run.summary["frames"] for run in safe) * 1e3,
                "decoder": statistics.median(run.decoder_cpu_s / run.summary["frames"] for run in safe) * 1e3,
                "decoder_reconstructing": unfolded.decoder_cpu_s / unfolded.summary["frames"] * 1e3,
            },
            "peak_mb": {side: max(run.peak_mb[side] for run in (*safe, unfolded)) for side in ("encoder", "decoder")},
            "wire_ratio": safe[0].summary["wire_ratio"],
            "live_stored": self._live(case, min(LIVE_HZ, LIVE_PIXELS_S / case.side**2), "none"),
            "live_reconstructed": self._live(case, rate_hz, self._model),
        }

    def _live(self, case: Case, rate_hz: float, model: str) -> Row:
        """Latency of a camera at this pace."""
        frames = max(int(case.live_s * rate_hz) // RATIO, 3) * RATIO
        source = f"sim:?shape={case.side}x{case.side}&frames={frames}&rate={rate_hz}"
        run = self._stream(source, model, journals=True, watch=True)
        found = latency_ms(run.store, rate_hz, run.acks, run.unfolded)
        return {"frames_s": rate_hz, "groups": run.summary["snapshots"], "latency_ms": found}

    def _stream(self, source: str, model: str, *, journals: bool, watch: bool = False) -> Streamed:
        self._streams += 1
        folder = (self._disk if journals else self._fast) / f"stream-{self._streams}"
        folder.mkdir()
        journal = folder / "journal" if journals else None
        return stream(folder, source, RATIO, model=model, data=folder / "data", journal=journal, watch=watch)


def _frames_s(run: Streamed, until: float) -> float:
    return float(run.summary["frames"] / (until - run.began))


def _speed_of(run: Streamed) -> float:
    return _frames_s(run, run.stored)


def _payload_gb_s(run: Streamed) -> float:
    """Bytes of messages a second: what each end writes to its disk at least."""
    return float(run.summary["bytes_wire"] / (run.stored - run.began) / 1e9)


def _speed(case: Case, runs: list[Streamed], until: float | None = None) -> Row:
    frames_s = statistics.median(_frames_s(run, until or run.stored) for run in runs)
    return {"frames": runs[0].summary["frames"], "frames_s": frames_s, "gb_s": frames_s * case.side**2 / 1e9}
