from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from framefold_decoder.store.rounding import FLOOR_ELECTRONS, NOISE_FRACTION, round_below_noise
from framefold_protocol.noise import NoiseModel

COUNTS = st.floats(-(2.0**32), 2.0**32, width=32)
NOISES = st.builds(NoiseModel, st.floats(1e-3, 1e4), st.just(0.0) | st.floats(0, 2000), st.just(0.0) | st.floats(0, 100))


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=8), elements=COUNTS), NOISES)
def test_error_stays_below_a_fraction_of_the_noise(frames, noise):
    exact, gain = frames.astype(np.float64), noise.counts_per_electron
    error = np.abs(round_below_noise(frames, noise) - exact)
    variance = gain * np.maximum(np.abs(exact) - noise.offset_counts, FLOOR_ELECTRONS * gain) + noise.read_noise_counts**2
    assert np.all(error <= np.sqrt(variance) / NOISE_FRACTION * (1 + 1e-6) + np.abs(exact) * 2.0**-24)  # as near as floats are


@given(arrays(np.float32, 20, elements=COUNTS), NOISES)
def test_rounding_twice_changes_nothing_more(frames, noise):
    once = round_below_noise(frames, noise)
    np.testing.assert_array_equal(round_below_noise(once, noise), once)


def test_whole_counts_of_a_counting_detector_at_low_dose_stay_exact():
    counts = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(round_below_noise(counts), counts)


def test_nan_stays_nan():
    assert np.isnan(round_below_noise(np.array([np.nan, 1.0], np.float32))).tolist() == [True, False]


def test_frames_take_far_fewer_bits_than_before():
    frames = np.random.default_rng(0).gamma(4.0, 3.0, 10000).astype(np.float32)
    assert len(np.unique(round_below_noise(frames))) < 400 < 9000 < len(np.unique(frames))
