"""The table of a stream's groups, a row per position: 1-D Zarr arrays under `groups/`, mirrored in memory for look-ups.

The ingest thread appends rows, decode threads add quality to rows that exist, anyone reads. Pixels are in `stream_store.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from framefold_decoder.store.arrays import GROWTH_STEP, create_array, grow, trim
from framefold_protocol.errors import StoreError


class Kind(StrEnum):
    """What a position holds; the column `kind` has their numbers, 0 to 2."""

    SNAPSHOT = "snapshot"
    RAW = "raw"
    GAP = "gap"


_KINDS = tuple(Kind)


@dataclass(frozen=True)
class Group:
    """One position of a stream."""

    position: int
    kind: Kind
    first_frame: int
    frames: int
    """How many it covers."""
    timestamp_ns: int
    """When its first frame reached the encoder, nanoseconds since 1970; 0 for a gap."""
    index: int
    """Its row in `snapshots`, or its first row in `raw`; -1 for a gap."""
    chi2: float | None = None
    """mean((Y - sum C X)^2 / var(Y)) of its reconstruction; None until then."""
    model: str | None = None
    """Which model or solver reconstructed it; None until then."""

    @property
    def end(self) -> int:
        """The frame after its last."""
        return self.first_frame + self.frames

    @property
    def readable(self) -> bool:
        """Whether its frames can be read: sent raw, or reconstructed."""
        return self.kind is Kind.RAW or self.model is not None


_NOT_STORED = 255
_COLUMNS: dict[str, tuple[str, int | float]] = {
    "first_frame": ("int64", 0),
    "frames": ("int64", 0),
    "timestamp_ns": ("int64", 0),
    "index": ("int64", -1),
    "kind": ("uint8", _NOT_STORED),  # written last: a row with a kind is whole
}
_QUALITY: dict[str, tuple[str, int | float]] = {"chi2": ("float32", np.nan), "model": ("int16", -1)}
_ROW = np.dtype([(name, dtype) for name, (dtype, _) in (_COLUMNS | _QUALITY).items()])


class GroupTable:
    """Rows 0 to `len(table)`; the only writer of `groups/`."""

    def __init__(self, group: zarr.Group, path: Path, position: int | None) -> None:
        """Read the rows before `position`; None: all that were stored. Raises `StoreError` when they are not there."""
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {name: _array(group, name) for name in (*_COLUMNS, *_QUALITY)}
        self._models: list[str] = list(group.attrs.get("models", []))  # type: ignore[arg-type]
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
        group.attrs.update({"kinds": {kind: number for number, kind in enumerate(_KINDS)}, "models": []})

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Group:
        first_frame, frames, timestamp_ns, index, kind, chi2, model = self._rows[position].item()
        name = self._models[model] if model >= 0 else None
        known = chi2 if math.isfinite(chi2) else None
        return Group(position, _KINDS[kind], first_frame, frames, timestamp_ns, index, known, name)

    def chi2(self) -> npt.NDArray[np.float32]:
        """chi2 of every row, NaN where there is none."""
        count = self._count
        return self._rows["chi2"][:count].copy()

    def sizes(self, position: int) -> tuple[int, int]:
        """How many snapshots and how many raw frames the positions before this one hold."""
        rows = self._rows[:position]
        raw = rows["kind"] == _KINDS.index(Kind.RAW)
        return int(np.sum(rows["kind"] == _KINDS.index(Kind.SNAPSHOT))), int(np.sum(rows["frames"][raw]))

    def find(self, frame: int) -> int:
        """The position that covers a stored frame."""
        count = self._count  # before the rows: they are replaced by longer ones first, counted after
        return int(np.searchsorted(self._rows["first_frame"][:count], frame, side="right")) - 1

    def write(self, groups: Sequence[Group]) -> None:
        """Store rows of consecutive positions, the first of them at most `len(self)`; rows that are there are overwritten."""
        first, end = groups[0].position, groups[-1].position + 1
        for array in self._arrays.values():
            grow(array, end)
        rows = [asdict(group) | {"kind": _KINDS.index(group.kind)} for group in groups]
        columns = {name: np.array([row[name] for row in rows], dtype) for name, (dtype, _) in _COLUMNS.items()}

        def put(name: str) -> None:
            self._arrays[name][first:end] = columns[name]

        *details, kind = _COLUMNS
        with ThreadPoolExecutor(len(details)) as pool:  # each waits for its own fsync
            list(pool.map(put, details))
        put(kind)
        self._remember(columns, first, end)

    def _remember(self, columns: dict[str, npt.NDArray[Any]], first: int, end: int) -> None:
        with self._lock:
            if end > len(self._rows):
                rows = np.zeros(max(end, 2 * len(self._rows)), _ROW)
                rows["chi2"], rows["model"] = np.nan, -1
                rows[: self._count] = self._rows[: self._count]
                self._rows = rows
            for name, values in columns.items():
                self._rows[name][first:end] = values
            self._count = max(self._count, end)

    def set_quality(self, position: int, chi2: float, model: str) -> None:
        """Record how well a position was reconstructed, and by what."""
        with self._lock:
            if model not in self._models:
                self._group.attrs["models"] = [*self._models, model]
                self._models.append(model)
            number = self._models.index(model)
            self._arrays["chi2"][position] = chi2
            self._arrays["model"][position] = number
            self._rows["chi2"][position], self._rows["model"][position] = chi2, number

    def trim(self) -> None:
        """Cut the arrays to the rows that are stored."""
        for array in self._arrays.values():
            trim(array, self._count)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
