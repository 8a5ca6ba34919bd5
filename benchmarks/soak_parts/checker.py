"""Whether a decoder's data folder holds what a run without any fault stored: every position once, every byte the same.

Stream ids and times of arrival differ from run to run, and frames may be reconstructed with other neighbours; everything else
must not differ, but for the snapshots of a scene whose masks go by what was seen: those must be the fold of its frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from framefold_decoder.catalogue import StreamRecord
from framefold_protocol.coding import Coding
from framefold_protocol.masks import derive_masks
from framefold_protocol.messages import StreamMetadata
from soak_parts.chaos import Outcome
from soak_parts.scenes import Reference, Scene, read_catalogue

EXACT = ("snapshots", "raw", "block_maps")
"""Arrays whose files must be the same byte for byte."""
FOLDED = ("snapshots", "block_maps")
"""Those of snapshots."""
COLUMNS = ("first_frame", "frames", "index", "kind")
"""Of the table of positions; the others hold times and quality."""
TOLD = 20
"""Differences that are told at most."""


@dataclass
class Verdict:
    """What the store holds against what was sent."""

    streams: int = 0
    snapshots_sent: int = 0
    """As the encoders say."""
    snapshots_stored: int = 0
    """As the catalogue says, in all streams there are."""
    duplicates: int = 0
    """Snapshots and raw groups that are stored once more than they should be."""
    gaps: int = 0
    """Frames that are recorded as lost or are not there."""
    differences: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether the store is that of a run without faults."""
        return not self.differences and not self.duplicates and not self.gaps


def check(data: Path, outcomes: Sequence[Outcome], references: Mapping[Scene, Reference], *, decoded: bool) -> Verdict:
    """Compare a data folder that no decoder has open. `decoded`: whether all frames should be there."""
    verdict = Verdict()
    records = {record.metadata.stream_id: record for record in read_catalogue(data)}
    verdict.streams = len(records)
    verdict.snapshots_stored = sum(record.snapshots for record in records.values())
    for outcome in outcomes:
        verdict.snapshots_sent += int(outcome.summary["snapshots"])
        stream_id = outcome.summary["stream_id"]
        record = records.pop(stream_id, None)
        if record is None:
            verdict.differences.append(f"{outcome.scene.name}: stream {stream_id} is not in the catalogue, or told twice")
            continue
        reference = references[outcome.scene]
        verdict.gaps += max(0, reference.record.frames_received - record.frames_received)
        verdict.differences += _differences(outcome.scene, data, record, reference, decoded)
    for stream_id, record in records.items():
        verdict.duplicates += record.position
        verdict.differences.append(f"stream {stream_id} ({record.metadata.name}, {record.position} positions) is nobody's")
    verdict.duplicates += sum(_told_twice(_store(data, stream_id)) for stream_id in {o.summary["stream_id"] for o in outcomes})
    return verdict


def _differences(scene: Scene, data: Path, record: StreamRecord, reference: Reference, decoded: bool) -> list[str]:
    stream_id = record.metadata.stream_id
    ours, theirs = _store(data, stream_id), _store(reference.data, reference.record.metadata.stream_id)
    exact = [array for array in EXACT if scene.frames is None or array not in FOLDED]
    found = [*_catalogue(record, reference.record, decoded), *_files(ours, theirs, exact)]
    try:
        found += _arrays(ours, theirs, exact, decoded)
        if scene.frames:
            found += _folds(ours, record.metadata, np.load(scene.frames, mmap_mode="r"))
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # Zarr and its codecs, of files that are not theirs
        found.append(f"its arrays cannot be read: {error!r}")
    return [f"{scene.name}, stream {stream_id}: {difference}" for difference in found]


def _store(data: Path, stream_id: str) -> Path:
    return data / "streams" / f"{stream_id}.zarr"


def _catalogue(record: StreamRecord, expected: StreamRecord, decoded: bool) -> Iterable[str]:
    for name in ("state", "position", "frames", "frames_received", "snapshots"):
        if getattr(record, name) != getattr(expected, name):
            yield f"catalogue has {name} {getattr(record, name)}, expected {getattr(expected, name)}"
    if decoded and record.decoded != record.snapshots:
        yield f"{record.decoded} of {record.snapshots} snapshots are reconstructed"


def _files(ours: Path, theirs: Path, exact: Sequence[str]) -> Iterable[str]:
    for name in exact:
        mine, other = ({p.relative_to(s / name): p for p in (s / name).rglob("*") if p.is_file()} for s in (ours, theirs))
        for path in sorted(mine.keys() ^ other.keys()):
            yield f"file {name}/{path} {'should not be there' if path in mine else 'is missing'}"
        for path in sorted(mine.keys() & other.keys()):
            if mine[path].read_bytes() != other[path].read_bytes():
                yield f"file {name}/{path} differs"


def _arrays(ours: Path, theirs: Path, exact: Sequence[str], decoded: bool) -> Iterable[str]:
    mine, other = zarr.open_group(ours, mode="r"), zarr.open_group(theirs, mode="r")
    for name in (*(name for name in exact if name in other), *(f"groups/{column}" for column in COLUMNS)):
        if not np.array_equal(_values(mine, name), _values(other, name)):
            yield f"array {name} differs"
    for key in ("complete", "gaps"):
        found, expected = _described(mine)[key], _described(other)[key]
        if found != expected:
            yield f"{key} is {found!r}, expected {expected!r}"
    if decoded and not math.isfinite(float(np.sum(_values(mine, "frames"), dtype=np.float64))):
        yield "frames are missing"


def _folds(store: Path, stream: StreamMetadata, frames: npt.NDArray[np.unsignedinteger]) -> Iterable[str]:
    """Of a stream of one ratio: snapshots that are not the exact sum of their frames."""
    group, masks = zarr.open_group(store, mode="r"), tuple(derive_masks(spec, stream.shape) for spec in stream.families)
    ratio = stream.families[0].ratio
    for k, (snapshot, block_map) in enumerate(zip(_values(group, "snapshots"), _values(group, "block_maps"), strict=True)):
        exposed = Coding(masks, block_map).window()
        if not np.array_equal(snapshot, np.sum(frames[k * ratio : (k + 1) * ratio] * exposed, axis=0, dtype=snapshot.dtype)):
            yield f"snapshot {k} is not the fold of its frames"


def _told_twice(store: Path) -> int:
    """Positions that begin where another begins."""
    if not store.exists():
        return 0
    first_frames = _values(zarr.open_group(store, mode="r"), "groups/first_frame")
    return int(first_frames.size - np.unique(first_frames).size)


def _values(group: zarr.Group, name: str) -> Any:
    return group[name][:]  # type: ignore[index]


def _described(group: zarr.Group) -> Any:
    return group.attrs["framefold"]
