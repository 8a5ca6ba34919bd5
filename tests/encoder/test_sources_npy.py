"""What is special to .npy, and the checks on types, shapes and values all array formats share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from test_sources_contract import read_all, recording, write_npy
from test_sources_open import refusal

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError


@pytest.mark.parametrize(
    ("dtype", "cure"),
    [
        (np.float32, "np.rint(frames / counts_per_unit)"),
        (np.float64, "values are float64, expected uint8, uint16 or uint32 counts"),
        (np.complex64, "complex values are computed from frames"),
        (np.int64, "frames.astype(np.uint32)"),
        (np.uint64, "values are uint64"),
        (bool, "frames.astype(np.uint8)"),
        ("M8[s]", "Save the frames as uint8, uint16 or uint32"),
        ([("a", "u2")], "Save the frames as uint8, uint16 or uint32"),
    ],
)
def test_types_that_are_no_counts(tmp_path: Path, dtype: object, cure: str) -> None:
    path = tmp_path / "run.npy"
    np.save(path, np.zeros((3, 8, 9), dtype))
    message = refusal(f"file:{path}")
    assert message.startswith(f"{path}: values are ")
    assert cure in message


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), "shape is (7,), expected (T, H, W) or (H, W)"),
        ((), "shape is (), expected (T, H, W) or (H, W)"),
        ((2, 3, 8, 9), "shape is (2, 3, 8, 9), expected (T, H, W) or (H, W). Choose one, or join the leading axes"),
        ((0, 8, 9), "holds no frames, shape (0, 8, 9)"),
        ((5, 0, 9), "frames have no pixels, shape (5, 0, 9)"),
        ((5, 8, 0), "frames have no pixels, shape (5, 8, 0)"),
        ((64, 48, 3), "shape (64, 48, 3) looks like one colour image"),
    ],
)
def test_shapes_that_are_no_stack(tmp_path: Path, shape: tuple[int, ...], expected: str) -> None:
    path = tmp_path / "run.npy"
    np.save(path, np.zeros(shape, np.uint16))
    assert f"{path}: {expected}" in refusal(f"file:{path}")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_negative_value_is_named_with_its_frame(tmp_path: Path, order: str) -> None:
    frames = recording(np.int16, count=10)
    frames[6, 3, 4] = -5
    write_npy(tmp_path / "run.npy", np.asarray(frames, order=order))
    with open_source(f"file:{tmp_path}/run.npy") as source:
        out = np.empty((4, *source.info.shape), source.info.dtype)
        assert source.read_into(out) == 4
        np.testing.assert_array_equal(out, frames[:4])
        assert source.read_into(out) == 2  # what is good goes first
        np.testing.assert_array_equal(out[:2], frames[4:6])
        with pytest.raises(InputError, match=r"run\.npy: frame 6 has the negative value -5, expected counts >= 0"):
            source.read_into(out)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "run.npy"
    write_npy(path, recording(count=11))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{path}: not a readable .npy file: " in refusal(f"file:{path}")
    path.write_bytes(whole[:40])
    assert f"{path}: not a readable .npy file: " in refusal(f"file:{path}")
    path.write_bytes(whole.replace(b"'descr'", b"'decsr'"))
    assert f"{path}: not a readable .npy file: " in refusal(f"file:{path}")
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)
    assert f"{path}: not a readable .npy file: " in refusal(f"file:{path}")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.npy"
    frames = recording(count=8)
    write_npy(path, frames)
    with open_source(f"file:{path}") as source:
        out = np.empty((4, *source.info.shape), source.info.dtype)
        assert source.read_into(out) == 4
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - int(1.5 * frames[0].nbytes))
        assert source.read_into(out) == 2
        np.testing.assert_array_equal(out[:2], frames[4:6])
        with pytest.raises(InputError, match="truncated: its header says 8 frames, the file ends within frame 6"):
            source.read_into(out)


@settings(max_examples=60, deadline=None)
@given(
    frames=npst.arrays(
        st.sampled_from([np.dtype(f"{order}{kind}") for order in "<>" for kind in ("u1", "u2", "u4")]),
        npst.array_shapes(min_dims=3, max_dims=3, max_side=9).filter(lambda shape: shape[2] not in (3, 4)),
    ),
    at_a_time=st.integers(1, 12),
    fortran=st.booleans(),
)
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, frames: np.ndarray, at_a_time: int, fortran: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npy"
    write_npy(path, np.asfortranarray(frames) if fortran else frames)
    with open_source(f"file:{path}") as source:
        np.testing.assert_array_equal(read_all(source, at_a_time), frames)
