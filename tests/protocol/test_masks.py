"""Masks: the same bits everywhere, the promised exposure, any frame size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_protocol.coding import Coding, block_map_shape
from framefold_protocol.counter import words
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec, derive_masks

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "masks.json").read_text())

shapes = st.tuples(st.integers(1, 150), st.integers(1, 200))
specs = st.builds(
    MaskSpec,
    kind=st.sampled_from(["balanced", "random", "one-hot", "ones"]),
    ratio=st.integers(1, 40),
    density=st.floats(0.01, 1),
    period=st.integers(0, 96),
    seed=st.integers(0, 2**64 - 1),
)


@pytest.mark.parametrize("vector", VECTORS["words"], ids=lambda vector: f"seed-{vector['seed']}")
def test_the_generator_gives_the_committed_words(vector):
    assert [int(word) for word in words(vector["seed"], len(vector["words"]))] == vector["words"]


@pytest.mark.parametrize("vector", VECTORS["masks"], ids=lambda vector: vector["spec"]["kind"])
def test_masks_are_the_committed_bits(vector):
    masks = derive_masks(MaskSpec(**vector["spec"]), tuple(vector["shape"]))
    assert masks.digest == vector["digest"]
    assert ["".join(map(str, row)) for row in masks.window()[0].tolist()] == vector["first_mask"]


@given(specs, shapes)
@settings(max_examples=60, deadline=None)
def test_packed_words_hold_the_window_and_zeros_past_the_width(spec, shape):
    masks = derive_masks(spec, shape)
    bits = np.unpackbits(masks.packed().view(np.uint8), axis=2, bitorder="little")
    assert masks.packed().shape == (spec.ratio, shape[0], -(-shape[1] // 64))
    assert np.array_equal(bits[:, :, : shape[1]], masks.window())
    assert not bits[:, :, shape[1] :].any()


@given(specs, shapes)
@settings(max_examples=60, deadline=None)
def test_balanced_kinds_expose_every_pixel_equally(spec, shape):
    exposure = Coding((derive_masks(spec, shape),)).exposure()
    if spec.kind == "ones":
        assert (exposure == spec.ratio).all()
    elif spec.kind != "random":
        assert (exposure == spec.ones_per_pixel).all()


def test_random_masks_have_the_asked_density():
    exposed = derive_masks(MaskSpec(kind="random", density=0.3, period=0), (400, 400)).window().mean()
    assert abs(exposed - 0.3) < 0.002  # 3.2 million bits: 8 standard deviations


@given(specs, shapes)
@settings(max_examples=40, deadline=None)
def test_a_window_is_the_part_of_the_whole(spec, shape):
    masks = derive_masks(spec, shape)
    rows, columns = slice(shape[0] // 3, None), slice(shape[1] // 4, shape[1] // 2 + 1)
    part = masks.window(rows, columns)
    assert np.array_equal(part, masks.window()[:, rows, columns])
    assert part.flags.c_contiguous, "whoever reads it row by row is many times slower"
    assert masks.window().flags.c_contiguous
    assert not np.shares_memory(part, masks.cell)


def test_the_cell_repeats_over_the_frame():
    bits = derive_masks(MaskSpec(period=32), (100, 130)).window()
    assert np.array_equal(bits[:, 32:96, 32:128], np.tile(bits[:, :32, :32], (1, 2, 3)))


def test_a_cell_as_large_as_a_large_frame_is_made_in_bands_and_one_beyond_reason_is_refused():
    spec = MaskSpec(period=0, ratio=4)
    large = derive_masks(spec, (1500, 1000)).window()  # 6 million words: two bands
    keys = words(spec.seed, 10 * 1000 * 4, start=1490 * 1000 * 4).reshape(10, 1000, 4)
    assert np.array_equal(large[:, 1490:].argmax(axis=0), keys.argmin(axis=2))  # one of four: the smallest word
    with pytest.raises(InputError, match="too large, expected at most"):
        derive_masks(MaskSpec(period=0, ratio=256), (65535, 65535))


def test_seed_kind_and_ratio_change_the_digest():
    spec = MaskSpec()
    variants = [spec, replace(spec, seed=1), replace(spec, kind="random"), spec.with_ratio(10), replace(spec, period=32)]
    assert len({derive_masks(each, (64, 64)).digest for each in variants}) == len(variants)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ratio": 0}, "mask ratio is 0"),
        ({"density": 0.0}, "mask density is 0.0"),
        ({"density": 1.5}, "mask density is 1.5"),
        ({"period": -1}, "mask period is -1"),
        ({"kind": "stripes"}, "balanced, random"),
        ({"kind": "file"}, "expected a file name"),
        ({"file": "m.npy"}, "empty otherwise"),
        ({"kind": "file", "file": "../m.npy"}, "without folders"),
    ],
)
def test_a_spec_out_of_bounds_is_refused_by_name(change, named):
    with pytest.raises(InputError, match=named):
        MaskSpec(**change)


def test_masks_from_a_file(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (8, 30, 40), np.uint8)
    np.save(tmp_path / "m.npy", bits)
    masks = derive_masks(MaskSpec(kind="file", file="m.npy", ratio=5), (20, 50), tmp_path)
    assert np.array_equal(masks.window()[:, :, :40], bits[:5, :20])
    assert np.array_equal(masks.window()[:, :, 40:], bits[:5, :20, :10])  # narrower than the frame: repeated


def test_masks_from_a_matlab_file(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    bits = np.random.default_rng(0).integers(0, 2, (20, 30, 8), np.uint8)
    scipy_io.savemat(tmp_path / "m.mat", {"mask": bits})
    masks = derive_masks(MaskSpec(kind="file", file="m.mat", ratio=8), (20, 30), tmp_path)
    assert np.array_equal(masks.window(), bits.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        (b"not an array", "cannot be read"),
        (np.full((8, 4, 4), 2), "zeros and ones"),
        (np.ones((4, 4)), "expected \\(B, h, w\\)"),
        (np.ones((3, 4, 4)), "holds 3 masks"),
    ],
)
def test_a_bad_mask_file_is_refused_by_name(tmp_path, content, named):
    path = tmp_path / "m.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(InputError, match=named) as caught:
        derive_masks(MaskSpec(kind="file", file="m.npy", ratio=5), (4, 4), tmp_path)
    assert str(path) in str(caught.value)


@given(shapes, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_block_map_takes_each_block_from_its_family(shape, seed):
    families = tuple(derive_masks(MaskSpec(ratio=6, density=p), shape) for p in (1.0, 0.5, 0.2))
    block_map = np.random.default_rng(seed).integers(0, 3, block_map_shape(shape), np.uint8)
    bits = Coding(families, block_map).window()
    for (row, column), family in np.ndenumerate(block_map):
        block = np.s_[:, row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
        assert np.array_equal(bits[block], families[family].window()[block])


def test_a_block_map_that_does_not_fit_is_refused():
    masks = derive_masks(MaskSpec(), (100, 100))
    for block_map in (np.zeros((1, 1), np.uint8), np.full((2, 2), 1, np.uint8)):
        with pytest.raises(InputError, match="block map is"):
            Coding((masks,), block_map)
    with pytest.raises(InputError, match="share ratio"):
        Coding((masks, derive_masks(MaskSpec(ratio=10), (100, 100))))


@pytest.mark.parametrize("period", [0, 16, 48, 64, 300])
@pytest.mark.parametrize(
    "part", [(slice(64, 192), slice(0, 130)), (slice(128, 200), slice(64, 65)), (slice(0, 1), slice(128, 260))]
)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_part_that_is_cut_out_has_the_masks_it_had(period, part, mapped):
    shape = (200, 260)
    specs = [MaskSpec(ratio=5, period=period), MaskSpec("ones", 5), MaskSpec("random", 5, 0.3, 32)]
    families = tuple(derive_masks(spec, shape) for spec in specs)
    block_map = np.arange(np.prod(block_map_shape(shape))).reshape(block_map_shape(shape)).astype(np.uint8) % 3
    whole = Coding(families, block_map if mapped else None)
    cut = whole.cut(*part)
    assert np.array_equal(cut.window(), whole.window(*part))
    assert np.array_equal(cut.exposure(), whole.exposure(*part))


def test_a_part_begins_at_a_block():
    with pytest.raises(InputError, match="row 32, column 64, expected multiples of 64"):
        Coding((derive_masks(MaskSpec(), (200, 200)),)).cut(slice(32, 96), slice(64, 128))
