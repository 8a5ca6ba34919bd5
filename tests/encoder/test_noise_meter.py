"""What the noise meter tells of groups that pass: soon, better with time, and nothing that frames do not tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_encoder.noise_meter import NoiseMeter
from framefold_protocol.noise import NoiseModel


def look(meter, frames):
    """Whether a group brought news."""
    meter.look(frames)
    news = meter.news()
    assert meter.news() is None  # once
    assert news in (None, meter.noise)
    return news is not None


def group(seed, shape=(20, 200, 264), gain=1.0, offset=0.0, read_noise=0.0, dose=(2.0, 40.0)):
    """Frames of a brightness that rises from left to right."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(np.broadcast_to(np.linspace(*dose, shape[2]), shape))
    counts = gain * electrons + offset + rng.normal(0, read_noise, shape) if read_noise else gain * electrons + offset
    return np.maximum(np.rint(counts), 0).astype(np.uint16)


@given(st.floats(0.8, 60), st.integers(3, 40), st.integers(64, 700), st.integers(64, 700), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_the_first_group_tells_the_gain(gain, frames, height, width, seed):
    meter = NoiseMeter()
    shape = frames, height, width
    assert look(meter, group(seed, shape, gain, dose=(20.0, 60.0)))
    assert meter.noise.variance(np.full(1, 40.0 * gain))[0] == pytest.approx(40 * gain**2 + (gain != int(gain)) / 12, rel=0.15)


def test_offset_and_read_noise_are_told_too():
    meter = NoiseMeter()
    for seed in range(4):
        meter.look(group(seed, gain=12.0, offset=400.0, read_noise=30.0))
    assert meter.noise.counts_per_electron == pytest.approx(12, rel=0.03)
    assert meter.noise.offset_counts == pytest.approx(400, abs=60)
    assert meter.noise.read_noise_counts == pytest.approx(30, abs=8)


def test_a_bad_beginning_is_forgotten():
    """The beam comes on within the first group."""
    meter = NoiseMeter()
    meter.look((group(0) * np.linspace(0, 2, 20)[:, None, None] ** 3).astype(np.uint16))
    begun_with = meter.noise.counts_per_electron
    news = [look(meter, group(seed)) for seed in range(1, 64)]
    assert begun_with > 2
    assert meter.noise.counts_per_electron == pytest.approx(1, abs=0.02)
    assert any(news)
    assert not any(news[32:])


def test_once_it_is_known_there_is_hardly_any_news():
    meter = NoiseMeter()
    assert sum(look(meter, group(seed)) for seed in range(20)) < 3


def test_small_frames_tell_it_together():
    meter = NoiseMeter()
    assert [look(meter, group(seed, (20, 32, 24))) for seed in range(3)] == [False, True, False]  # of twelve blocks


def test_short_groups_tell_it_as_well_as_long_ones_and_better_with_time():
    """By a per cent or two still scenes look as if they moved."""
    errors = []
    for start in range(0, 320, 16):
        meter = NoiseMeter()
        for seed in range(start, start + 16):
            meter.look(group(seed, (4, 256, 256)))
            if seed == start:
                errors.append([meter.noise.counts_per_electron - 1])
        errors[-1].append(meter.noise.counts_per_electron - 1)
    first, last = np.sqrt(np.mean(np.square(errors), axis=0))
    assert first < 0.01
    assert last < 0.5 * first + 0.001


@pytest.mark.parametrize(
    "frames",
    [group(0, (2, 200, 200)), group(0, (20, 16, 16)), group(0, (20, 5, 300)), np.full((20, 200, 200), 7, np.uint8)],
    ids=["two frames", "few pixels", "narrow", "no noise"],
)
def test_what_frames_do_not_tell_is_not_known(frames):
    meter = NoiseMeter()
    assert not any(look(meter, frames) for _ in range(3))
    assert meter.noise is None
    assert look(meter, group(1)) or look(meter, group(2))  # the next that can


@pytest.mark.parametrize(
    ("told", "offset", "said"),
    [
        (1.0, 0.0, ""),
        (1.2, 0.0, ""),
        (12.0, 0.0, "told to be 12 counts per electron, but frames have 0.0"),
        (1.0, 100.0, "0.1"),
    ],
)
def test_a_gain_that_is_told_is_believed_and_a_contradiction_said_once(told, offset, said, caplog):
    meter = NoiseMeter(told)
    with caplog.at_level("WARNING"):
        assert not any(look(meter, group(seed, offset=offset)) for seed in range(3))
    assert meter.noise == NoiseModel(told)
    assert caplog.text.count("the gain is told") == bool(said)
    assert said in caplog.text
