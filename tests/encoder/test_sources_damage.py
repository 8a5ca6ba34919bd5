"""Any damage to any file is an `InputError` of one line, or harmless. A file cut short is never read as if it were whole."""

from __future__ import annotations

import errno
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sources_contract import FORMATS, Frames, read_all, recording

from framefold_encoder.sources import open_source
from framefold_encoder.sources.failures import COPY_AGAIN, damage
from framefold_protocol.errors import InputError

KINDS = [
    "npy",
    "npy-fortran",
    "mrc",
    "tiff",
    "tiff-deflate",
    "tiff-tiles",
    "bigtiff",
    "ome-tiff",
    "imagej-one-page",
    "hdf5-chunked",
    "zarr3",
]


def one_line(error: InputError) -> None:
    assert "\n" not in str(error)


def attempt(path: Path) -> Frames | None:
    """The frames of the file, None when it is refused."""
    try:
        with open_source(f"file:{path}") as source:
            if np.prod(source.info.shape) > 10**7:
                return None  # a damaged header may state frames that would not fit in memory
            return read_all(source)
    except InputError as error:
        return one_line(error)


@pytest.fixture(params=KINDS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Frames]:
    write, frames = FORMATS[request.param]
    path = tmp_path / "run"
    write(path, frames)
    return path, frames


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(data=st.data())
def test_cut_short(stack: tuple[Path, Frames], data: st.DataObject) -> None:
    path, frames = stack
    file = data.draw(st.sampled_from(files_of(path)))
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        found = attempt(path)
    finally:
        file.write_bytes(whole)
    if found is not None:
        np.testing.assert_array_equal(found, frames)


@quick
@given(data=st.data())
def test_bytes_changed(stack: tuple[Path, Frames], data: st.DataObject) -> None:
    path, _ = stack
    file = data.draw(st.sampled_from(files_of(path)))
    whole = file.read_bytes()
    changed = bytearray(whole)
    ends = st.integers(0, min(600, len(whole) - 1))  # headers are at the ends
    for at, value in data.draw(
        st.lists(st.tuples(ends | ends.map(lambda n: len(whole) - 1 - n), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        changed[at] = value
    try:
        file.write_bytes(changed)
        attempt(path)
    finally:
        file.write_bytes(whole)


def test_a_message_of_several_lines_becomes_one() -> None:
    with pytest.raises(InputError) as caught, damage(Path("run.h5"), "frame 3 cannot be read", (OSError,)):
        raise OSError("filter 32008\n  is not\n  registered.\n")
    assert str(caught.value) == f"run.h5: frame 3 cannot be read: filter 32008 is not registered. {COPY_AGAIN}"


def test_the_undamaged_files_are_read(stack: tuple[Path, Frames]) -> None:
    path, frames = stack
    found = attempt(path)
    assert found is not None
    np.testing.assert_array_equal(found, frames)


def test_a_store_without_its_metadata_is_a_folder(tmp_path: Path) -> None:
    write, frames = FORMATS["zarr3"]
    write(tmp_path / "run.zarr", frames)
    (tmp_path / "run.zarr" / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"run\.zarr: is a folder, and not a Zarr store"):
        open_source(f"file:{tmp_path}/run.zarr")
    shutil.rmtree(tmp_path / "run.zarr")


class Failing(io.FileIO):
    """A file on a disk that fails behind a byte."""

    end = 128 + 5 * 37 * 53 * 2

    def readinto(self, buffer):
        """As a file's, up to there."""
        if self.tell() >= self.end:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(memoryview(buffer).cast("B")[: self.end - self.tell()])


def test_a_disk_that_fails_is_told_after_the_frames_before_it(tmp_path, monkeypatch):
    path = tmp_path / "run.npy"
    np.save(path, recording())
    with open_source(f"file:{path}") as source:
        source._frames._file.close()
        monkeypatch.setattr(source._frames, "_file", Failing(path))
        out = np.empty((11, 37, 53), np.uint16)
        assert source.read_into(out) == 5
        np.testing.assert_array_equal(out[:5], recording()[:5])
        with pytest.raises(InputError, match=r"run.npy: frame 5 cannot be read: \[Errno 5\] Input/output error"):
            source.read_into(out)
