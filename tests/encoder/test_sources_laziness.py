"""Recordings are larger than memory: opening one and reading a frame must not read the rest."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from test_sources_contract import hdf5, tiff, write_npy, zarray

from framefold_encoder.sources import open_source
from framefold_encoder.sources.chunked import SLAB_BYTES, ChunkedFrames

GIGANTIC = 5000, 2048, 2048  # 42 GB
FRAME_BYTES = 2048 * 2048 * 2


def sparse(path: Path, offset: int) -> None:
    """Make the file as long as `GIGANTIC` without using disk, with a last frame of sevens."""
    with path.open("r+b") as file:
        file.seek(offset + (GIGANTIC[0] - 1) * FRAME_BYTES)
        file.write(b"\7" * FRAME_BYTES)


def gigantic_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": GIGANTIC})
        offset = file.tell()
    sparse(path, offset)


def gigantic_mrc(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((1, *GIGANTIC[1:]), np.uint16))
        mrc.header.nz = GIGANTIC[0]
    sparse(path, 1024)


def gigantic_imagej(path: Path) -> None:
    """As ImageJ writes it: TIFF's offsets end at 4 GB, so there is one page, and the description counts the images."""
    description = f"ImageJ=1.54f\nimages={GIGANTIC[0]}\nframes={GIGANTIC[0]}\nfinterval=0.005\nunit=nm\n"
    tifffile.imwrite(path, np.zeros(GIGANTIC[1:], np.uint16), description=description, metadata=None, resolution=(50, 50))
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    sparse(path, offset)


@pytest.mark.parametrize("write", [gigantic_npy, gigantic_mrc, gigantic_imagej])
def test_a_gigantic_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "gigantic"
    write(path)
    out = np.ones((1, *GIGANTIC[1:]), np.uint16)
    tracemalloc.start()
    try:
        with open_source(f"file:{path}") as source:
            assert (source.info.frame_count, *source.info.shape) == GIGANTIC
            assert source.read_into(out) == 1
            assert (out == 0).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * FRAME_BYTES


def test_the_last_frame_of_a_gigantic_imagej_stack(tmp_path: Path) -> None:
    path = tmp_path / "gigantic"
    gigantic_imagej(path)
    out = np.ones((1, *GIGANTIC[1:]), np.uint16)
    with open_source(f"file:{path}") as source:
        assert source.info.frame_time_s == 0.005
        assert source.info.pixel_size_nm == pytest.approx(0.02)
        source._frames.read(GIGANTIC[0] - 1, out)  # the frames before it would take a minute
    assert (out == 0x0707).all()


@pytest.mark.parametrize(
    "write",
    [
        write_npy,
        lambda path, frames: write_npy(path, np.asfortranarray(frames)),
        tiff(compression="zlib"),
        tiff(compression="zlib", ome=True, metadata={"axes": "TYX"}),
        hdf5(chunks=(1, 512, 512), compression="gzip"),
        hdf5(chunks=(2, 512, 512), compression="gzip"),
        zarray(chunks=(1, 512, 512)),
        zarray(chunks=(2, 512, 512)),
    ],
)
def test_one_frame_costs_the_memory_of_a_few(tmp_path: Path, write: Callable[[Path, np.ndarray], None]) -> None:
    """Of a chunk of two frames there may be three copies for a moment: Zarr's decoded one, its answer, and the one kept."""
    path = tmp_path / "run"
    frames = np.ones((80, 512, 512), np.uint16)  # no zeros: what equals the fill value is not stored, nor decoded
    write(path, frames)
    with open_source(f"file:{path}") as source:  # imports and caches of the libraries, once
        source.read_into(np.empty((1, 512, 512), np.uint16))
    out = np.empty((1, 512, 512), np.uint16)
    tracemalloc.start()
    try:
        with open_source(f"file:{path}") as source:
            source.read_into(out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < frames.nbytes / 8


def test_a_chunk_of_many_frames_is_decompressed_once(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((50, 8, 9), np.uint16)
    calls: list[tuple[int, int]] = []

    def fetch(start: int, out: np.ndarray) -> None:
        calls.append((start, len(out)))
        out[...] = np.arange(start, start + len(out))[:, None, None]

    frames = ChunkedFrames(fetch, lambda: None, shape=(50, 8, 9), stored=np.dtype("u2"), depth=16)
    one = np.empty((1, 8, 9), np.uint16)
    for n in range(50):
        frames.read(n, one)
        assert (one == n).all()
    assert calls == [(0, 16), (16, 16), (32, 16), (48, 2)]
    calls.clear()
    many = np.empty((50, 8, 9), np.uint16)
    frames.read(0, many)
    assert (many == np.arange(50)[:, None, None]).all()
    assert calls == [(0, 48)]  # straight into the caller's array; the last two are in the slab
    calls.clear()
    for n in range(3, 35, 16):  # reads that straddle chunks
        frames.read(n, straddling := np.empty((16, 8, 9), np.uint16))
        assert (straddling == np.arange(n, n + 16)[:, None, None]).all()
    assert calls == [(0, 16), (16, 16), (32, 16)]


def test_chunks_larger_than_memory_are_not_kept_whole() -> None:
    fetched: list[int] = []
    frames = ChunkedFrames(
        lambda start, out: fetched.append(out.nbytes),
        lambda: None,
        shape=(10**6, 1024, 1024),
        stored=np.dtype("u2"),
        depth=10**6,
    )
    frames.read(5, np.empty((1, 1024, 1024), np.uint16))
    assert fetched == [SLAB_BYTES]
