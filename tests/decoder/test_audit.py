"""The figures an audit group gives, from noisy frames alone, against those of the noise-free truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from folded_examples import coding, fold

from framefold_decoder.audit import audit
from framefold_decoder.reconstruct.averaging import plain_mean
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import measure
from framefold_simulator.movie import Movie, MovieSpec

SHAPE = (192, 200)
MASKS = coding(SHAPE, MaskSpec(ratio=20))
GAIN, OFFSET, READ_NOISE = 12.0, 100.0, 20.0


@dataclass
class Case:
    truth: np.ndarray
    raw: np.ndarray
    group: object


def case(dose: float, gain=1.0, offset=0.0, read_noise=0.0) -> Case:
    movie = Movie(MovieSpec(SHAPE, dose=dose, seed=4, loop=40))
    noise = np.random.default_rng(1).normal(0, read_noise, (20, *SHAPE))
    raw = np.rint(np.maximum(gain * movie.counts(0, 20) + offset + noise, 0)).astype(np.uint16)
    return Case(gain * movie.clean(0, 20) + offset, raw, fold(raw, MASKS))


def mean_frames(one: Case) -> np.ndarray:
    """The plain mean of the exposed frames: far from the truth, and full of the snapshot's own noise."""
    mean = plain_mean(one.group.snapshot, one.group.exposure())
    return np.broadcast_to(mean, one.raw.shape)


@pytest.fixture(scope="module", params=[(5.0, 1.0, 0.0, 0.0), (50.0, 1.0, 0.0, 0.0), (20.0, GAIN, OFFSET, READ_NOISE)])
def judged(request):
    """A case, the noise model measured on its frames, and reconstructions of it."""
    one = case(*request.param)
    found = measure(one.raw)
    return one, found, {"gap-tv": GapTv().reconstruct(one.group, [], [], found.noise), "mean": mean_frames(one)}


@pytest.mark.parametrize("method", ["gap-tv", "mean"])
def test_psnr_is_the_truths_within_its_own_uncertainty(judged, method):
    one, found, reconstructions = judged
    frames = reconstructions[method]
    quality = audit(one.group, frames, one.raw, found.noise, found.variance_error)
    error = np.mean((frames - one.truth)[MASKS.window() == 0] ** 2)
    assert quality.error == pytest.approx(error, abs=3 * quality.uncertainty)
    assert quality.psnr_low < quality.psnr < quality.psnr_high
    assert 10 * np.log10(quality.peak**2 / np.mean((frames - one.truth) ** 2)) == pytest.approx(quality.psnr, abs=1.5)
    assert not quality.noise_is_overestimated


def test_subtracting_the_noise_without_minding_the_masks_would_flatter():
    """Why only hidden pixels count: the frames of a still scene follow the noise they were folded from."""
    one = case(20.0)
    frames = mean_frames(one)
    seen_too = np.mean((frames - one.raw.astype(float)) ** 2) - one.raw.mean()
    truly = np.mean((frames - one.truth) ** 2)
    assert seen_too < 0.65 * truly
    assert audit(one.group, frames, one.raw, NoiseModel()).error == pytest.approx(truly, rel=0.05)


@pytest.mark.parametrize("method", ["gap-tv", "mean"])
def test_ssim_is_the_truths(judged, method):
    one, found, reconstructions = judged
    frames = reconstructions[method]
    estimated = audit(one.group, frames, one.raw, found.noise).ssim
    # The truth in the place of the raw frames; in steps of 1/256 count, so that rounding adds no noise to speak of.
    scaled = NoiseModel(0.0, found.noise.offset_counts * 256)
    true = audit(one.group, frames * 256, np.rint(one.truth * 256).astype(np.uint32), scaled)
    assert estimated == pytest.approx(true.ssim, abs=0.05)


def test_the_figures_tell_the_error_and_not_the_dose():
    """The same frames, two per cent off the truth, against raw frames of two doses."""
    found = []
    for dose in (10.0, 100.0):
        one = case(dose)
        frames = (one.truth * 1.02).astype(np.float32)
        found.append(audit(one.group, frames, one.raw, NoiseModel()))
    assert found[0].psnr_low - 0.1 < found[1].psnr
    assert found[1].psnr == pytest.approx(10 * np.log10(1.02**2 / 0.02**2 * 2.2), abs=2)
    assert found[0].noise < 11 < 90 < found[1].noise


def test_an_error_below_the_noise_of_the_estimate_gives_a_lower_bound():
    one = case(20.0)
    quality = audit(one.group, one.truth.astype(np.float32), one.raw, NoiseModel())
    assert abs(quality.error) < 3 * quality.uncertainty
    assert quality.psnr_high is None or quality.psnr_high > 38
    assert np.isfinite(quality.psnr)
    assert quality.psnr >= 10 * np.log10(quality.peak**2 / (4 * quality.uncertainty))


def test_a_noise_model_that_contradicts_the_frames_is_found_out():
    one = case(20.0)
    frames = one.truth.astype(np.float32)
    assert audit(one.group, frames, one.raw, NoiseModel(2.0)).noise_is_overestimated
    assert not audit(one.group, frames, one.raw, NoiseModel(1.0)).noise_is_overestimated


def mean_of(group) -> np.ndarray:
    mean = plain_mean(group.snapshot, group.exposure())
    return np.broadcast_to(mean, (20, *SHAPE)).copy()


@pytest.mark.parametrize("reconstruct", [mean_of, lambda group: GapTv().reconstruct(group, [], [], NoiseModel())])
@pytest.mark.parametrize("specs", [(MaskSpec("ones", 20),), (MaskSpec(ratio=20), MaskSpec("ones", 20))])
def test_where_masks_hide_nothing_a_second_reconstruction_tells(reconstruct, specs):
    one = case(20.0)
    group = fold(one.raw, coding(SHAPE, *specs))
    frames = reconstruct(group)
    quality = audit(group, frames, one.raw, NoiseModel(), 0.002, reconstruct)
    assert quality.error == pytest.approx(np.mean((frames - one.truth) ** 2), abs=3 * quality.uncertainty)
    assert quality.uncertainty < 0.1
    blind = audit(group, frames, one.raw, NoiseModel(), 0.002)
    assert (blind is None) == (len(specs) == 1)


def test_a_dark_group_is_probed_without_harm():
    group = fold(np.zeros((20, *SHAPE)), coding(SHAPE, MaskSpec("ones", 20)))
    quality = audit(group, mean_of(group), np.zeros((20, *SHAPE), np.uint8), NoiseModel(), 0.0, mean_of)
    assert quality.error == 0
    assert np.isfinite(quality.psnr)


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (9, 8)])
def test_any_frame_size_will_do(shape):
    masks = coding(shape, MaskSpec(ratio=4, period=8))
    raw = np.random.default_rng(2).poisson(9.0, (4, *shape)).astype(np.uint8)
    quality = audit(fold(raw, masks), np.full((4, *shape), 9, np.float32), raw, NoiseModel())
    assert quality is None or -1 <= quality.ssim <= 1


def test_bands_do_not_show(monkeypatch):
    one = case(20.0)
    frames = mean_frames(one)
    whole = audit(one.group, frames, one.raw, NoiseModel())
    monkeypatch.setattr("framefold_decoder.reconstruct.tiling.BAND_VOXELS", 20 * 200 * 16)
    banded = audit(one.group, frames, one.raw, NoiseModel())
    assert (banded.psnr, banded.ssim) == pytest.approx((whole.psnr, whole.ssim), rel=1e-9)


def test_other_shapes_are_refused():
    one = case(20.0)
    with pytest.raises(InputError, match=r"raw \(19, 192, 200\), expected \(20, 192, 200\)"):
        audit(one.group, mean_frames(one), one.raw[1:], NoiseModel())
