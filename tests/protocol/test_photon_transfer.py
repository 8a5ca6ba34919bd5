"""Gain, offset and read noise found again in the frames of simulated detectors, still and moving."""

from __future__ import annotations

import numpy as np
import pytest

from framefold_protocol.photon_transfer import measure
from framefold_simulator.movie import Movie, MovieSpec

SHAPE = (256, 256)
FRAMES = 20
GAIN, OFFSET, READ_NOISE = 12.0, 100.0, 20.0


@pytest.fixture(scope="module")
def movies():
    """Electrons (T, H, W) and the mean dose, of a scene at rest and one that moves fast."""
    found = {}
    for speed in (0.0, 3.0):
        movie = Movie(MovieSpec(SHAPE, dose=20, seed=3, loop=40, speed=speed))
        found[speed] = movie.counts(0, FRAMES), float(movie.clean(0, FRAMES).mean())
    return found


def integrating(electrons: np.ndarray, gain=GAIN, offset=OFFSET, read_noise=READ_NOISE) -> np.ndarray:
    """What an integrating detector reads, in whole counts."""
    noise = np.random.default_rng(1).normal(0, read_noise, electrons.shape)
    return np.rint(np.maximum(gain * electrons + offset + noise, 0)).astype(np.uint16)


def mean_variance(noise, counts: float) -> float:
    return float(noise.variance(np.array(counts)))


@pytest.mark.parametrize("speed", [0.0, 3.0])
def test_a_counting_detector_has_gain_one_and_nothing_else(movies, speed):
    found = measure(movies[speed][0])
    assert found.noise.counts_per_electron == pytest.approx(1, abs=0.01)
    assert (found.noise.offset_counts, found.noise.read_noise_counts) == (0, 0)
    assert found.gain_error < 0.01


@pytest.mark.parametrize("speed", [0.0, 3.0])
def test_an_integrating_detector_is_told_by_its_variance(movies, speed):
    electrons, dose = movies[speed]
    found = measure(integrating(electrons))
    assert found.noise.counts_per_electron == pytest.approx(GAIN, abs=4 * found.gain_error)
    assert found.gain_error < 0.05 * GAIN
    expected = GAIN**2 * dose + READ_NOISE**2
    assert mean_variance(found.noise, GAIN * dose + OFFSET) == pytest.approx(expected, rel=0.01)
    assert found.variance_error < 0.005


def test_offset_and_read_noise_are_told_apart_by_skewness():
    """On more frames than one group has; variance alone cannot tell an offset from read noise."""
    electrons = np.random.default_rng(2).poisson(np.linspace(2, 30, 512)[:, None], (30, 512, 512))
    found = measure(integrating(electrons))
    assert found.noise.counts_per_electron == pytest.approx(GAIN, rel=0.01)
    assert found.noise.offset_counts == pytest.approx(OFFSET, abs=8)
    assert found.noise.read_noise_counts == pytest.approx(READ_NOISE, abs=3)
    quiet = measure(integrating(electrons, read_noise=0.0))
    assert quiet.noise.offset_counts == pytest.approx(OFFSET, abs=8)
    assert quiet.noise.read_noise_counts < 8


def test_a_known_gain_is_kept_and_the_rest_is_measured(movies):
    electrons, dose = movies[0.0]
    found = measure(integrating(electrons), counts_per_electron=GAIN)
    assert (found.noise.counts_per_electron, found.gain_error) == (GAIN, 0)
    assert mean_variance(found.noise, GAIN * dose + OFFSET) == pytest.approx(GAIN**2 * dose + READ_NOISE**2, rel=0.01)


def test_a_flickering_beam_is_not_taken_for_noise():
    flicker = 1 + 0.1 * np.random.default_rng(3).standard_normal((FRAMES, 1, 1))
    frames = np.random.default_rng(4).poisson(50 * np.broadcast_to(flicker, (FRAMES, *SHAPE)))
    assert measure(frames.astype(np.uint16)).noise.counts_per_electron == pytest.approx(1, abs=0.02)


def test_uniform_light_tells_the_gain():
    frames = 5 * np.random.default_rng(5).poisson(40.0, (FRAMES, *SHAPE))
    assert measure(frames.astype(np.uint16)).noise.counts_per_electron == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(
    "frames",
    [
        np.ones((2, 64, 64), np.uint8),  # too few for a second difference
        np.random.default_rng(6).poisson(9, (20, 16, 16)).astype(np.uint8),  # too few blocks
        np.zeros((20, 64, 64), np.uint8),
        np.full((20, 64, 64), 255, np.uint8),  # saturated
    ],
)
def test_frames_that_tell_nothing_are_not_asked(frames):
    assert measure(frames) is None


def _shadowed(kind):
    """Frames of 20 electrons of which most pixels are always 0, or always full."""
    frames = np.random.default_rng(0).poisson(20, (20, 128, 128)).astype(np.uint8)
    frames[:, :80] = {"dark": 0, "saturated": 255}[kind]
    return frames


@pytest.mark.parametrize("kind", ["dark", "saturated"])
@pytest.mark.parametrize("told", [None, 1.0])
def test_pixels_that_never_change_tell_nothing(kind, told):
    found = measure(_shadowed(kind), told)
    assert found.noise.counts_per_electron == pytest.approx(1, rel=0.03)
    assert (found.noise.offset_counts, found.noise.read_noise_counts) == (0, 0)


@pytest.mark.parametrize("dose", [0.0003, 0.003, 0.03])
def test_single_electrons_tell_the_gain(dose):
    frames = np.random.default_rng(0).poisson(dose, (20, 128, 128)).astype(np.uint8)
    assert measure(frames).noise.counts_per_electron == pytest.approx(1, rel=0.15)


def test_frames_that_never_change_tell_nothing():
    assert measure(np.full((20, 64, 64), 7, np.uint8)) is None
