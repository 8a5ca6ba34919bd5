"""The fold is the exact sum NumPy gives in 64 bits, for every shape, type, byte order and stride."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_encoder.folding import Folder, sum_dtype
from framefold_protocol.coding import Coding, block_map_shape
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec, derive_masks

DTYPES = (np.uint8, np.uint16, np.uint32)
kinds = st.sampled_from(["balanced", "random", "one-hot", "ones"])


def expected(frames, coding):
    return (frames.astype(np.uint64) * coding.window()).sum(axis=0)


@given(
    st.sampled_from(DTYPES),
    kinds,
    st.integers(1, 24),
    st.tuples(st.integers(1, 70), st.integers(1, 140)),
    st.sampled_from(["C", ">", "strided", "reversed", "transposed"]),
    st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_any_layout_folds_to_the_exact_sum(dtype, kind, ratio, shape, layout, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, np.iinfo(dtype).max, (ratio, *shape), dtype, endpoint=True)
    laid_out = {
        "C": frames,
        ">": frames.astype(frames.dtype.newbyteorder(">")),
        "strided": np.repeat(frames, 2, axis=2)[:, :, ::2],
        "reversed": frames[:, ::-1].copy()[:, ::-1],
        "transposed": np.asfortranarray(frames),
    }[layout]
    coding = Coding((derive_masks(MaskSpec(kind=kind, ratio=ratio, period=16), shape),))
    assert np.array_equal(Folder(coding.families, laid_out.dtype).fold(laid_out), expected(frames, coding))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [1, 20, 256])
def test_the_largest_counts_do_not_overflow(dtype, ratio):
    coding = Coding((derive_masks(MaskSpec(kind="ones", ratio=ratio), (3, 70)),))
    frames = np.full((ratio, 3, 70), np.iinfo(dtype).max, dtype)
    snapshot = Folder(coding.families, frames.dtype).fold(frames)
    assert (snapshot == ratio * int(np.iinfo(dtype).max)).all()


def test_the_sum_is_no_wider_than_it_must_be():
    assert sum_dtype(np.dtype(np.uint8), 256) == np.uint16
    assert sum_dtype(np.dtype(np.uint16), 1) == np.uint16
    assert sum_dtype(np.dtype(np.uint16), 2) == np.uint32
    assert sum_dtype(np.dtype(np.uint32), 2) == np.uint64


@given(st.tuples(st.integers(1, 150), st.integers(1, 150)), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_block_map_folds_each_block_with_its_family(shape, seed):
    rng = np.random.default_rng(seed)
    families = tuple(derive_masks(MaskSpec(ratio=6, density=p), shape) for p in (1.0, 0.5, 0.2))
    coding = Coding(families, rng.integers(0, 3, block_map_shape(shape), np.uint8))
    frames = rng.integers(0, 256, (6, *shape), np.uint8)
    assert np.array_equal(Folder(families, frames.dtype).fold(frames, coding.block_map), expected(frames, coding))


def test_what_is_not_the_streams_group_is_refused():
    coding = Coding((derive_masks(MaskSpec(ratio=4), (8, 9)),))
    folder = Folder(coding.families, np.dtype(np.uint8))
    for frames in (np.zeros((3, 8, 9), np.uint8), np.zeros((4, 9, 8), np.uint8), np.zeros((4, 8, 9), np.uint16)):
        with pytest.raises(InputError, match=r"expected (4|uint8 \(8, 9\))"):
            folder.fold(frames)
    with pytest.raises(InputError, match="frames are float32, expected unsigned"):
        Folder(coding.families, np.dtype(np.float32))


CHECK = """
import os
import subprocess
import sys

import numpy as np
from framefold_encoder.folding import Folder
from framefold_protocol.masks import MaskSpec, derive_masks
for kind in (np.uint8, np.uint16, np.uint32):
    frames = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (7, 70, 200), kind, endpoint=True)
    masks = derive_masks(MaskSpec(ratio=7), (70, 200))
    expected = (frames.astype(np.uint64) * masks.window()).sum(axis=0)
    assert np.array_equal(Folder([masks], frames.dtype).fold(frames), expected)
"""


@pytest.mark.parametrize("cpu", ["generic", "x86-64-v3"])
def test_the_fold_is_exact_on_other_cpus(tmp_path, cpu):
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", CHECK], env=environment, check=True)


@given(st.integers(1, 5), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_frames_added_a_few_at_a_time_and_on_several_threads_make_the_same_sum(step, threaded, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (12, 50, 130), np.uint8)
    masks = derive_masks(MaskSpec(ratio=12, period=48), (50, 130))
    folder = Folder([masks], frames.dtype, threads=2 if threaded else 1)
    sums = np.full((50, 130), 77, folder.sum_dtype)
    for first in range(0, 12, step):
        folder.add(frames[first : first + step], first, sums)
    assert np.array_equal(sums, expected(frames, Coding((masks,))))
    with pytest.raises(InputError, match="frames 11 to 12 are not in a group of 12"):
        folder.add(frames[:2], 11, sums)
