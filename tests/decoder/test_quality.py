"""The misfit is 1 for the truth and large for anything else; PSNR is the textbook's."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie

from framefold_decoder.quality import chi2, misfit, psnr
from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.tiling import BAND_VOXELS
from framefold_protocol import payload
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

SHAPE = (192, 200)
MASKS = coding(SHAPE, MaskSpec(ratio=10), MaskSpec("ones", 10), MaskSpec("random", 10, 0.1))


@pytest.mark.parametrize("dose", [0.3, 5.0, 20.0, 300.0])
def test_the_truth_explains_its_counts(dose):
    truth = moving_movie(10, SHAPE, dose)
    group = fold(np.random.default_rng(0).poisson(truth), MASKS)
    assert misfit(group, truth.astype(np.float32), NoiseModel()) == pytest.approx(1, abs=0.05)


def test_gain_offset_and_read_noise_are_accounted_for():
    rng = np.random.default_rng(1)
    electrons = moving_movie(10, SHAPE, 0.5)
    counts = np.rint(20 * rng.poisson(electrons) + 500 + rng.normal(0, 30, electrons.shape))
    truth = (20 * electrons + 500).astype(np.float32)
    group = fold(counts, MASKS)
    assert misfit(group, truth, NoiseModel(20.0, 500.0, 30.0)) == pytest.approx(1, abs=0.05)
    assert misfit(group, truth, NoiseModel(20.0, 500.0, 0.0)) > 4
    assert misfit(group, truth, NoiseModel(20.0, 0.0, 30.0)) < 0.4


def test_frames_that_do_not_explain_the_snapshot_stand_out():
    truth = moving_movie(10, SHAPE, 100.0).astype(np.float32)
    group = fold(np.random.default_rng(2).poisson(truth), MASKS)
    assert misfit(group, truth[::-1], NoiseModel()) > 1.5
    assert misfit(group, truth * np.float32(1.1), NoiseModel()) > 3
    assert misfit(group, np.zeros_like(truth), NoiseModel()) > 1000


@pytest.mark.parametrize("dose", [0.003, 0.01, 0.05])
def test_where_electrons_are_few_the_true_frames_are_right_still(dose):
    truth = moving_movie(10, SHAPE, dose).astype(np.float32)
    found = [misfit(fold(np.random.default_rng(seed).poisson(truth), MASKS), truth, NoiseModel()) for seed in range(8)]
    assert np.mean(found) == pytest.approx(1, abs=0.1)


def test_a_dark_surround_does_not_count():
    truth = moving_movie(10, SHAPE, 20.0).astype(np.float32)
    truth[:, :150] = 0
    group = fold(np.random.default_rng(2).poisson(truth), MASKS)
    assert misfit(group, truth, NoiseModel()) == pytest.approx(1, abs=0.05)


def test_unexposed_pixels_do_not_count():
    masks = coding(SHAPE, MaskSpec("random", 2, 0.2))
    group = fold(np.random.default_rng(3).poisson(9.0, (2, *SHAPE)), masks)
    frames = np.where(masks.window() == 1, 9.0, 1e6).astype(np.float32)
    assert misfit(group, frames, NoiseModel()) == pytest.approx(1, abs=0.05)


def test_an_empty_noiseless_snapshot_is_explained_by_nothing():
    group = FoldedGroup(np.zeros(SHAPE, np.uint16), MASKS)
    assert misfit(group, np.zeros((10, *SHAPE), np.float32), NoiseModel(0.0)) == 0


def test_frames_larger_than_a_band_are_judged_whole():
    shape = (600, 512)
    masks = coding(shape, MaskSpec(ratio=64))
    assert shape[0] * shape[1] * 64 > BAND_VOXELS
    snapshot = np.full(shape, 16 * 5, np.uint16)
    snapshot[0, 0] += 30
    snapshot[-1, -1] += 40
    frames = np.broadcast_to(np.float32(5), (64, *shape))
    assert misfit(FoldedGroup(snapshot, masks), frames, NoiseModel()) == pytest.approx((30**2 + 40**2) / 80 / (600 * 512))


def test_frames_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(9, 192, 200\), expected \(10, 192, 200\)"):
        misfit(FoldedGroup(np.zeros(SHAPE, np.uint16), MASKS), np.zeros((9, *SHAPE), np.float32), NoiseModel())


@pytest.mark.parametrize("dose", [2.0, 20.0, 200.0])
@pytest.mark.parametrize("step", [0.5, 2.0])
def test_the_bins_of_the_coder_are_accounted_for(dose, step):
    truth = moving_movie(10, SHAPE, dose)
    group = fold(np.random.default_rng(4).poisson(truth), MASKS)
    coder = VarianceStabilised(step=step)
    packed = payload.pack(group.snapshot, coder)
    sums = payload.decode(packed, SHAPE, coder)
    frames = truth.astype(np.float32)
    assert misfit(FoldedGroup(sums, MASKS, step), frames, NoiseModel()) == pytest.approx(1, abs=0.05)
    if step > 1 and dose > 2:
        assert misfit(FoldedGroup(sums, MASKS), frames, NoiseModel()) > 1.2


def test_chi2_is_the_misfit_over_what_noise_would_leave():
    assert chi2(0.9, 0.25) == pytest.approx(1.2)
    assert chi2(0.0, 1.0) == 0


def test_psnr_is_the_peak_over_the_error():
    truth = np.zeros((3, 4, 5), np.uint8)
    assert psnr(truth + np.uint8(1), truth, 255.0) == pytest.approx(20 * np.log10(255))
    assert psnr(np.full((3, 4, 5), 2.0), truth, 200.0) == pytest.approx(40)
    assert psnr(truth, truth, 255.0) == np.inf
    with pytest.raises(InputError, match="estimate is"):
        psnr(truth[:2], truth, 255.0)
