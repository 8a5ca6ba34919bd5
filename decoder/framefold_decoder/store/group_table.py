"""The table of a stream's groups, a row per position: 1-D Zarr arrays under `groups/`, mirrored in memory for look-ups.

The ingest thread appends rows, decode threads add quality to rows that exist, anyone reads. Pixels are in `stream_store.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from framefold_decoder.store.arrays import GROWTH_STEP, create_array, grow, trim
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_protocol.errors import StoreError
from framefold_protocol.noise import NoiseModel


class Kind(StrEnum):
    """What a position holds; the column `kind` has their numbers, 0 to 3."""

    SNAPSHOT = "snapshot"
    RAW = "raw"
    GAP = "gap"
    AUDIT = "audit"
    """Frames of the snapshot that follows, as they were."""


_KINDS = tuple(Kind)


@dataclass(frozen=True)
class Group:
    """One position of a stream."""

    position: int
    kind: Kind
    first_frame: int
    frames: int
    """How many it covers; of an audit group, how many it holds: the snapshot covers them."""
    timestamp_ns: int
    """When its first frame, or that of the group it was cut from, reached the encoder, nanoseconds since 1970; 0 for a gap."""
    index: int
    """Its row in `snapshots`, or its first row in `raw` or `audit`; -1 for a gap."""
    step_sigma: float = 0.0
    """How wide the bins are that a snapshot was coded in, in standard deviations of its noise; 0: exact."""
    noise: NoiseModel | None = None
    """What the encoder had measured of the detector until then; None: nothing."""
    quality: Quality | None = None
    """Of its reconstruction; None until then."""
    provenance: Provenance | None = None
    """What reconstructed it; None until then."""

    @property
    def end(self) -> int:
        """The frame after the last it covers."""
        return self.first_frame if self.kind is Kind.AUDIT else self.first_frame + self.frames

    @property
    def readable(self) -> bool:
        """Whether its frames can be read: sent raw, or reconstructed."""
        return self.kind is Kind.RAW or self.provenance is not None


_NOT_STORED = 255
_COLUMNS: dict[str, tuple[str, int | float]] = {
    "first_frame": ("int64", 0),
    "frames": ("int64", 0),
    "timestamp_ns": ("int64", 0),
    "index": ("int64", -1),
    "step_sigma": ("float64", 0),
    "kind": ("uint8", _NOT_STORED),  # written last: a row with a kind is whole
}
_MEASURES = [measure.name for measure in fields(Quality)]
_QUALITY: dict[str, tuple[str, int | float]] = {
    **dict.fromkeys(_MEASURES, ("float64", np.nan)),
    "provenance": ("int32", -1),  # written last: a row with one has frames
}
_ROW = np.dtype([(name, dtype) for name, (dtype, _) in (_COLUMNS | _QUALITY).items()])


class GroupTable:
    """Rows 0 to `len(table)`; the only writer of `groups/`."""

    def __init__(self, group: zarr.Group, path: Path, position: int | None) -> None:
        """Read the rows before `position`; None: all that were stored. Raises `StoreError` when they are not there."""
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {name: _array(group, name) for name in (*_COLUMNS, *_QUALITY)}
        described: list[Any] = list(group.attrs.get("provenances", []))  # type: ignore[arg-type]
        self._provenances = [Provenance(**provenance) for provenance in described]
        measured: dict[str, Any] = dict(group.attrs.get("noise", {}))  # type: ignore[arg-type]
        self._noise = {int(first): NoiseModel(**noise) for first, noise in measured.items()}
        """By the position from which on it holds."""
        self._lock = threading.Lock()
        kinds = np.asarray(self._arrays["kind"][:])
        stored = int(np.argmax(np.append(kinds, _NOT_STORED) == _NOT_STORED))
        self._count = stored if position is None else position
        if self._count > stored:
            hint = "The catalogue is newer than the store: restore both from the same backup"
            raise StoreError(f"store {path} holds {stored} positions, expected {position}", hint=hint)
        self._rows = np.zeros(self._count, _ROW)
        for name, array in self._arrays.items():
            self._rows[name] = array[: self._count]

    @staticmethod
    def create(group: zarr.Group) -> None:
        """Make the empty arrays."""
        for name, (dtype, fill) in (_COLUMNS | _QUALITY).items():
            create_array(group, name, (), dtype, ("position",), fill=fill, chunk=GROWTH_STEP)
        group.attrs.update({"kinds": {kind: number for number, kind in enumerate(_KINDS)}, "provenances": []})

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Group:
        first_frame, frames, timestamp_ns, index, step_sigma, kind, *measures, number = self._rows[position].item()
        quality = provenance = None
        if number >= 0:
            quality = Quality(*(float(measure) if np.isfinite(measure) else None for measure in measures))
            provenance = self._provenances[number]
        place = position, _KINDS[kind], first_frame, frames, timestamp_ns, index, step_sigma
        news = max((first for first in self._noise if first <= position), default=None)
        return Group(*place, None if news is None else self._noise[news], quality, provenance)

    def measures(self, name: str) -> npt.NDArray[np.float64]:
        """One of `Quality`'s fields for every row, NaN where there is none."""
        count = self._count
        return self._rows[name][:count].copy()

    def sizes(self, position: int) -> tuple[int, int, int]:
        """How many snapshots, raw frames and audit frames the positions before this one hold."""
        rows = self._rows[:position]
        snapshots, raw, audit = (rows["kind"] == _KINDS.index(kind) for kind in (Kind.SNAPSHOT, Kind.RAW, Kind.AUDIT))
        return int(snapshots.sum()), int(rows["frames"][raw].sum()), int(rows["frames"][audit].sum())

    def find(self, frame: int) -> int:
        """The position that covers a stored frame."""
        count = self._count  # before the rows: they are replaced by longer ones first, counted after
        return int(np.searchsorted(self._rows["first_frame"][:count], frame, side="right")) - 1

    def write(self, groups: Sequence[Group]) -> None:
        """Store rows of consecutive positions, the first of them at most `len(self)`; rows that are there are overwritten.

        A row's `noise` is told where it is news.
        """
        first, end = groups[0].position, groups[-1].position + 1
        for array in self._arrays.values():
            grow(array, end)
        rows = [asdict(group) | {"kind": _KINDS.index(group.kind)} for group in groups]
        columns = {name: np.array([row[name] for row in rows], dtype) for name, (dtype, _) in _COLUMNS.items()}

        def put(name: str) -> None:
            self._arrays[name][first:end] = columns[name]

        if news := {group.position: group.noise for group in groups if group.noise}:
            self._noise = self._noise | news  # in one step: others read it
            self._group.attrs["noise"] = {str(first): asdict(noise) for first, noise in sorted(self._noise.items())}
        *details, kind = _COLUMNS
        with ThreadPoolExecutor(len(details)) as pool:  # each waits for its own fsync
            list(pool.map(put, details))
        put(kind)
        self._remember(columns, first, end)

    def _remember(self, columns: dict[str, npt.NDArray[Any]], first: int, end: int) -> None:
        with self._lock:
            if end > len(self._rows):
                rows = np.zeros(max(end, 2 * len(self._rows)), _ROW)
                for name, (_, fill) in _QUALITY.items():
                    rows[name] = fill
                rows[: self._count] = self._rows[: self._count]
                self._rows = rows
            for name, values in columns.items():
                self._rows[name][first:end] = values
            self._count = max(self._count, end)

    def set_quality(self, position: int, quality: Quality, provenance: Provenance) -> None:
        """Record how well a position was reconstructed, and by what; again replaces it."""
        with self._lock:
            if provenance not in self._provenances:
                described = [asdict(one) for one in (*self._provenances, provenance)]
                self._group.attrs["provenances"] = described
                self._provenances.append(provenance)
            values = {name: np.nan if value is None else value for name, value in asdict(quality).items()}
            before = self._rows[position]
            changed = [name for name, value in values.items() if not np.array_equal(before[name], value, equal_nan=True)]

            def put(name: str) -> None:
                self._arrays[name][position] = values[name]

            with ThreadPoolExecutor(max(1, len(changed))) as pool:  # each waits for its own fsync
                list(pool.map(put, changed))
            number = self._provenances.index(provenance)
            self._arrays["provenance"][position] = number
            for name, value in {**values, "provenance": number}.items():
                self._rows[name][position] = value

    def trim(self) -> None:
        """Cut the arrays to the rows that are stored."""
        for array in self._arrays.values():
            trim(array, self._count)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
