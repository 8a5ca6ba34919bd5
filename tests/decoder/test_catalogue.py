from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import sqlalchemy
from stream_examples import Example, make_metadata

from framefold_decoder.catalogue import Catalogue
from framefold_decoder.catalogue_tables import open_database
from framefold_protocol.errors import RemoteProtocolError, StoreError
from framefold_protocol.masks import MaskSpec


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"


@pytest.fixture
def catalogue(url):
    catalogue = Catalogue(url)
    yield catalogue
    catalogue.close()


@pytest.fixture
def example():
    return Example(make_metadata()).fold(2).gap(6, "link down").raw(3)


def test_a_new_stream_stands_at_the_beginning(catalogue, example):
    record = catalogue.add_stream(example.metadata)
    assert record.metadata == example.metadata
    assert (record.state, record.position, record.frames, record.decoded, record.wire_ratio) == ("receiving", 0, 0, 0, None)


def test_positions_are_counted_with_their_frames_and_bytes(catalogue, example):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    catalogue.record(stream_id, example.messages[:3], wire_bytes=1000)
    catalogue.record(stream_id, example.messages[3:], wire_bytes=110)
    record = catalogue.stream(stream_id)
    assert (record.position, record.frames, record.frames_received, record.snapshots) == (4, 17, 11, 2)
    assert record.bytes_received == 1110
    assert record.bytes_delivered == 11 * 37 * 70
    assert record.wire_ratio == 11 * 37 * 70 / 1110


def test_it_is_all_there_after_opening_again(url, example):
    first = Catalogue(url)
    first.add_stream(example.metadata)
    first.record(example.metadata.stream_id, example.messages, 10)
    expected = first.streams()
    first.close()
    second = Catalogue(url)
    assert second.streams() == expected
    assert second.add_stream(example.metadata) == expected[0]
    second.close()


@pytest.mark.parametrize("batch", [slice(0, 1), slice(2, 3)])
def test_a_batch_must_start_at_the_next_position(catalogue, example, batch):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    catalogue.record(stream_id, example.messages[:1], 10)
    before = catalogue.stream(stream_id)
    with pytest.raises(StoreError, match="cannot record position"):
        catalogue.record(stream_id, example.messages[batch], 10)
    assert catalogue.stream(stream_id) == before


def test_a_batch_is_recorded_whole_or_not_at_all(catalogue, example):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    before = catalogue.stream(stream_id)
    with pytest.raises(StoreError):
        catalogue.record(stream_id, [example.messages[0], example.messages[1], example.messages[1]], 10)
    assert catalogue.stream(stream_id) == before
    assert catalogue.pending() == []


def test_an_unknown_stream(catalogue, example):
    assert catalogue.stream("f" * 32) is None
    with pytest.raises(StoreError, match="f" * 32):
        catalogue.record("f" * 32, example.messages[:1], 10)


@pytest.mark.parametrize("change", [{"name": "other"}, {"families": (MaskSpec(ratio=4, period=8, seed=1),)}])
def test_a_stream_known_with_other_metadata_is_refused(catalogue, example, change):
    catalogue.add_stream(example.metadata)
    with pytest.raises(RemoteProtocolError, match="known with other metadata"):
        catalogue.add_stream(replace(example.metadata, **change))
    assert catalogue.stream(example.metadata.stream_id).metadata == example.metadata


def test_finishing_closes_a_stream_at_its_position(catalogue, example):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    catalogue.record(stream_id, example.messages[:3], 10)
    with pytest.raises(StoreError, match="cannot finish at position 4"):
        catalogue.finish(stream_id, 4)
    catalogue.finish(stream_id, 3)
    catalogue.finish(stream_id, 3)
    assert catalogue.stream(stream_id).state == "complete"
    with pytest.raises(StoreError):
        catalogue.record(stream_id, example.messages[3:], 10)


def test_gaps_are_told_in_order_with_their_reason(catalogue):
    example = Example(make_metadata()).gap(6, "link down").fold().gap(1, "disk full")
    catalogue.add_stream(example.metadata)
    catalogue.record(example.metadata.stream_id, example.messages, 10)
    assert catalogue.gaps(example.metadata.stream_id) == [example.messages[0], example.messages[2]]


def test_snapshots_are_pending_until_they_are_decoded(catalogue, example):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    other = Example(make_metadata(stream_id="f" * 32)).fold(3)
    catalogue.add_stream(other.metadata)
    catalogue.record(stream_id, example.messages, 10)
    catalogue.record("f" * 32, other.messages, 10)
    assert set(catalogue.pending()) == {(stream_id, 0), (stream_id, 1), *(("f" * 32, p) for p in range(3))}
    assert catalogue.pending("f" * 32, limit=2) == [("f" * 32, 0), ("f" * 32, 1)]
    assert catalogue.pending("f" * 32, start=1) == [("f" * 32, 1), ("f" * 32, 2)]

    catalogue.mark_decoded(stream_id, 1, "gap-tv", chi2=1.5)
    catalogue.mark_decoded(stream_id, 1, "net", chi2=float("nan"), psnr=30.0)
    assert catalogue.pending(stream_id) == [(stream_id, 0)]
    assert catalogue.stream(stream_id).decoded == 1


@pytest.mark.parametrize("position", [2, 3, 4])
def test_only_stored_snapshots_are_decoded(catalogue, example, position):
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id
    catalogue.record(stream_id, example.messages, 10)
    with pytest.raises(StoreError, match=f"cannot decode position {position}"):
        catalogue.mark_decoded(stream_id, position, "gap-tv", 1.0)


def test_newest_streams_come_first(catalogue):
    ids = [catalogue.add_stream(make_metadata()).metadata.stream_id for _ in range(3)]
    assert [record.metadata.stream_id for record in catalogue.streams()] == ids[::-1]


def test_models_are_kept_by_name(catalogue):
    catalogue.add_model("net", {"sha256": "1"})
    catalogue.add_model("net", {"sha256": "2"})
    catalogue.add_model("gap-tv", {})
    assert catalogue.models() == {"gap-tv": {}, "net": {"sha256": "2"}}


def test_two_writers_wait_for_each_other(catalogue):
    """Ingest and decoding of one stream, as two threads: no commit is lost, none fails."""
    example = Example(make_metadata((2, 2))).fold(40)
    stream_id = catalogue.add_stream(example.metadata).metadata.stream_id

    def decode():
        decoded = 0
        while decoded < 40:
            for _, position in catalogue.pending(stream_id):
                catalogue.mark_decoded(stream_id, position, "gap-tv", 1.0)
                decoded += 1

    decoder = threading.Thread(target=decode)
    decoder.start()
    for message in example.messages:
        catalogue.record(stream_id, [message], 1)
    decoder.join(timeout=60)
    record = catalogue.stream(stream_id)
    assert (record.position, record.decoded, record.bytes_received) == (40, 40, 40)


def test_sqlite_commits_survive_a_power_cut(url):
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    engine.dispose()


def test_a_newer_schema_is_refused(url):
    Catalogue(url).close()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schema SET version = 2")
    engine.dispose()
    with pytest.raises(StoreError, match="schema version 2, expected 1") as caught:
        Catalogue(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "bad",
    ["nonsense", "nodatabase://host/db", "postgresql+psycopg://127.0.0.1:1/db", "sqlite:////no/such/folder/catalogue.sqlite"],
)
def test_a_database_that_cannot_be_opened_is_a_store_error(bad):
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Catalogue(bad)
    assert "URL" in caught.value.hint


def test_a_file_that_is_no_database_is_a_store_error(tmp_path, url):
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Catalogue(url)


def test_passwords_stay_out_of_messages():
    with pytest.raises(StoreError) as caught:
        Catalogue("nodriver://user:geheim@host/db")
    assert "geheim" not in str(caught.value)
