"""`verify` finds every kind of damage in a data folder, names the file, and changes nothing."""

import shutil
import sqlite3

import numpy as np
import pytest
from stream_examples import TWO_FAMILIES, Example, make_metadata

from framefold_decoder.cli import main
from framefold_decoder.library import Library
from framefold_decoder.verifying import verify
from framefold_protocol import payload, wire
from framefold_protocol.disk_journal import DiskJournal
from framefold_protocol.errors import InputError, StoreError
from framefold_protocol.messages import Snapshot


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data folder with a complete stream, a running one that has a journal, and an all-dark snapshot."""
    data = tmp_path_factory.mktemp("verify") / "data"
    library = Library.open(data)
    complete = Example(make_metadata(stream_id="a" * 32, families=TWO_FAMILIES)).fold(2).gap(3).raw(2)
    running = Example(make_metadata(stream_id="b" * 32)).fold(3)
    for example, positions in ((complete, 4), (running, 1)):
        library.add_stream(example.metadata)
        library.put(example.metadata.stream_id, example.messages[:positions], 1)
    library.finish("a" * 32, 4, complete.frames)
    library.close()
    journal = DiskJournal.create(data / "journal" / ("b" * 32), b"", 10**6, start=1)
    for message in running.messages[1:]:
        journal.append(wire.encode(message))
    journal.sync()
    journal.close()
    return data


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path, at=0.5):
    found = bytearray(path.read_bytes())
    found[int(len(found) * at)] ^= 1
    path.write_bytes(found)


def test_a_whole_folder_is_whole_and_stays_as_it_is(data, capsys):
    before = files(data)
    assert main(["verify", "--data", str(data)]) == 0
    assert "2 streams: 3 snapshots, 2 raw frames, 0 reconstructed frames, 2 messages in journals" in capsys.readouterr().out
    assert files(data) == before


A, B = "streams/" + "a" * 32 + ".zarr", "streams/" + "b" * 32 + ".zarr"


@pytest.mark.parametrize(
    ("path", "damage", "named"),
    [
        (f"{A}/snapshots/c/1/0/0", flip, "is damaged"),
        (f"{A}/snapshots/c/1/0/0", lambda path: path.unlink(), "is missing"),
        (f"{A}/raw/c/0/0/0", flip, "is damaged"),
        (f"{A}/block_maps/c/0/0/0", lambda path: path.unlink(), "is missing"),
        (f"{A}/frames/c/3/0/0", lambda path: path.unlink(), "some are missing"),
        (f"{A}/groups/first_frame/c/0", flip, "checksum"),
        (f"{A}/groups/kind/c/0", lambda path: path.unlink(), "holds 0 positions, expected 4"),
        (f"{A}/zarr.json", lambda path: path.unlink(), "stream " + "a" * 32),
        (f"{B}", shutil.rmtree, "stream " + "b" * 32),
        ("journal/" + "b" * 32 + "/00000000000000000001.journal", flip, "position"),
    ],
)
def test_damage_is_named(data, path, damage, named, capsys):
    assert (data / path).exists()
    damage(data / path)
    before = files(data)
    assert main(["verify", "--data", str(data)]) == 1
    *problems, summary = capsys.readouterr().out.splitlines()
    assert any(named in problem for problem in problems)
    assert "problem" in summary
    assert files(data) == before


def test_a_catalogue_that_says_more_than_there_is_is_found_out(data):
    with sqlite3.connect(data / "catalogue.sqlite") as database:
        database.execute("UPDATE streams SET snapshots = 7 WHERE position = 4")
    database.close()
    (problem,) = verify(data).problems
    assert "holds 2 snapshots, the catalogue 7" in problem


def test_one_stream_can_be_checked_alone(data):
    flip(data / A / "snapshots/c/0/0/0")
    assert not verify(data, "b" * 32).problems
    assert len(verify(data, "a" * 32).problems) == 1
    with pytest.raises(InputError, match="unknown"):
        verify(data, "c" * 32)


def test_what_cannot_be_checked_is_an_error(data, tmp_path, capsys):
    with pytest.raises(StoreError, match="no catalogue"):
        verify(tmp_path)
    library = Library.open(data)
    assert main(["verify", "--data", str(data)]) == 2
    assert "in use by a decoder" in capsys.readouterr().err
    library.close()


def test_a_dark_snapshot_is_a_file_too(tmp_path):
    metadata = make_metadata(stream_id="a" * 32)
    library = Library.open(tmp_path)
    library.add_stream(metadata)
    dark = payload.pack(np.zeros(metadata.shape, np.uint16))
    library.put("a" * 32, [Snapshot(0, 0, 4, 0, **vars(dark))], 1)
    library.close()
    assert not verify(tmp_path).problems
    (tmp_path / A / "snapshots/c/0/0/0").unlink()
    assert verify(tmp_path).problems
