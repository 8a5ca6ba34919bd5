"""How long after the last frame of a group its ack came, and its reconstruction was on the disk.

The simulated camera keeps to its times: frame n is finished n frame times after frame 0, whether it is read at once or late.
Frame 0 was finished at the earliest time that any group's arrival implies. So a reader that falls behind counts as latency,
which is what a microscopist would see. Acks are timed on the link (`ack_watch.py`), reconstructions by the decoder's log,
which tells of each as soon as its frames are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

Seconds = npt.NDArray[np.float64]


def finished_at(store: Path, rate_hz: float) -> Seconds:
    """When the camera had finished the last frame of each position, seconds since 1970, (P,)."""
    table = zarr.open_group(store / "groups", mode="r")
    first, frames, arrived_ns = (np.asarray(table[name][:]) for name in ("first_frame", "frames", "timestamp_ns"))  # type: ignore[index]
    frame_0 = np.min(arrived_ns / 1e9 - first / rate_hz)
    return np.asarray(frame_0 + (first + frames - 1) / rate_hz)


def acknowledged_at(acks: Sequence[tuple[int, float]], positions: int) -> Seconds:
    """When each position was acknowledged, (P,); an ack speaks for all positions before it."""
    ends, times = (np.array(column) for column in zip(*acks, strict=True))
    return np.asarray(times[np.searchsorted(ends, np.arange(positions), side="right")], float)


def percentiles_ms(latencies: Seconds) -> dict[str, float]:
    """p50, p99 and max in milliseconds."""
    p50, p99, largest = np.percentile(latencies * 1000, (50, 99, 100))
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(float(largest), 1)}


def latency_ms(
    store: Path, rate_hz: float, acks: Sequence[tuple[int, float]], unfolded: Mapping[int, float]
) -> dict[str, dict[str, float]]:
    """`ack` and `reconstruction` percentiles of one stream; `unfolded`: when each position was, as far as they were."""
    finished = finished_at(store, rate_hz)
    results = {"ack": percentiles_ms(acknowledged_at(acks, len(finished)) - finished)}
    if unfolded:
        positions = np.array(sorted(unfolded))
        times = np.array([unfolded[position] for position in positions])
        results["reconstruction"] = percentiles_ms(times - finished[positions])
    return results
