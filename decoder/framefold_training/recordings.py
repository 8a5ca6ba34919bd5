"""A user's own movie, as training reads it from the decoder's store: audit groups, and the snapshots beside them.

An audit group is B frames that were sent as they were beside their snapshot. Only reading; what is learned from them is
`finetune`'s. The store's layout is told in `framefold_decoder.store.layout`: any reader of Zarr can open it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_protocol.coding import Coding
from framefold_protocol.errors import FramefoldError, InputError
from framefold_protocol.masks import Masks, MaskSpec, derive_masks
from framefold_protocol.model import REACH

Counts = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A snapshot beside an audit group."""

    electrons: Counts = field(repr=False)
    """(H, W), whole numbers, 0 or more."""
    coding: Coding


@dataclass(frozen=True, eq=False)
class AuditGroup:
    """B frames as they were, and how they were folded."""

    position: int
    """Of its snapshot in the stream."""
    electrons: Counts = field(repr=False)
    """(B, H, W), whole numbers, 0 or more."""
    coding: Coding
    before: tuple[Neighbour, ...] = ()
    """Snapshots, the nearest first, up to `REACH`; none at a stream's ends, and beyond a gap or frames that were sent raw."""
    after: tuple[Neighbour, ...] = ()


class Recording:
    """A stream's store, opened for reading."""

    def __init__(self, path: Path, counts_per_electron: float | None = None, offset_counts: float | None = None) -> None:
        """Gain and offset default to what the stream says, then to what it was decoded with, measured on audit groups or by the
        encoder, then to 1 and 0.

        Raises `InputError` when it is not a store with audit groups."""
        import zarr  # training on simulated movies needs none

        try:
            self._store = zarr.open_group(str(path), mode="r")
            stream: Any = self._store.attrs["framefold"]["stream"]  # type: ignore[index, call-overload]
            table: Any = self._store["groups"]
            columns = {name: np.asarray(table[name][:]) for name in ("kind", "index", "frames")}
            self._kinds: dict[str, int] = dict(table.attrs["kinds"])
            known = {one.name for one in fields(MaskSpec)}
            specs = [MaskSpec(**{name: one[name] for name in one if name in known}) for one in stream["families"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            hint = "Name a folder STREAM.zarr that framefold-decoder wrote"
            raise InputError(f"{path} is not a framefold store: {error!r}", hint=hint) from error
        self._kind, self._index, self._frames = (columns[name] for name in ("kind", "index", "frames"))
        self._specs, self._shape = specs, tuple(stream["shape"])
        self._families: dict[int, tuple[Masks, ...]] = {}
        told: float | None = stream["counts_per_electron"]
        self.counts_per_electron = counts_per_electron or told or _measured(table, "gain") or 1.0
        self.offset_counts = (_measured(table, "offset") or 0.0) if offset_counts is None else offset_counts
        self.stream_id: str = stream["stream_id"]
        if not stream.get("audit") or "audit" not in self._store:
            raise InputError(f"stream {path} has no audit groups", hint="Record with framefold-encoder run --audit 50")

    def audit_groups(self) -> list[AuditGroup]:
        """Every whole audit group, in order; all frames are read."""
        audit, groups, first = self._kinds["audit"], list[AuditGroup](), 0
        for is_audit, run in groupby(range(len(self._kind)), lambda position: self._kind[position] == audit):
            positions = list(run)
            if is_audit:
                first = positions[0]
            elif first < positions[0] and self._kind[first] == audit and self._kind[positions[0]] == self._kinds["snapshot"]:
                rows = slice(int(self._index[first]), int(self._index[first] + self._frames[first : positions[0]].sum()))
                if rows.stop - rows.start == self._frames[positions[0]] > 1:
                    groups.append(self._group(positions[0], rows))
        return groups

    def _group(self, position: int, rows: slice) -> AuditGroup:
        audit: Any = self._store["audit"]
        coding = self._coding(position)
        beside = self._neighbours(position, -1), self._neighbours(position, 1)
        return AuditGroup(position, self._electrons(np.asarray(audit[rows]), 1), coding, *beside)

    def _neighbours(self, position: int, step: int) -> tuple[Neighbour, ...]:
        """The snapshots before or after, over the audit frames between."""
        snapshots: Any = self._store["snapshots"]
        found, position = list[Neighbour](), position + step
        while 0 <= position < len(self._kind) and len(found) < REACH:
            if self._kind[position] == self._kinds["snapshot"]:
                coding, sums = self._coding(position), np.asarray(snapshots[int(self._index[position])])
                found.append(Neighbour(self._electrons(sums, coding.exposure()), coding))
            elif self._kind[position] != self._kinds["audit"]:
                break
            position += step
        return tuple(found)

    def _coding(self, position: int) -> Coding:
        """The masks of a snapshot, which are those of its own B."""
        maps: Any = self._store.get("block_maps")
        ratio = int(self._frames[position])
        if ratio not in self._families:
            self._families[ratio] = tuple(derive_masks(spec.with_ratio(ratio), self._shape) for spec in self._specs)
        block_map = None if maps is None else np.asarray(maps[int(self._index[position])])
        return Coding(self._families[ratio], block_map)

    def _electrons(self, counts: npt.NDArray[Any], exposures: npt.NDArray[np.uint16] | int) -> Counts:
        signal = (counts - np.float64(self.offset_counts) * exposures) / self.counts_per_electron
        return np.maximum(np.round(signal), 0).astype(np.float32)


def stream_store(data: Path, stream: str) -> Path:
    """The store of a stream's id, or of the only one that begins so, in a decoder's data folder. Raises `FramefoldError`."""
    found = sorted((data / "streams").glob(f"{stream}*.zarr"))
    if len(found) != 1:
        there = ", ".join(path.stem for path in sorted((data / "streams").glob("*.zarr"))) or "none"
        raise FramefoldError(
            f"{data} holds {len(found)} streams named {stream!r}, expected one",
            hint=f"There are: {there}; --data names the folder",
        )
    return found[0]


def _measured(table: Any, name: str) -> float | None:
    """The median of what the decoder measured; None where it measured nothing."""
    if name not in table:
        return None
    values = np.asarray(table[name][:], np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None
