"""The motion statistic: what moves in a block, in units of the noise that averaging the group leaves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_encoder.exposure import borne, choose_families, is_still, rows_seen
from framefold_encoder.motion import motion
from framefold_protocol.coding import block_map_shape
from framefold_protocol.noise import NoiseModel

STILL = 1.5
"""Ten standard deviations of what chance makes of a still block."""


@given(
    st.sampled_from([np.uint8, np.uint16, np.uint32]),
    st.integers(4, 40),
    st.floats(0.5, 100),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_a_still_scene_does_not_move_at_any_dose_type_and_length(dtype, ratio, dose, threads, seed):
    frames = np.random.default_rng(seed).poisson(dose, (ratio, 128, 192)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framefold_encoder.motion.BYTES_PER_THREAD", 1)  # however little there is to do
        found = motion(frames, threads=threads)
    assert found.shape == (2, 3)
    assert np.abs(found).max() < STILL * ratio / (4 * (ratio // 4))


@pytest.mark.parametrize("gain", [1, 4])
def test_it_is_the_error_of_averaging_over_that_of_shot_noise(gain):
    """A step of `step` electrons in the middle of the group: averaging is off by half of it everywhere."""
    dose, step, ratio = 50.0, 6.0, 20
    expected = np.full((ratio, 256, 256), dose - step / 2)
    expected[ratio // 2 :] += step
    frames = np.random.default_rng(3).poisson(expected).astype(np.uint16) * np.uint16(gain)
    predicted = (step / 2) ** 2 / (dose / ratio)
    degrees = 4 / 3  # four parts have three degrees of freedom
    assert motion(frames, NoiseModel(gain)).mean() == pytest.approx(predicted * degrees, rel=0.1)


def test_what_a_detector_adds_besides_shot_noise_does_not_move():
    rng = np.random.default_rng(8)
    counts = 20 * rng.poisson(4, (20, 128, 128)) + 300 + rng.normal(0, 60, (20, 128, 128))
    frames = np.maximum(counts, 0).astype(np.uint16)
    assert np.abs(motion(frames, NoiseModel(20.0, 300.0, 60.0))).max() < STILL
    assert motion(frames, NoiseModel(20.0)).max() < -0.5  # the offset for signal: far too much noise expected


def test_what_swings_back_within_the_group_moves_too():
    swing = 10 * np.sign(np.sin(2 * np.pi * (np.arange(20) + 0.5) / 20 + np.pi / 2))  # both halves have the same sum
    frames = np.random.default_rng(4).poisson(50 + np.broadcast_to(swing[:, None, None], (20, 64, 64))).astype(np.uint8)
    assert motion(frames)[0, 0] > 10


def test_only_the_blocks_that_move_move():
    rng = np.random.default_rng(5)
    expected = np.full((20, 200, 300), 20.0)
    expected[:10, 70:120, 140:190] = 40  # in block (1, 2)
    found = motion(rng.poisson(expected).astype(np.uint16))
    assert found.shape == block_map_shape((200, 300))
    assert np.argwhere(found > 5 * STILL).tolist() == [[1, 2]]


@given(
    st.tuples(st.integers(1, 140), st.integers(1, 200)),
    st.sampled_from(["C", ">", "strided", "transposed"]),
    st.integers(0, 63),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_and_layout_is_read_as_numpy_reads_it(shape, layout, first, seed):
    frames = np.random.default_rng(seed).integers(0, 2**16, (11, *shape), np.uint16)
    laid_out = {
        "C": frames,
        ">": frames.astype(">u2"),
        "strided": np.repeat(frames, 2, axis=2)[:, :, ::2],
        "transposed": np.asfortranarray(frames),
    }[layout]
    noise, dark = NoiseModel(2.5, 100.0, 300.0), 300.0**2 - 2.5 * 100.0
    found, expected = motion(laid_out, noise, row=first), np.empty(block_map_shape(shape))
    step = 64 // rows_seen(expected.size)
    for row, column in np.ndindex(expected.shape):
        top, bottom = 64 * row, min(64 * row + 64, shape[0])
        rows = list(range(top + first % step, bottom, step)) or [bottom - 1]
        parts = frames[:8, rows, 64 * column : 64 * column + 64].astype(np.float64).reshape(4, 2, -1).sum(1)
        variance = 2.5 * parts.mean(0).sum() + dark * 2 * parts[0].size
        expected[row, column] = ((parts - parts.mean(0)) ** 2).sum() / (variance * 3) - 1
    np.testing.assert_allclose(found, expected * 11 / 2, rtol=1e-3)


def test_where_blocks_are_few_more_of_each_is_looked_at():
    assert [rows_seen(blocks) for blocks in (1, 9, 16, 17, 64, 128, 256, 4096)] == [8, 8, 8, 8, 2, 1, 1, 1]


def test_dark_frames_do_not_move():
    assert (motion(np.zeros((20, 64, 64), np.uint8)) == 0).all()


def test_the_family_is_the_number_of_thresholds_the_motion_is_under():
    found = choose_families(np.array([[9.0, 2.0], [0.4, -0.2]], np.float32), (4.0, 0.5))
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1], [2, 2]]
    assert not choose_families(np.array([[-1.0, 9.0]], np.float32), ()).any()


def test_a_scene_is_still_while_averaging_it_errs_by_noise_alone():
    rng = np.random.default_rng(8)
    still = rng.poisson(20, (20, 320, 320)).astype(np.uint8)
    assert is_still(motion(still))
    wave = 20 + 8 * np.sin(np.arange(320) / 3 + 0.05 * np.arange(20)[:, None, None])  # three pixels within the group
    assert not is_still(motion(rng.poisson(np.broadcast_to(wave, still.shape)).astype(np.uint8)))


@pytest.mark.parametrize("side", [65, 130, 160, 192])
@pytest.mark.parametrize("ratio", [7, 11, 20])
def test_few_blocks_do_not_move_by_chance(side, ratio):
    rng = np.random.default_rng(9)
    for _ in range(60):
        seen = motion(rng.poisson(20, (ratio, side, side)).astype(np.uint8))
        assert borne(seen, (side, side), ratio) == 0


@pytest.mark.parametrize(("dose", "step"), [(20, 0.05), (200, 0.015)])
def test_as_many_frames_are_borne_as_a_sum_of_them_would_be_still(dose, step):
    rng = np.random.default_rng(3)
    phase = np.arange(320) / 3 + step * np.arange(32)[:, None, None]
    frames = rng.poisson(np.broadcast_to(dose * (1 + 0.4 * np.sin(phase)), (32, 320, 320))).astype(np.uint16)
    found = borne(motion(frames), (320, 320), 32)
    assert 4 <= found < 20
    assert motion(frames[: found - 1]).mean() < 0.2
    assert not is_still(motion(frames[: found + 3]))
