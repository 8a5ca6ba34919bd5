"""What is special to Zarr: which array, and damaged stores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from test_sources_contract import read_all, recording, write_zarr
from test_sources_open import refusal

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_in_groups(path: Path, version: int) -> None:
    group = zarr.create_group(path, zarr_format=version)
    group.create_array("raw/frames", data=recording(seed=1))
    group.create_array("gain", data=np.ones((37, 53), np.float32))
    group.create_array("map", data=np.ones((2, 37, 53), np.float32))
    (path / "README.txt").write_text("not part of the store")
    for uri in (f"file:{path}", f"file:{path}#raw/frames", f"file:{path}#/raw/frames", f"file:{path}/raw/frames"):
        with open_source(uri) as source:
            np.testing.assert_array_equal(read_all(source), recording(seed=1))


def test_which_array_is_asked_when_it_is_not_clear(path: Path) -> None:
    group = zarr.create_group(path)
    group.create_array("b", data=recording(count=5))
    group.create_array("a", data=recording(np.uint8, count=6))
    group.create_array("float", data=np.ones((3, 8, 9)))
    stacks = "#/a 6x37x53 uint8, #/b 5x37x53 uint16"
    message = f"{path}: 2 three-dimensional arrays of unsigned integers, expected one. Name one of: {stacks}"
    assert refusal(f"file:{path}") == message
    assert f"{path}: has no array 'c'. Name one of: {stacks}, #/float 3x8x9 float64" in refusal(f"file:{path}#c")
    assert f"{path}#float: values are float64" in refusal(f"file:{path}#float")


def test_an_empty_group(path: Path) -> None:
    zarr.create_group(path)
    assert refusal(f"file:{path}") == (
        f"{path}: no three-dimensional array of unsigned integers, expected one. Name the array after '#': file:PATH#frames"
    )


def test_arrays_that_are_no_stack_are_listed(path: Path) -> None:
    zarr.create_group(path).create_array("map", data=np.ones((2, 37, 53), np.float32))
    message = f"{path}: no three-dimensional array of unsigned integers, expected one. Name one of: #/map 2x37x53 float32"
    assert refusal(f"file:{path}") == message


def test_an_array_has_no_arrays_in_it(path: Path) -> None:
    write_zarr(path, recording())
    assert f"{path}: is itself an array, there is no 'frames' in it. Write file:{path}" in refusal(f"file:{path}#frames")


def test_negative_values(path: Path) -> None:
    frames = recording(np.int16, count=5)
    frames[4, 1, 1] = -3
    write_zarr(path, frames)
    with (
        open_source(f"file:{path}") as source,
        pytest.raises(InputError, match=r"run\.zarr: frame 4 has the negative value -3"),
    ):
        read_all(source)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 9, "node_type": "array"}'])
def test_damaged_metadata(path: Path, text: str) -> None:
    write_zarr(path, recording())
    (path / "zarr.json").write_text(text)
    assert f"{path}: not a readable Zarr store: " in refusal(f"file:{path}")


def test_an_unknown_codec(path: Path) -> None:
    write_zarr(path, recording())
    about = json.loads((path / "zarr.json").read_text())
    about["codecs"].append({"name": "homemade"})
    (path / "zarr.json").write_text(json.dumps(about))
    assert "homemade" in refusal(f"file:{path}")


def test_a_damaged_chunk_names_its_frame(path: Path) -> None:
    write_zarr(path, recording(), chunks=(1, 37, 53))
    chunk = path / "c" / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with open_source(f"file:{path}") as source:
        out = np.empty((1, 37, 53), np.uint16)
        for _ in range(4):
            assert source.read_into(out) == 1
        with pytest.raises(InputError, match=r"run\.zarr: frame 4 cannot be read: "):
            source.read_into(out)


def test_frames_that_were_written_anew_are_another_version(path: Path) -> None:
    """The folder itself does not change where chunks are replaced."""
    write_zarr(path, recording(seed=1))
    versions = []
    for seed in (1, 2):
        zarr.open(path, mode="r+")[:] = recording(seed=seed)
        with open_source(f"file:{path}") as source:
            versions.append(source.info.version)
    with open_source(f"file:{path}") as source:
        assert versions[0] != versions[1] == source.info.version


def test_a_folder_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"probe_5\xb5m.zarr")
    write_zarr(path, recording())
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())
