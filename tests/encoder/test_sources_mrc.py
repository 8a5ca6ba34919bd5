"""What is special to MRC."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from test_sources_contract import read_all, recording, write_mrc
from test_sources_open import refusal

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


@pytest.mark.parametrize(
    ("voxel_size", "expected"), [(1.43, 0.143), ((0.5, 0.5, 99.0), 0.05), (0.0, None), ((0.5, 0.7, 0.5), None), (-1.0, None)]
)
def test_pixel_size_in_nm_when_clear(tmp_path: Path, voxel_size: object, expected: float | None) -> None:
    path = tmp_path / "run.mrcs"
    with mrcfile.new(path) as mrc:
        mrc.set_data(recording())
        mrc.voxel_size = voxel_size
    with open_source(f"file:{path}") as source:
        assert source.info.pixel_size_nm == (None if expected is None else pytest.approx(expected))


def test_the_extended_header_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "run.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(recording())
        mrc.set_extended_header(np.full(4096, 7, np.uint8).view("V1"))
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, 2), (np.complex64, 4), (np.float16, 12)])
def test_modes_that_are_no_counts(tmp_path: Path, dtype: type, mode: int) -> None:
    path = tmp_path / "run.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ones((3, 8, 9), dtype))
    assert f"{path} (MRC mode {mode}): values are {np.dtype(dtype)}, expected uint8" in refusal(f"file:{path}")


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_negative_values(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "run.mrc"
    frames = recording(dtype, count=5)
    frames[3, 0, 0] = -2
    write_mrc(path, frames)
    with open_source(f"file:{path}") as source, pytest.raises(InputError, match=r"run\.mrc: frame 3 has the negative value -2"):
        read_all(source)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "run.mrc"
    write_mrc(path, recording(count=11))
    whole = path.read_bytes()

    def after(start: int, new: bytes) -> str:
        path.write_bytes(whole[:start] + new + whole[start + len(new) :])
        return refusal(f"file:{path}")

    path.write_bytes(whole[:-1])
    assert f"{path}: truncated: its header says 11 frames, the file ends within frame 10" in refusal(f"file:{path}")
    path.write_bytes(whole[:500])
    assert f"{path}: truncated within its MRC header" in refusal(f"file:{path}")
    path.write_bytes(whole + bytes(whole[1024 : 1024 + 37 * 53 * 2]))
    assert f"{path}: its header says 11 frames, the file holds 12" in refusal(f"file:{path}")
    assert "not a readable MRC file: Unrecognised machine stamp" in after(212, b"????")
    assert "not a readable MRC file: Unrecognised mode '101'" in after(12, b"\x65\0\0\0")
    assert "negative extended header size, -1" in after(92, b"\xff\xff\xff\xff")
    assert "holds no frames, shape (0, 37, 53)" in after(8, b"\0\0\0\0")
    assert "frames have no pixels" in after(0, b"\xff\xff\xff\xff")


def test_a_little_padding_at_the_end_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "run.mrc"
    write_mrc(path, recording())
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source), recording())


def test_a_stack_of_volumes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ones((2, 3, 8, 9), np.uint16))
    assert "shape is (2, 3, 8, 9), expected (T, H, W) or (H, W)" in refusal(f"file:{path}")
