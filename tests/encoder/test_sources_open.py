"""SOURCE strings, and how `file:` finds out what a file is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_sources_contract import read_all, recording, write_hdf5, write_npy

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


def refusal(uri: str) -> str:
    """The one line a user sees."""
    with pytest.raises(InputError) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "fiel:movie.tif",
            "unknown source scheme 'fiel:' in 'fiel:movie.tif'; known are 'sim:' and 'file:'. Did you mean 'file:'?",
        ),
        ("http://host/movie", "unknown source scheme 'http:'"),
        ("watch:/data", "'watch:' is not built yet. This version reads 'sim:' and 'file:'"),
        ("dectris://host", "'dectris:' is not built yet"),
        ("merlin://host", "'merlin:' is not built yet"),
        ("shm:ring", "'shm:' is not built yet"),
        ("movie.tif", "source 'movie.tif' has no scheme; known are 'sim:' and 'file:'. Write 'file:PATH'"),
        ("", "source '' has no scheme"),
        ("x" * 5000, "has no scheme"),
        ("a\0b", "has no scheme"),
    ],
)
def test_unknown_schemes_are_answered_with_the_known(uri: str, expected: str) -> None:
    assert expected in refusal(uri)


def test_a_bare_path_that_exists_is_told_how_to_write_it(tmp_path: Path) -> None:
    path = tmp_path / "run:1.npy"
    write_npy(path, recording())
    assert f"write 'file:{path}'" in refusal(str(path))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "form", ["file:run.npy", "file:./run.npy", "file:~/run.npy", "FILE:run.npy", "file://{}/run.npy", "file:{}/run.npy"]
)
def test_every_way_to_write_a_path(in_tmp: Path, form: str) -> None:
    write_npy(in_tmp / "run.npy", recording())
    with open_source(form.format(in_tmp)) as source:
        assert source.info.name == "run.npy"
        np.testing.assert_array_equal(read_all(source), recording())


def test_a_number_sign_may_be_part_of_a_file_name(in_tmp: Path) -> None:
    write_npy(in_tmp / "run#3.npy", recording())
    write_hdf5(in_tmp / "run#4.h5", recording())
    with open_source("file:run#3.npy") as plain, open_source("file:run#4.h5#/entry/data/data") as dataset:
        assert plain.info.name == "run#3.npy"
        assert dataset.info.name == "run#4.h5"


def test_the_extension_does_not_matter(in_tmp: Path) -> None:
    write_npy(in_tmp / "run.tif", recording())
    with open_source("file:run.tif") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_paths_that_are_no_recording(in_tmp: Path) -> None:
    (in_tmp / "empty.tif").touch()
    (in_tmp / "folder").mkdir()
    (in_tmp / "notes.tif").write_text("not a recording at all")
    os.mkfifo(in_tmp / "pipe")
    assert refusal("file:") == "source 'file:' names no file. Write file:PATH, for example file:movie.tif"
    assert refusal("file:gone.tif") == f"gone.tif: no such file. Looked in {in_tmp}"
    assert refusal("file:empty.tif") == "empty.tif: is empty (0 bytes). Was the recording stopped before its first frame?"
    assert refusal("file:folder") == "folder: is a folder, and not a Zarr store; expected a file. Name one file in it"
    assert "notes.tif: not a known format, starts with b'not a re'. Known are TIFF (also OME and BigTIFF), MRC" in refusal(
        "file:notes.tif"
    )
    assert "pipe: is neither a file nor a folder" in refusal("file:pipe")
    assert "home" in refusal("file:~nobody-of-this-name/run.tif").lower()
    assert "cannot be opened" in refusal("file:" + "x" * 5000)
    assert "no such file" in refusal("file:a\0b")
    assert "no such file" in refusal("file:a\0b#c")


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may read everything; then be somebody else for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


def test_a_forbidden_file(in_tmp: Path, request: pytest.FixtureRequest) -> None:
    write_npy(in_tmp / "secret.npy", recording())
    (in_tmp / "secret.npy").chmod(0)
    request.getfixturevalue("ordinary_user")
    assert "secret.npy: permission denied. Ask its owner for read permission" in refusal("file:secret.npy")


def test_only_hdf5_and_zarr_have_datasets(in_tmp: Path) -> None:
    write_npy(in_tmp / "run.npy", recording())
    assert "'frames' after '#' names a dataset, which only HDF5 and Zarr have. Write file:run.npy" in refusal(
        "file:run.npy#frames"
    )


@pytest.mark.parametrize(
    ("library", "start"),
    [("tifffile", b"II*\0"), ("mrcfile", b"\0" * 208 + b"MAP "), ("h5py", b"\x89HDF\r\n\x1a\n"), ("zarr", None)],
)
def test_a_missing_library_is_named_with_its_remedy(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, library: str, start: bytes | None
) -> None:
    path = in_tmp / "run"
    if start is None:
        path.mkdir()
        (path / "zarr.json").touch()
    else:
        path.write_bytes(start)
    monkeypatch.setitem(sys.modules, library, None)
    extra = "zarr" if library == "zarr" else "io"
    assert refusal("file:run") == (
        f"run: reading it needs the Python package '{library}', which is not installed. "
        f"Install it: pip install '.[{extra}]' in framefold's folder"
    )


def test_importing_sources_loads_no_file_library() -> None:
    script = (
        "import sys, framefold_encoder.sources.file\n"
        "heavy = {'zarr', 'tifffile', 'h5py', 'hdf5plugin', 'mrcfile', 'numba'}\n"
        "heavy |= {'torch', 'onnxruntime', 'fastapi', 'uvicorn', 'sqlalchemy'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
