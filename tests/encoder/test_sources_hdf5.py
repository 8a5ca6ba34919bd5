"""What is special to HDF5: which dataset, and datasets with holes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from test_sources_contract import read_all, recording, write_hdf5
from test_sources_open import refusal

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.h5"


def test_the_only_stack_is_found_among_other_things(path: Path) -> None:
    write_hdf5(path, recording())
    with h5py.File(path, "r+") as file:
        file["entry/gain"] = np.ones((37, 53), np.float32)
        file["entry/map"] = np.ones((2, 37, 53), np.float32)
        file["entry/times"] = np.arange(11, dtype=np.uint32)
        file["entry/mask"] = np.ones((37, 53), np.uint8)
        file["entry/instrument/detector/data"] = file["entry/data/data"]  # NeXus links the data to where it belongs
        file["soft"] = h5py.SoftLink("/entry/data/data")
        file["broken"] = h5py.SoftLink("/nowhere")
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_a_named_dataset_is_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = recording(seed=1), recording(seed=2)
    with open_source(f"file:{path}#b") as relative, open_source(f"file:{path}#/b") as absolute:
        np.testing.assert_array_equal(read_all(relative), recording(seed=2))
        np.testing.assert_array_equal(read_all(absolute), recording(seed=2))


def test_which_dataset_is_asked_when_it_is_not_clear(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"], file["deep/b"] = recording(count=5), recording(np.uint8, count=6)
        file["image"] = recording(count=1)[0]
        file["float"] = np.ones((3, 8, 9))
    named = "Name one of: #/a 5x37x53 uint16, #/deep/b 6x37x53 uint8"
    assert refusal(f"file:{path}") == f"{path}: 2 three-dimensional datasets of unsigned integers, expected one. {named}"
    assert refusal(f"file:{path}#c") == f"{path}: has no dataset 'c'. {named}"
    assert refusal(f"file:{path}#deep") == f"{path}#deep: is a group, expected a dataset. {named}"
    assert f"{path}#/float: values are float64" in refusal(f"file:{path}#float")


def test_a_file_without_any_stack(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = recording(count=1)[0]
    cure = "Name the dataset after '#': file:PATH#/entry/data"
    assert refusal(f"file:{path}") == f"{path}: no three-dimensional dataset of unsigned integers, expected one. {cure}"


def test_a_long_listing_is_cut(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for n in range(20):
            file[f"run{n:02}"] = recording(count=1)
    message = refusal(f"file:{path}")
    assert "#/run07" in message
    assert "#/run08" not in message
    assert message.endswith(", ...")


def test_stacks_in_other_files_are_found(path: Path, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "run_data.h5", recording())
    with h5py.File(path, "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("run_data.h5", "/entry/data/data")
        file["entry/data/data_000002"] = h5py.ExternalLink("run_gone.h5", "/entry/data/data")
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())
    assert "has no dataset 'entry/data/data_000002'" in refusal(f"file:{path}#entry/data/data_000002")


@pytest.mark.parametrize("filters", [hdf5plugin.Bitshuffle(), hdf5plugin.LZ4(), hdf5plugin.Blosc2()])
def test_the_filters_detectors_use(path: Path, filters: object) -> None:
    write_hdf5(path, recording(), chunks=(1, 37, 53), compression=filters)
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_the_filters_are_found_without_anyone_importing_them(path: Path) -> None:
    write_hdf5(path, recording(), chunks=(1, 37, 53), compression=hdf5plugin.Bitshuffle())
    script = (
        "import numpy, framefold_encoder.sources as sources\n"
        f"source = sources.open_source('file:{path}')\n"
        "assert source.read_into(numpy.empty((1, 37, 53), 'u2')) == 1"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_block_before_the_data(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["data"] = recording()
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_negative_values(path: Path) -> None:
    frames = recording(np.int32, count=5)
    frames[2, 1, 1] = -7
    write_hdf5(path, frames)
    with (
        open_source(f"file:{path}#entry/data/data") as source,
        pytest.raises(InputError, match="frame 2 has the negative value -7"),
    ):
        read_all(source)


def test_chunks_never_written_are_not_read_as_zeros(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (10, 37, 53), np.uint16, chunks=(1, 37, 53))[:7] = recording(count=7)
    message = refusal(f"file:{path}")
    assert f"{path}#/data: only 7 of 10 chunks were ever written. The recording was stopped early" in message


def test_virtual_datasets(path: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    write_hdf5(part, recording())
    layout = h5py.VirtualLayout((11, 37, 53), np.uint16)
    layout[:] = h5py.VirtualSource("part.h5", "entry/data/data", (11, 37, 53))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())
    part.unlink()
    assert f"{path}#/data: is assembled from part.h5, which is missing. Put it into {tmp_path}" in refusal(f"file:{path}")


def test_a_dataset_without_data(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["none"] = h5py.Empty("u2")
        file["zero"] = np.empty((0, 8, 9), np.uint16)
        file["text"] = "hello"
    assert f"{path}#/none: shape is (), expected (T, H, W)" in refusal(f"file:{path}#none")
    assert f"{path}#/zero: holds no frames" in refusal(f"file:{path}#zero")
    assert f"{path}#/text: values are object" in refusal(f"file:{path}#text")


def test_truncated_file(path: Path) -> None:
    write_hdf5(path, recording())
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: not a readable HDF5 file: " in refusal(f"file:{path}")
    assert "truncated file" in refusal(f"file:{path}")


def test_a_damaged_chunk_names_its_frame(path: Path) -> None:
    write_hdf5(path, recording(), chunks=(1, 37, 53), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.get_chunk_info_by_coord((4, 0, 0))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * 64)
    with open_source(f"file:{path}") as source:
        out = np.empty((1, 37, 53), np.uint16)
        for _ in range(4):
            assert source.read_into(out) == 1
        with pytest.raises(InputError, match=r"run\.h5#/entry/data/data: frame 4 cannot be read: "):
            source.read_into(out)


def test_a_file_still_being_written(path: Path) -> None:
    write_hdf5(path, recording())
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as HDF5 does while it writes
        message = refusal(f"file:{path}")
    assert message.startswith(f"{path}: another program is writing to it: ")
    assert message.endswith(". Wait until the recording is closed")


@pytest.mark.parametrize("virtual", [False, True])
def test_frames_in_another_file_that_was_written_anew_are_another_version(path: Path, virtual: bool) -> None:
    other, versions = path.with_name("data_000001.h5"), []
    for seed in (1, 2):
        with h5py.File(other, "w") as file:
            file["data"] = recording(seed=seed)
        os.utime(other, ns=(0, 10**18 - seed))  # the new one from before, as a restored copy may be
        if seed == 1:
            with h5py.File(path, "w") as file:
                layout = h5py.VirtualLayout((11, 37, 53), np.uint16)
                layout[:] = h5py.VirtualSource(other.name, "data", (11, 37, 53))
                if virtual:
                    file.create_virtual_dataset("data", layout)
                else:
                    file["data"] = h5py.ExternalLink(other.name, "/data")
        with open_source(f"file:{path}#data") as source:
            versions.append(source.info.version)
            np.testing.assert_array_equal(read_all(source), recording(seed=seed))
    assert versions[0] != versions[1]


def test_raw_parts_that_were_written_anew_are_another_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with h5py.File(path, "w") as file:
        raw = [("raw.bin", 0, recording().nbytes)]
        file.create_dataset("data", (11, 37, 53), np.uint16, external=raw).write_direct(recording())
    versions = []
    for seed in (1, 2):
        recording(seed=seed).tofile("raw.bin")
        with open_source(f"file:{path}") as source:
            versions.append(source.info.version)
            np.testing.assert_array_equal(read_all(source), recording(seed=seed))
    assert versions[0] != versions[1]
