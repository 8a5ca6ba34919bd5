"""The catalogue: which streams there are, how far each is stored, what is lost, what is left to reconstruct, and with what.

A database by SQLAlchemy URL, `DATA/catalogue.sqlite` by default. A position counts as stored when `record` has committed it.
Tables are in `catalogue_tables.py`; pixels are the store's (`store/`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import CursorResult, delete, make_url, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from framefold_decoder.catalogue_tables import (
    UNDECODED,
    ModelRow,
    OwnerRow,
    PositionRow,
    SchemaRow,
    StreamRow,
    open_database,
)
from framefold_decoder.store.metadata import from_json, to_json
from framefold_protocol.errors import RemoteProtocolError, StoreError
from framefold_protocol.messages import Audit, Data, Gap, RawFrames, Snapshot, StreamMetadata

State = Literal["receiving", "complete"]
_DELETED = "deleted"
"""State of a stream that is no more. Its row stays, so that its encoder is not taken for a new one."""


@dataclass(frozen=True)
class StreamRecord:
    """What the catalogue knows of a stream."""

    metadata: StreamMetadata
    state: State
    position: int
    """The next position that is not stored."""
    frames: int
    """Frames before that position, lost ones among them."""
    frames_received: int
    """Frames that arrived, folded or raw."""
    snapshots: int
    """Snapshots among the positions."""
    decoded: int
    """Snapshots that are reconstructed."""
    bytes_received: int
    """Bytes that crossed the wire for it, all headers in."""
    added_unix_ns: int
    """When the decoder first heard of it, nanoseconds since 1970, decoder's clock."""
    updated_unix_ns: int
    """When its last position was stored, or it was completed."""

    @property
    def bytes_delivered(self) -> int:
        """Bytes of the frames that arrived, as the detector delivered them."""
        height, width = self.metadata.shape
        return self.frames_received * height * width * _ITEMSIZE[self.metadata.dtype]

    @property
    def wire_ratio(self) -> float | None:
        """Bytes delivered over bytes received; None before anything was received."""
        return self.bytes_delivered / self.bytes_received if self.bytes_received else None


_ITEMSIZE = {"uint8": 1, "uint16": 2, "uint32": 4}


class Catalogue:
    """One catalogue; its methods may be called from any thread. All raise `StoreError` when the database cannot be used."""

    def __init__(self, url: str) -> None:
        """Open the database, making its tables when it is empty."""
        self._name = "at an unreadable URL"
        with self._errors():
            self._name = repr(make_url(url))  # hides the password
            self._engine = open_database(url)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Ask the database for a sign of life."""
        with self._session() as session:
            session.scalar(select(SchemaRow.version))

    def add_stream(self, metadata: StreamMetadata, key_name: str = "") -> StreamRecord:
        """Take up a stream, or find it; the first key it comes with owns it.

        Raises `RemoteProtocolError` when it is known with other metadata.
        """
        with self._session() as session:
            row = session.get(StreamRow, metadata.stream_id)
            if row is None:
                now = time.time_ns()
                fields = to_json(metadata)
                row = StreamRow(
                    id=metadata.stream_id, name=metadata.name, fields=fields, added_unix_ns=now, updated_unix_ns=now
                )
                session.add(row)
                session.flush()
            if key_name and session.get(OwnerRow, metadata.stream_id) is None:
                session.add(OwnerRow(stream_id=metadata.stream_id, key_name=key_name))
            record = _record(row)
        if record.metadata != metadata:
            message = f"stream {metadata.stream_id} is known with other metadata"
            hint = "A stream id is never used again: start the encoder afresh"
            raise RemoteProtocolError(message, code="metadata", hint=hint)
        return record

    def record(self, stream_id: str, batch: Sequence[Data], wire_bytes: int) -> None:
        """Count consecutive positions as stored, all or none; the first must be the stream's next.

        `wire_bytes`: all that arrived for them, and for control messages since the last call.
        """
        arrived = [data for data in batch if not isinstance(data, Gap)]
        counts = {
            "position": StreamRow.position + len(batch),
            "frames": StreamRow.frames + sum(data.frames for data in batch),
            "frames_received": StreamRow.frames_received + sum(data.frames for data in arrived),
            "snapshots": StreamRow.snapshots + sum(isinstance(data, Snapshot) for data in batch),
            "bytes_received": StreamRow.bytes_received + wire_bytes,
            "updated_unix_ns": time.time_ns(),
        }
        with self._session() as session:
            # The first statement writes, so that a second writer waits for this one instead of failing.
            found = StreamRow.id == stream_id, StreamRow.position == batch[0].position, StreamRow.state == "receiving"
            self._expect_one(
                "record", session.execute(update(StreamRow).where(*found).values(counts)), stream_id, batch[0].position
            )
            session.add_all(_position_row(stream_id, data) for data in batch)

    def finish(self, stream_id: str, position: int) -> None:
        """Mark a stream complete: `position` positions are all it has. Twice is a no-op."""
        with self._session() as session:
            found = StreamRow.id == stream_id, StreamRow.position == position
            changes = {"state": "complete", "updated_unix_ns": time.time_ns()}
            self._expect_one("finish at", session.execute(update(StreamRow).where(*found).values(changes)), stream_id, position)

    def delete(self, stream_id: str) -> bool:
        """Forget a stream, but for its id, its owner and when it was here; whether there was one."""
        found = StreamRow.id == stream_id, StreamRow.state != _DELETED
        counts = dict.fromkeys(("position", "frames", "frames_received", "snapshots", "decoded", "bytes_received"), 0)
        emptied = {"state": _DELETED, "name": "", "fields": {}, "updated_unix_ns": time.time_ns()} | counts
        with self._session() as session:
            deleted = _changed(session.execute(update(StreamRow).where(*found).values(emptied)))
            if deleted:
                session.execute(delete(PositionRow).where(PositionRow.stream_id == stream_id))
        return deleted

    def deleted(self) -> list[str]:
        """The ids of streams that were deleted."""
        with self._session() as session:
            return list(session.scalars(select(StreamRow.id).where(StreamRow.state == _DELETED)))

    def check_not_deleted(self, stream_id: str) -> None:
        """Raise `RemoteProtocolError` (code `deleted`) when this stream was deleted."""
        with self._session() as session:
            row = session.get(StreamRow, stream_id)
            if row is not None and row.state == _DELETED:
                hint = "Send the source as a new stream, with an empty journal"
                raise RemoteProtocolError(f"stream {stream_id} was deleted at the decoder", code="deleted", hint=hint)

    def streams(self) -> list[StreamRecord]:
        """All streams, the newest first."""
        with self._session() as session:
            kept = select(StreamRow).where(StreamRow.state != _DELETED)
            return [_record(row) for row in session.scalars(kept.order_by(StreamRow.added_unix_ns.desc(), StreamRow.id))]

    def stream(self, stream_id: str) -> StreamRecord | None:
        """One stream; None when it is unknown."""
        with self._session() as session:
            row = session.get(StreamRow, stream_id)
            return None if row is None or row.state == _DELETED else _record(row)

    def owner(self, stream_id: str) -> str:
        """The name of the key that opened a stream; empty when it came without one, or is unknown."""
        with self._session() as session:
            row = session.get(OwnerRow, stream_id)
            return row.key_name if row else ""

    def gaps(self, stream_id: str) -> list[Gap]:
        """What was lost of a stream, in order."""
        with self._session() as session:
            rows = select(PositionRow).where(PositionRow.stream_id == stream_id, PositionRow.kind == "gap")
            ordered = session.scalars(rows.order_by(PositionRow.position))
            return [Gap(row.position, row.first_frame, row.frames, row.reason) for row in ordered]

    def pending_streams(self) -> list[str]:
        """Streams with snapshots that are stored and not reconstructed, the oldest first."""
        waiting = select(PositionRow.stream_id).where(UNDECODED).distinct()
        wanted = select(StreamRow.id).where(StreamRow.id.in_(waiting)).order_by(StreamRow.added_unix_ns, StreamRow.id)
        with self._session() as session:
            return list(session.scalars(wanted))

    def pending(self, stream_id: str | None = None, limit: int = 1000, start: int = 0) -> list[tuple[str, int]]:
        """(stream id, position) of snapshots that are stored and not reconstructed, in order; of all streams or of one, from
        position `start` on."""
        wanted = select(PositionRow.stream_id, PositionRow.position).where(UNDECODED, PositionRow.position >= start)
        if stream_id is not None:
            wanted = wanted.where(PositionRow.stream_id == stream_id)
        with self._session() as session:
            rows = session.execute(wanted.order_by(PositionRow.stream_id, PositionRow.position).limit(limit))
            return [(row.stream_id, row.position) for row in rows]

    def mark_decoded(self, stream_id: str, position: int, model: str, chi2: float | None, psnr: float | None = None) -> None:
        """Count a snapshot as reconstructed by `model`; again by another replaces it. `psnr` in dB, of audit groups."""
        found = PositionRow.stream_id == stream_id, PositionRow.position == position, PositionRow.kind == "snapshot"
        finite = chi2 if chi2 is not None and math.isfinite(chi2) else None
        change = update(PositionRow).values(model=model, chi2=finite, psnr=psnr).where(*found)
        with self._session() as session:
            if _changed(session.execute(change.where(PositionRow.model.is_(None)))):
                counted = update(StreamRow).where(StreamRow.id == stream_id).values(decoded=StreamRow.decoded + 1)
                session.execute(counted)
            else:
                self._expect_one("decode", session.execute(change), stream_id, position)

    def add_model(self, name: str, card: Mapping[str, Any]) -> None:
        """Keep the card of a model that reconstructs here, so that frames can be traced to it when it is gone."""
        with self._session() as session:
            session.merge(ModelRow(name=name, card=dict(card)))

    def models(self) -> dict[str, dict[str, Any]]:
        """The cards of all models that ever reconstructed here, by name."""
        with self._session() as session:
            return {row.name: row.card for row in session.scalars(select(ModelRow).order_by(ModelRow.name))}

    def _expect_one(self, operation: str, result: object, stream_id: str, position: int) -> None:
        if not _changed(result):
            message = f"catalogue cannot {operation} position {position} of stream {stream_id}: the stream does not stand there"
            raise StoreError(
                message, hint="Positions are recorded once and in order, then finished; snapshots are decoded after"
            )

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by an error."""
        with self._errors(), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:  # ImportError: the URL's driver is not installed
            hint = "Check that the data folder is writable and the disk not full, or the database URL and its driver"
            cause = getattr(error, "orig", None) or error
            raise StoreError(f"catalogue {self._name} cannot be used: {cause}", hint=hint) from error


def _changed(result: object) -> bool:
    """Whether an update found its row."""
    return cast("CursorResult[Any]", result).rowcount == 1


def _record(row: StreamRow) -> StreamRecord:
    return StreamRecord(
        metadata=from_json(row.fields, f"the catalogue, stream {row.id}"),
        state=cast("State", row.state),
        position=row.position,
        frames=row.frames,
        frames_received=row.frames_received,
        snapshots=row.snapshots,
        decoded=row.decoded,
        bytes_received=row.bytes_received,
        added_unix_ns=row.added_unix_ns,
        updated_unix_ns=row.updated_unix_ns,
    )


def _position_row(stream_id: str, data: Data) -> PositionRow:
    kind = {Snapshot: "snapshot", RawFrames: "raw", Audit: "audit", Gap: "gap"}[type(data)]
    return PositionRow(
        stream_id=stream_id,
        position=data.position,
        kind=kind,
        first_frame=data.first_frame,
        frames=data.frames,
        reason=data.reason if isinstance(data, Gap) else "",
    )
