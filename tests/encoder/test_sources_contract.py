"""What every source promises, run on every format the `file:` source reads and on the simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr

from framefold_encoder.sources import Source, SourceInfo, open_source
from framefold_simulator.movie import Movie, MovieSpec

Frames = npt.NDArray[np.integer]


def recording(dtype: npt.DTypeLike = np.uint16, count: int = 11, shape: tuple[int, int] = (37, 53), seed: int = 1) -> Frames:
    """Frames (T, H, W) that use the whole of their type's non-negative range, no two alike."""
    top = np.iinfo(np.dtype(dtype)).max
    return np.random.default_rng(seed).integers(0, top, (count, *shape), endpoint=True).astype(dtype)


def read_all(source: Source, at_a_time: int = 4) -> npt.NDArray[np.unsignedinteger]:
    """All frames of a finite source; the buffer starts out full of ones, so that a frame left unwritten shows."""
    parts = [np.empty((0, *source.info.shape), source.info.dtype)]
    buffer = np.empty((at_a_time, *source.info.shape), source.info.dtype)
    while True:
        buffer.fill(1)
        if not (n := source.read_into(buffer)):
            return np.concatenate(parts)
        parts.append(buffer[:n].copy())


class SourceContract:
    """Subclass and give the fixture `opened`: a function that opens the source anew, and the frames it must give."""

    @pytest.fixture
    def opened(self) -> tuple[Callable[[], Source], Frames]:
        raise NotImplementedError

    def test_info_describes_the_frames(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, truth = opened
        with opener() as source:
            info = source.info
            assert isinstance(info, SourceInfo)
            assert info.name
            assert (info.frame_count, *info.shape) == truth.shape
            assert info.dtype == np.dtype(f"u{truth.itemsize}")
            assert info.dtype.isnative
            read_all(source)
            assert source.info == info

    @pytest.mark.parametrize("at_a_time", [1, 7, 1000])
    def test_frames_are_the_truth(self, opened: tuple[Callable[[], Source], Frames], at_a_time: int) -> None:
        opener, truth = opened
        with opener() as source:
            np.testing.assert_array_equal(read_all(source, at_a_time), truth)

    def test_uneven_reads_give_the_same_frames(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, truth = opened
        with opener() as source:
            out = np.empty(truth.shape, source.info.dtype)
            done = 0
            for wanted in [3, 1, 4, 1, 5, 9, 2, 6] * len(truth):
                done += source.read_into(out[done : done + wanted])
            assert done == len(truth)
            np.testing.assert_array_equal(out, truth)

    def test_read_into_leaves_the_rest_of_the_buffer_alone(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, truth = opened
        with opener() as source:
            out = np.full((len(truth) + 2, *source.info.shape), 77, source.info.dtype)
            done = 0
            while n := source.read_into(out[done:]):
                done += n
            assert done == len(truth)
            assert (out[done:] == 77).all()

    def test_after_the_end_there_is_nothing_again_and_again(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, _ = opened
        with opener() as source:
            read_all(source)
            out = np.empty((2, *source.info.shape), source.info.dtype)
            assert source.read_into(out) == 0
            assert source.read_into(out) == 0

    def test_an_empty_buffer_takes_nothing(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, truth = opened
        with opener() as source:
            assert source.read_into(np.empty((0, *source.info.shape), source.info.dtype)) == 0
            np.testing.assert_array_equal(read_all(source), truth)

    def test_close_twice_then_no_more_reading(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, _ = opened
        source = opener()
        source.close()
        source.close()
        with pytest.raises(ValueError, match="after close"):
            source.read_into(np.empty((1, *source.info.shape), source.info.dtype))

    def test_opening_again_starts_again(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, truth = opened
        with opener() as first:
            first.read_into(np.empty((1, *first.info.shape), first.info.dtype))
            with opener() as second:
                np.testing.assert_array_equal(read_all(second), truth)

    def test_a_buffer_that_does_not_fit_is_refused(self, opened: tuple[Callable[[], Source], Frames]) -> None:
        opener, _ = opened
        with opener() as source:
            height, width = source.info.shape
            with pytest.raises(Exception, match="expected C-contiguous"):
                source.read_into(np.empty((1, height, width + 1), source.info.dtype))
            with pytest.raises(Exception, match="expected C-contiguous"):
                source.read_into(np.empty((1, height, width), np.float32))
            with pytest.raises(Exception, match="expected C-contiguous"):
                source.read_into(np.empty((1, height, 2 * width), source.info.dtype)[:, :, ::2])


def write_npy(path: Path, frames: Frames) -> None:
    with path.open("wb") as file:
        np.save(file, frames)


def write_mrc(path: Path, frames: Frames) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(frames)
        mrc.set_image_stack()


def write_imagej_with_one_page(path: Path, frames: Frames) -> None:
    """As ImageJ writes stacks above 4 GB: a single page, and the data of all frames after it."""
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.filehandle.seek(tif.pages.first.offset + 2 + 12 * len(tif.pages.first.tags))
        tif.filehandle.write(b"\0\0\0\0")
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1


def write_ome_in_reverse(path: Path, frames: Frames) -> None:
    """OME-XML that says: page 0 is the last frame."""
    plane = '<TiffData IFD="{}" FirstT="{}" PlaneCount="1"/>'
    count, height, width = frames.shape
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="1" '
        f'SizeT="{count}"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        + "".join(plane.format(ifd, count - 1 - ifd) for ifd in range(count))
        + "</Pixels></Image></OME>"
    )
    tifffile.imwrite(path, frames[::-1], description=xml, metadata=None, contiguous=False)


def write_one_by_one(path: Path, frames: Frames) -> None:
    with tifffile.TiffWriter(path) as tif:
        for frame in frames:
            tif.write(frame)


def write_hdf5(path: Path, frames: Frames, **options: object) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=frames, **options)


def write_zarr(path: Path, frames: Frames, **options: object) -> None:
    zarr.create_array(path, data=frames, **options)


def tiff(**options: object) -> Callable[[Path, Frames], None]:
    return lambda path, frames: tifffile.imwrite(path, frames, **options)


def hdf5(**options: object) -> Callable[[Path, Frames], None]:
    return lambda path, frames: write_hdf5(path, frames, **options)


def zarray(**options: object) -> Callable[[Path, Frames], None]:
    return lambda path, frames: write_zarr(path, frames, **options)


FORMATS: dict[str, tuple[Callable[[Path, Frames], None], Frames]] = {
    "npy": (write_npy, recording()),
    "npy-uint8": (write_npy, recording(np.uint8)),
    "npy-uint32": (write_npy, recording(np.uint32)),
    "npy-int16": (write_npy, recording(np.int16)),
    "npy-big-endian": (write_npy, recording(">u2")),
    "npy-big-endian-signed": (write_npy, recording(">i4")),
    "npy-fortran": (write_npy, np.asfortranarray(recording())),
    "npy-fortran-big-endian": (write_npy, np.asfortranarray(recording(">u2"))),
    "mrc": (write_mrc, recording()),
    "mrc-int8": (write_mrc, recording(np.int8)),
    "mrc-int16": (write_mrc, recording(np.int16)),
    "mrc-big-endian": (write_mrc, recording(">u2")),
    "tiff": (tiff(), recording()),
    "tiff-uint8": (tiff(), recording(np.uint8)),
    "tiff-uint32": (tiff(), recording(np.uint32)),
    "tiff-int16": (tiff(photometric="minisblack"), recording(np.int16)),
    "tiff-big-endian": (tiff(byteorder=">"), recording()),
    "tiff-deflate": (tiff(compression="zlib"), recording()),
    "tiff-deflate-big-endian": (tiff(compression="zlib", byteorder=">", predictor=True), recording()),
    "tiff-deflate-signed": (tiff(compression="zlib", photometric="minisblack"), recording(np.int16)),
    "tiff-lzw-strips": (tiff(compression="lzw", rowsperstrip=5, metadata=None), recording(np.uint8)),
    "tiff-tiles": (tiff(compression="zstd", tile=(16, 32)), recording()),
    "tiff-plain-pages": (tiff(metadata=None), recording()),
    "tiff-plain-pages-big-endian": (tiff(metadata=None, byteorder=">"), recording()),
    "tiff-one-page": (tiff(truncate=True), recording()),
    "tiff-one-by-one": (write_one_by_one, recording()),
    "bigtiff": (tiff(bigtiff=True), recording()),
    "bigtiff-deflate": (tiff(bigtiff=True, compression="zlib", metadata=None), recording()),
    "ome-tiff": (tiff(ome=True, metadata={"axes": "TYX"}), recording()),
    "ome-tiff-deflate": (tiff(ome=True, compression="zlib", metadata={"axes": "TYX"}), recording()),
    "ome-tiff-reversed": (write_ome_in_reverse, recording()),
    "imagej": (tiff(imagej=True, metadata={"axes": "TYX"}), recording()),
    "imagej-one-page": (write_imagej_with_one_page, recording()),
    "hdf5": (hdf5(), recording()),
    "hdf5-big-endian": (hdf5(), recording(">u2")),
    "hdf5-signed": (hdf5(), recording(np.int16)),
    "hdf5-chunked": (hdf5(chunks=(1, 37, 53), compression="gzip", shuffle=True), recording()),
    "hdf5-deep-chunks": (hdf5(chunks=(4, 16, 16), compression="lzf"), recording()),
    "zarr2": (zarray(zarr_format=2, chunks=(1, 37, 53)), recording()),
    "zarr3": (zarray(chunks=(1, 37, 53)), recording()),
    "zarr3-deep-chunks": (zarray(chunks=(4, 20, 53)), recording()),
    "zarr3-sharded": (zarray(chunks=(1, 37, 53), shards=(4, 37, 53)), recording()),
    "zarr3-signed": (zarray(chunks=(3, 37, 53)), recording(np.int32)),
}


class TestFiles(SourceContract):
    @pytest.fixture(params=FORMATS)
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Source], Frames]:
        write, frames = FORMATS[request.param]
        path = tmp_path / "recording"  # without an extension: the bytes say what it is
        write(path, frames)
        inside = "#/entry/data/data" if request.param == "hdf5-signed" else ""
        return lambda: open_source(f"file:{path}{inside}"), frames


class TestSingleFrames(SourceContract):
    @pytest.fixture(params=["npy", "mrc", "tiff-deflate", "tiff", "zarr3", "hdf5"])
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Source], Frames]:
        frames = recording(count=1)
        path = tmp_path / "frame"
        inside = ""
        writers = {"npy": write_npy, "tiff-deflate": tiff(compression="zlib"), "tiff": tiff(), "zarr3": write_zarr}
        if request.param == "hdf5":
            write_hdf5(path, frames[0])
            inside = "#/entry/data/data"
        elif request.param == "mrc":
            with mrcfile.new(path) as mrc:
                mrc.set_data(frames[0])
        else:
            writers[request.param](path, frames[0])
        return lambda: open_source(f"file:{path}{inside}"), frames


class TestSimulator(SourceContract):
    @pytest.fixture
    def opened(self) -> tuple[Callable[[], Source], Frames]:
        truth = Movie(MovieSpec(shape=(32, 48), dose=5.0, seed=3, loop=8, speed=1.0)).counts(0, 20)
        return lambda: open_source("sim:?shape=32x48&frames=20&dose=5&seed=3&rate=0&loop=8"), truth
