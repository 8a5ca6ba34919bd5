"""What is special to TIFF: metadata, how pages make a stack, and files tifffile would read with zeros in them."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from test_sources_contract import read_all, recording, write_imagej_with_one_page, write_one_by_one
from test_sources_open import refusal

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.tif"


def failure(path: Path) -> str:
    """The one line a user sees when a frame of the file cannot be read."""
    with open_source(f"file:{path}") as source, pytest.raises(InputError) as caught:
        read_all(source, 1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def overwrite(path: Path, offset: int, new: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(new)


@pytest.mark.parametrize(
    ("metadata", "pixel_size_nm", "frame_time_s"),
    [
        ({"PhysicalSizeX": 0.02, "PhysicalSizeY": 0.02, "TimeIncrement": 0.005}, 20.0, 0.005),  # OME's own units: µm and s
        ({"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "nm"}, 0.5, None),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 200, "PhysicalSizeYUnit": "pm"}, 0.2, None),
        ({"TimeIncrement": 2.5, "TimeIncrementUnit": "ms"}, None, 0.0025),
        ({"PhysicalSizeX": 1.0}, None, None),
        ({"PhysicalSizeX": 1.0, "PhysicalSizeY": 2.0}, None, None),
        ({"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1.0, "PhysicalSizeYUnit": "pixel"}, None, None),
    ],
)
def test_scale_from_ome(path: Path, metadata: dict[str, object], pixel_size_nm: float, frame_time_s: float) -> None:
    tifffile.imwrite(path, recording(), ome=True, metadata={"axes": "TYX", **metadata})
    with open_source(f"file:{path}") as source:
        assert source.info.pixel_size_nm == (pixel_size_nm and pytest.approx(pixel_size_nm))
        assert source.info.frame_time_s == (frame_time_s and pytest.approx(frame_time_s))


@pytest.mark.parametrize(
    ("unit", "resolution", "finterval", "pixel_size_nm", "frame_time_s"),
    [
        ("nm", (5.0, 5.0), 0.25, 0.2, 0.25),
        ("micron", (50.0, 50.0), None, 20.0, None),
        ("\\u00B5m", (50.0, 50.0), 0.0, 20.0, None),
        ("pixel", (1.0, 1.0), -1.0, None, None),
        ("nm", (5.0, 4.0), 0.25, None, 0.25),
        (None, (5.0, 5.0), None, None, None),
    ],
)
def test_scale_from_imagej(
    path: Path,
    unit: str | None,
    resolution: tuple[float, float] | None,
    finterval: float | None,
    pixel_size_nm: float | None,
    frame_time_s: float | None,
) -> None:
    metadata = {"axes": "TYX", "unit": unit, "finterval": finterval}
    stated = {key: value for key, value in metadata.items() if value is not None}
    tifffile.imwrite(path, recording(), imagej=True, resolution=resolution, metadata=stated)
    with open_source(f"file:{path}") as source:
        assert source.info.pixel_size_nm == (pixel_size_nm and pytest.approx(pixel_size_nm))
        assert source.info.frame_time_s == (frame_time_s and pytest.approx(frame_time_s))


def test_printer_resolution_is_no_scale(path: Path) -> None:
    tifffile.imwrite(path, recording(), resolution=(72, 72))
    with open_source(f"file:{path}") as source:
        assert source.info.pixel_size_nm is None


def test_signed_values_imagej_has_shifted_are_refused(path: Path) -> None:
    tifffile.imwrite(path, recording(), imagej=True, metadata={"axes": "TYX", "cf": 0, "c0": -32768.0, "c1": 1.0})
    assert f"{path}: ImageJ stored the values with an offset of -32768" in refusal(f"file:{path}")


def test_the_cure_for_each_type(path: Path) -> None:
    tifffile.imwrite(path, recording().astype(np.float32))
    assert f"{path}: values are float32, expected uint8, uint16 or uint32 counts. Save the raw counts" in refusal(
        f"file:{path}"
    )
    tifffile.imwrite(path, np.zeros((3, 20, 30), bool))
    assert f"{path}: values are bool" in refusal(f"file:{path}")
    tifffile.imwrite(path, np.zeros((5, 20, 30, 3), np.uint8), photometric="rgb")
    assert f"{path}: colour image, 3 samples per pixel; expected grey frames" in refusal(f"file:{path}")


def test_negative_values(path: Path) -> None:
    frames = recording(np.int16, count=6)
    frames[4, 0, 0] = -1
    tifffile.imwrite(path, frames, compression="zlib", photometric="minisblack")
    assert failure(path).startswith(f"{path}: frame 4 has the negative value -1, expected counts >= 0")


@pytest.mark.parametrize(
    ("odd", "found"), [(recording(count=1, shape=(20, 53)), "20x53 uint16"), (recording(np.uint8, count=1), "37x53 uint8")]
)
@pytest.mark.parametrize("metadata", [None, {}])
def test_pages_that_differ_are_named(path: Path, odd: np.ndarray, found: str, metadata: dict[str, object] | None) -> None:
    with tifffile.TiffWriter(path) as tif:
        for frame in (*recording(count=4), odd[0], *recording(count=4)):
            tif.write(frame, metadata=metadata, contiguous=False)
    assert failure(path) == (
        f"{path}: page 4 is {found}, but page 0 is 37x53 uint16. Save frames of one shape and type in a file of their own"
    )


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_more_axes_than_frames(path: Path, kind: str) -> None:
    tifffile.imwrite(path, np.zeros((4, 2, 20, 30), np.uint16), metadata={"axes": "TCYX"}, **{kind: True})
    assert f"{path}: axes are TCYX (4, 2, 20, 30), expected one axis of frames besides Y and X" in refusal(f"file:{path}")


def test_axes_of_length_one_do_not_count(path: Path) -> None:
    tifffile.imwrite(path, recording()[None, :, None], metadata={"axes": "ZTCYX"})
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_two_images_in_an_ome_tiff(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(recording(), metadata={"axes": "TYX"})
        tif.write(recording(), metadata={"axes": "TYX"})
    assert f"{path}: holds 2 images, expected one stack" in refusal(f"file:{path}")


def test_a_volume_in_one_page(path: Path) -> None:
    tifffile.imwrite(path, recording(), volumetric=True, metadata=None)
    assert f"{path}: a page is (11, 37, 53), expected (H, W). Save one frame per page" in refusal(f"file:{path}")


def test_ome_planes_missing_from_the_file(path: Path) -> None:
    tifffile.imwrite(path, recording(count=6), ome=True, metadata={"axes": "TYX"}, compression="zlib")
    path.write_bytes(path.read_bytes().replace(b'SizeT="6"', b'SizeT="9"').replace(b'PlaneCount="6"', b'PlaneCount="9"'))
    assert f"{path}: frame 6 is missing (3 of 9 are)" in refusal(f"file:{path}")


def test_ome_spread_over_files(tmp_path: Path) -> None:
    frames = recording(count=2)
    uuids = [f"urn:uuid:0000000{n}-0000-0000-0000-000000000000" for n in range(2)]
    data = "".join(
        f'<TiffData FirstT="{n}" IFD="0" PlaneCount="1"><UUID FileName="part{n}.ome.tif">{uuids[n]}</UUID></TiffData>'
        for n in range(2)
    )
    for n, uuid in enumerate(uuids):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            'SizeX="53" SizeY="37" SizeZ="1" SizeC="1" SizeT="2">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"part{n}.ome.tif", frames[n], description=xml, metadata=None)
    assert "its frames are spread over several files. Save the stack as one file" in refusal(f"file:{tmp_path}/part0.ome.tif")
    (tmp_path / "part1.ome.tif").unlink()
    assert "frame 1 is missing (1 of 2 are)" in refusal(f"file:{tmp_path}/part0.ome.tif")


def options(kind: str) -> dict[str, object]:
    return {
        "raw": {},
        "deflate": {"compression": "zlib"},
        "plain": {"metadata": None, "compression": "zlib"},
        "big": {"bigtiff": True, "compression": "zlib"},
        "ome": {"ome": True, "compression": "zlib", "metadata": {"axes": "TYX"}},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
        "one page": {"truncate": True},
    }[kind]


@pytest.mark.parametrize("kind", ["raw", "deflate", "plain", "big", "ome", "imagej", "one page"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_a_truncated_file_is_never_read_as_shorter_or_as_zeros(path: Path, kind: str, part: float) -> None:
    tifffile.imwrite(path, recording(), **options(kind))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert re.search("truncated|damaged", refusal(f"file:{path}"))


def test_the_frame_that_is_cut_off_is_named(path: Path) -> None:
    write_imagej_with_one_page(path, recording())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5 * 37 * 53 * 2 - 1)
    assert f"{path}: " in refusal(f"file:{path}")
    tifffile.imwrite(path, recording(), truncate=True)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5 * 37 * 53 * 2 - 1)
    assert f"{path}: truncated: its header says 11 frames, the file ends within frame 5" in refusal(f"file:{path}")


def test_pages_before_pixels_cut_off(path: Path) -> None:
    """All page descriptions are whole, the pixels of the last frames are not there."""
    tifffile.imwrite(path, recording(), metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[7]
        tag = page.tags["StripOffsets"]
    overwrite(path, tag.valueoffset, struct.pack("<I", path.stat().st_size - 10))
    assert failure(path) == f"{path}: frame 7 is truncated or incomplete. Copy it again from where it was recorded"


def test_a_strip_without_data_is_not_read_as_zeros(path: Path) -> None:
    tifffile.imwrite(path, recording(), metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[3].tags["StripByteCounts"]
    overwrite(path, tag.valueoffset, b"\0\0\0\0")
    assert f"{path}: frame 3 is truncated or incomplete" in failure(path)


def test_pixels_that_do_not_decompress_name_their_frame(path: Path) -> None:
    tifffile.imwrite(path, recording(), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[5].dataoffsets[0]
    overwrite(path, offset, b"\xff" * 50)
    assert f"{path}: frame 5 cannot be read: " in failure(path)


def test_a_chain_that_leads_nowhere(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile would stop there and call it the end, and with logging turned off not even say so."""
    write_one_by_one(path, recording())
    with tifffile.TiffFile(path) as tif:
        pointer = tif.pages[6].offset + 2 + 12 * len(tif.pages[6].tags)
    overwrite(path, pointer, struct.pack("<I", 2**31))
    assert f"{path}: " in refusal(f"file:{path}")
    caplog.set_level(logging.CRITICAL + 1, "tifffile")
    assert f"{path}: truncated TIFF, ends after page 6" in refusal(f"file:{path}")


def test_fewer_pages_than_the_metadata_say(path: Path) -> None:
    tifffile.imwrite(path, recording(), compression="zlib", imagej=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[6]
    overwrite(path, page.offset + 2 + 12 * len(page.tags), b"\0\0\0\0")
    assert f"{path}: truncated: its metadata say 11 frames, it has 7" in refusal(f"file:{path}")


def test_a_page_that_differs_although_ome_says_all_are_alike(path: Path) -> None:
    tifffile.imwrite(path, recording(), ome=True, compression="zlib", metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[3].tags["ImageLength"]
    overwrite(path, tag.offset + 8, struct.pack("<H", 36))
    assert f"{path}: page 3 is 36x53 uint16, but page 0 is 37x53 uint16" in failure(path)


def test_values_of_an_odd_width(path: Path) -> None:
    tifffile.imwrite(path, recording(), metadata=None)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags["BitsPerSample"]
    overwrite(path, tag.offset + 8, struct.pack("<H", 200))
    assert f"{path}: values of 200 bits, format 1; expected uint8, uint16 or uint32" in refusal(f"file:{path}")


def test_a_tiff_without_pages(path: Path) -> None:
    path.write_bytes(b"II*\0\0\0\0\0")
    assert f"{path}: TIFF without pages: truncated, or holds no frames" in refusal(f"file:{path}")


def test_what_tifffile_logs_as_an_error_is_one(path: Path) -> None:
    tifffile.imwrite(path, recording(), metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags["Compression"]
    overwrite(path, tag.offset + 2, b"\xfe\xfe")  # a type no tag has: tifffile skips it and takes deflate for pixels
    assert f"{path}: damaged TIFF: " in refusal(f"file:{path}")


def test_a_damaged_file_says_so_in_one_line_only(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(path, recording(), compression="zlib")
    path.write_bytes(path.read_bytes()[:-5000])
    refusal(f"file:{path}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "start", [b"II*\0", b"MM\0*\0\0\0\0", b"II*\0\0\0\0\0", b"II*\0\xff\xff\0\0", b"II+\0\x08\0\0\0", b"II*\0\x08\0\0\0\x01\0"]
)
def test_nothing_but_a_signature(path: Path, start: bytes) -> None:
    path.write_bytes(start)
    assert re.search("damaged TIFF|TIFF without pages", refusal(f"file:{path}"))
