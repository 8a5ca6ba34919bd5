"""One stream's data on disk: snapshots, reconstructed frames and a row per position, as one Zarr v3 group (`layout.py`).

`put` is for one ingest thread, `put_frames` for any number of decode threads, reading for everyone. Positions, ratios and
counts only: which streams there are and what is left to do is the catalogue's (`catalogue.py`).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr

from framefold_decoder.store.arrays import file_of, grow, trim
from framefold_decoder.store.group_table import Group, GroupTable, Kind
from framefold_decoder.store.incoming import Counts, Folded, check_order, unpack
from framefold_decoder.store.layout import create_layout, open_layout
from framefold_decoder.store.metadata import check_metadata, from_json
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_decoder.store.rounding import Frames, round_below_noise
from framefold_protocol.coding import BlockMap, Coding
from framefold_protocol.durable import disk_errors
from framefold_protocol.errors import StoreError
from framefold_protocol.masks import Masks, derive_masks
from framefold_protocol.messages import Audit, Data, Gap, RawFrames, Snapshot, StreamMetadata
from framefold_protocol.noise import NoiseModel


class StreamStore:
    """A stream's store, open for reading and writing."""

    def __init__(self, path: Path, *, position: int | None = None, mask_folder: Path | None = None) -> None:
        """Open a store. `position`: the catalogue's, everything from there on is taken as not stored; None: as found on disk.

        `mask_folder` is where masks of kind `file` lie. Raises `StoreError`.
        """
        self.path = path
        with disk_errors(f"opening store {path}"):
            group, self._described = open_layout(path)
            self.metadata: StreamMetadata = from_json(self._described["stream"], str(path))
            self._group = group
            self._arrays: dict[str, zarr.Array[Any]] = dict(group.arrays())
            self._table = GroupTable(cast("zarr.Group", group["groups"]), path, position)
        self._frames_lock = threading.Lock()  # groups after a gap share shards
        self._masks = lru_cache(maxsize=4)(lambda ratio: self._derive_masks(ratio, mask_folder))

    @classmethod
    def create(cls, path: Path, metadata: StreamMetadata, *, mask_folder: Path | None = None) -> StreamStore:
        """Make an empty store and open it. Raises `StoreError`, or `RemoteProtocolError` when the metadata cannot be."""
        check_metadata(metadata)
        create_layout(path, metadata)
        return cls(path, mask_folder=mask_folder)

    @property
    def position(self) -> int:
        """The next position that is not stored."""
        return len(self._table)

    @property
    def frame_count(self) -> int:
        """Frames the stored positions cover, lost ones among them: the true length of `frames` while a stream runs."""
        return self._table[self.position - 1].end if self.position else 0

    @property
    def snapshot_count(self) -> int:
        """Snapshots that are stored: the true length of `snapshots` while a stream runs."""
        return self._table.sizes(self.position)[0]

    @property
    def complete(self) -> bool:
        """Whether the stream has ended and all of it is stored."""
        return bool(self._described["complete"])

    # Writing

    def put(self, *batch: Data) -> None:
        """Store consecutive positions, the first at most `position`; on the disk when this returns.

        Storing a position again writes the same bytes, so a crash before the catalogue knows of it is harmless. A batch
        shares its fsyncs. Raises `RemoteProtocolError`, with nothing written, when a message's pixels are not what its header
        promised, and `StoreError`.
        """
        self._check_order(batch)
        pixels = [unpack(data, self.metadata) for data in batch]
        groups = self._rows(batch)
        with disk_errors(f"storing position {batch[0].position} in {self.path}"):
            self._put_snapshots([(g.index, p) for g, p in zip(groups, pixels, strict=True) if isinstance(p, Folded)])
            for group, frames in zip(groups, pixels, strict=True):
                if isinstance(frames, np.ndarray):
                    self._put_raw(group, frames)
            self._record_gaps([data for data in batch if isinstance(data, Gap)])
            grow(self._arrays["frames"], groups[-1].end)
            self._table.write(groups)

    def put_frames(self, position: int, frames: Frames, quality: Quality, provenance: Provenance) -> None:
        """Store a snapshot's reconstruction: (B, H, W) float32 detector counts, rounded below their noise.

        A later call for the same position replaces it. Raises `StoreError`.
        """
        group = self.group(position)
        expected = (group.frames, *self.metadata.shape)
        if group.kind is not Kind.SNAPSHOT or frames.shape != expected:
            found = f"{frames.shape} for a {group.kind}"
            raise StoreError(f"frames of position {position} are {found}, expected {expected} for a snapshot")
        told = NoiseModel(self.metadata.counts_per_electron or 1.0)
        rounded = round_below_noise(np.asarray(frames, np.float32), quality.noise or told)
        with disk_errors(f"storing the frames of position {position} in {self.path}"):
            with self._frames_lock:
                self._arrays["frames"][group.first_frame : group.end] = rounded
            self._table.set_quality(position, quality, provenance)

    def finish(self, positions: int, frames: int) -> None:
        """Close the stream: it has this many positions and frames. Arrays get their true lengths; twice is a no-op."""
        if (positions, frames) != (self.position, self.frame_count):
            found = f"{self.position} positions and {self.frame_count} frames"
            raise StoreError(f"store {self.path} holds {found}, expected {positions} and {frames}", hint="Send the rest first")
        snapshots, raw, audit = self._table.sizes(positions)
        with disk_errors(f"finishing store {self.path}"):
            for name, array in self._arrays.items():
                trim(array, {"frames": frames, "raw": raw, "audit": audit}.get(name, snapshots))
            self._table.trim()
            self._describe(complete=True, positions=positions, frames=frames)

    # Reading

    def group(self, position: int) -> Group:
        """The row of a stored position. Raises `StoreError` outside 0 to `position` - 1."""
        if not 0 <= position < self.position:
            raise StoreError(f"position {position} is not stored in {self.path}, expected 0 to {self.position - 1}")
        return self._table[position]

    def groups(self, start: int = 0, stop: int | None = None) -> list[Group]:
        """The rows of positions start to stop - 1, as far as they are stored."""
        return [self._table[position] for position in range(self.position)[start:stop]]

    def measures(self, name: str) -> npt.NDArray[np.float64]:
        """One of `Quality`'s fields for every stored position, such as `chi2`; NaN where there is none."""
        return self._table.measures(name)

    def find(self, frame: int) -> int:
        """The position that covers a frame. Raises `StoreError` outside 0 to `frame_count` - 1."""
        if not 0 <= frame < self.frame_count:
            raise StoreError(f"frame {frame} is not stored in {self.path}, expected 0 to {self.frame_count - 1}")
        return self._table.find(frame)

    def snapshot(self, position: int) -> Counts:
        """The sums of a position that holds a snapshot: (H, W)."""
        return self._read("snapshots", self._group_of(Kind.SNAPSHOT, position).index)

    def snapshot_at(self, index: int) -> Counts:
        """The sums of the stream's snapshot number `index`, gaps and raw groups not counted: (H, W)."""
        if not 0 <= index < self.snapshot_count:
            raise StoreError(f"snapshot {index} is not stored in {self.path}, expected 0 to {self.snapshot_count - 1}")
        return self._read("snapshots", index)

    def raw(self, position: int) -> Counts:
        """The frames of a position that was sent raw: (n, H, W) of the detector's type."""
        group = self._group_of(Kind.RAW, position)
        return self._read("raw", slice(group.index, group.index + group.frames))

    def audit(self, position: int) -> Counts | None:
        """The frames that a snapshot was folded from, (B, H, W) of the detector's type; None where they were not sent."""
        rows = self._audit_rows(self._group_of(Kind.SNAPSHOT, position))
        return None if rows is None else self._read("audit", rows)

    def last_audit(self, position: int) -> int | None:
        """The last position up to this one that holds a snapshot whose frames were sent too."""
        if not self.metadata.audit:
            return None
        groups = (self.group(earlier) for earlier in range(position, -1, -1))
        return next((g.position for g in groups if g.kind is Kind.SNAPSHOT and self._audit_rows(g)), None)

    def coding(self, position: int) -> Coding:
        """The masks that folded a snapshot."""
        group = self._group_of(Kind.SNAPSHOT, position)
        block_map: BlockMap | None = self._read("block_maps", group.index) if "block_maps" in self._arrays else None
        return Coding(self._masks(group.frames), block_map)

    def frames(self, start: int, stop: int) -> Frames:
        """Frames start to stop - 1 in detector counts: (stop - start, H, W) float32, NaN where lost or not reconstructed."""
        if not 0 <= start <= stop <= self.frame_count:
            raise StoreError(f"frames {start} to {stop} are not stored in {self.path}, expected 0 to {self.frame_count}")
        return self._read("frames", slice(start, stop))

    # Details

    def _derive_masks(self, ratio: int, folder: Path | None) -> tuple[Masks, ...]:
        return tuple(derive_masks(spec.with_ratio(ratio), self.metadata.shape, folder) for spec in self.metadata.families)

    def _read(self, name: str, rows: int | slice) -> npt.NDArray[Any]:
        """Of what is stored. Raises `StoreError` for what is damaged, and for what is gone."""
        items = range(rows, rows + 1) if isinstance(rows, int) else range(rows.start, rows.stop)
        for item in items if name != "frames" else ():  # of those several share a file
            if not (file := file_of(self.path / name, self._arrays[name], item)).is_file():
                hint = "Restore it from a backup; framefold-decoder verify tells what else is missing"
                raise StoreError(f"{file} is missing", hint=hint)
        try:
            with disk_errors(f"reading {name} of {self.path}"):
                return self._read_frames(rows) if name == "frames" else np.asarray(self._arrays[name][rows])
        except (ValueError, RuntimeError) as error:  # what Zarr's codecs raise
            hint = "Restore the file from a backup; frames can also be reconstructed again"
            raise StoreError(f"{name} of {self.path} is damaged at {rows}: {error}", hint=hint) from error

    def _read_frames(self, rows: int | slice) -> Frames:
        """While frames are made anew, their file may be replaced between Zarr's two looks into it: then once more, with nobody
        writing."""
        with suppress(OSError, ValueError, RuntimeError):
            return np.asarray(self._arrays["frames"][rows])
        with self._frames_lock:
            return np.asarray(self._arrays["frames"][rows])

    def _audit_rows(self, group: Group) -> slice | None:
        """The rows of `audit` with a snapshot's frames: those of the audit groups directly before it."""
        first, held = group.position, 0
        while first > 0 and (before := self._table[first - 1]).kind is Kind.AUDIT and before.timestamp_ns == group.timestamp_ns:
            first, held = first - 1, held + before.frames
        if not held or held != group.frames:  # an encoder that was killed may leave some without their snapshot
            return None
        return slice(self._table[first].index, self._table[first].index + held)

    def _group_of(self, kind: Kind, position: int) -> Group:
        group = self.group(position)
        if group.kind is not kind:
            raise StoreError(f"position {position} of {self.path} is {group.kind}, expected {kind}")
        return group

    def _check_order(self, batch: tuple[Data, ...]) -> None:
        first, end = batch[0].position, batch[-1].position + 1
        if not 0 <= first <= self.position or (self.complete and end > self.position):
            state = "complete" if self.complete else "receiving"
            raise StoreError(f"store {self.path} ({state}) was given position {first}, expected {self.position}")
        check_order(batch, self._table[first - 1].end if first else 0)

    def _rows(self, batch: tuple[Data, ...]) -> list[Group]:
        snapshots, raw, audit = self._table.sizes(batch[0].position)
        groups = []
        for data in batch:
            match data:
                case Snapshot():
                    kind, index, snapshots = Kind.SNAPSHOT, snapshots, snapshots + 1
                case RawFrames():
                    kind, index, raw = Kind.RAW, raw, raw + data.frames
                case Audit():
                    kind, index, audit = Kind.AUDIT, audit, audit + data.count
                case Gap():
                    kind, index = Kind.GAP, -1
            timestamp_ns = 0 if isinstance(data, Gap) else data.timestamp_ns
            frames = data.count if isinstance(data, Audit) else data.frames
            step = data.quantisation.step if isinstance(data, Snapshot) and data.quantisation else 0.0
            noise = data.noise if isinstance(data, Snapshot) else None
            groups.append(Group(data.position, kind, data.first_frame, frames, timestamp_ns, index, step, noise))
        return groups

    def _put_snapshots(self, batch: list[tuple[int, Folded]]) -> None:
        """Consecutive rows in one write, so that Zarr codes and syncs their files side by side."""
        if not batch:
            return
        first, end = batch[0][0], batch[-1][0] + 1
        columns = {"snapshots": [folded.sums for _, folded in batch], "block_maps": [folded.block_map for _, folded in batch]}
        for name in columns.keys() & self._arrays.keys():
            grow(self._arrays[name], end)
            self._arrays[name][first:end] = np.stack(columns[name])

    def _put_raw(self, group: Group, frames: Counts) -> None:
        """Exact in `raw` or `audit`; raw groups in `frames` too, as float32, exact up to 2^24 counts."""
        array = self._arrays[group.kind.value]
        grow(array, group.index + group.frames)
        array[group.index : group.index + group.frames] = frames
        if group.kind is Kind.AUDIT:
            return
        grow(self._arrays["frames"], group.end)
        with self._frames_lock:
            self._arrays["frames"][group.first_frame : group.end] = frames.astype(np.float32)

    def _record_gaps(self, gaps: list[Gap]) -> None:
        known = {gap["position"]: gap for gap in self._described["gaps"]}
        for gap in gaps:
            row = {"first_frame": gap.first_frame, "frames": gap.frames, "reason": gap.reason}
            known[gap.position] = {"position": gap.position} | row
        if gaps:
            self._describe(gaps=list(known.values()))

    def _describe(self, **changes: object) -> None:
        self._described = self._described | changes
        self._group.attrs["framefold"] = self._described
