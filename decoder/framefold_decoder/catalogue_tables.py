"""The catalogue's tables, and opening the database that holds them. Queries are in `catalogue.py`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Engine, ForeignKey, Index, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from framefold_protocol.errors import StoreError

SCHEMA_VERSION = 1
"""Counts up with every change of the tables."""


class Base(DeclarativeBase):
    """Counts are 64 bits wide in every database."""

    type_annotation_map = {int: BigInteger, dict[str, Any]: JSON}  # noqa: RUF012 (SQLAlchemy's own way)


class SchemaRow(Base):
    """One row: the version of the tables."""

    __tablename__ = "schema"

    version: Mapped[int] = mapped_column(primary_key=True)


class StreamRow(Base):
    """One stream; the fields mean what `catalogue.StreamRecord` says."""

    __tablename__ = "streams"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    fields: Mapped[dict[str, Any]]
    """The stream's metadata, see `metadata.py`."""
    state: Mapped[str] = mapped_column(default="receiving")
    position: Mapped[int] = mapped_column(default=0)
    frames: Mapped[int] = mapped_column(default=0)
    frames_received: Mapped[int] = mapped_column(default=0)
    snapshots: Mapped[int] = mapped_column(default=0)
    decoded: Mapped[int] = mapped_column(default=0)
    bytes_received: Mapped[int] = mapped_column(default=0)
    added_unix_ns: Mapped[int]
    updated_unix_ns: Mapped[int]


class OwnerRow(Base):
    """Whose a stream is, when it was opened with a key."""

    __tablename__ = "owners"

    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), primary_key=True)
    key_name: Mapped[str]


class PositionRow(Base):
    """One stored position: what it is, and by which model it was reconstructed."""

    __tablename__ = "positions"

    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """snapshot, raw, audit or gap."""
    first_frame: Mapped[int]
    frames: Mapped[int]
    """How many it adds to the stream: none, for an audit group."""
    reason: Mapped[str]
    """Why the frames of a gap were lost; empty otherwise."""
    model: Mapped[str | None]
    """None: not reconstructed."""
    chi2: Mapped[float | None]
    psnr: Mapped[float | None]
    """dB, of audit groups only."""


UNDECODED = (PositionRow.kind == "snapshot") & PositionRow.model.is_(None)
"""What is left to do; the index makes it quick to find."""
Index("undecoded", PositionRow.stream_id, PositionRow.position, sqlite_where=UNDECODED, postgresql_where=UNDECODED)


class ModelRow(Base):
    """A model that has reconstructed here."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    card: Mapped[dict[str, Any]]


def open_database(url: str) -> Engine:
    """Connect, make the tables in an empty database, check their version. Raises `StoreError` and SQLAlchemy's errors."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        version = session.scalar(select(SchemaRow.version))
        if version is None:
            session.add(SchemaRow(version=SCHEMA_VERSION))
    if version not in (None, SCHEMA_VERSION):
        engine.dispose()
        message = f"catalogue {url} has schema version {version}, expected {SCHEMA_VERSION}"
        raise StoreError(message, hint="Run the framefold version that wrote it, or choose another data folder")
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    """Commits survive a power cut, readers never wait for the writer, a second writer waits up to 30 s."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")
