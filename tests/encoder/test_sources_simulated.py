"""The `sim:` source: its parameters, and frames at the camera's pace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_open import refusal

from framefold_encoder.sources import SourceInfo, open_source
from framefold_encoder.sources.simulated import PIXEL_SIZE_NM, SimulatedSource
from framefold_simulator.movie import Movie, MovieSpec

SPEC = MovieSpec(shape=(16, 24), dose=5.0, seed=3, loop=4)


class Clock:
    """Time that passes only while somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_the_default_is_what_is_documented() -> None:
    with open_source("sim:?loop=1") as source:  # the loop's frames are rendered on opening
        assert source.info == SourceInfo("sim", (512, 512), np.dtype(np.uint8), 1000, 1 / 200, PIXEL_SIZE_NM, 1.0)


def test_parameters_reach_the_movie() -> None:
    uri = "sim:?shape=16x24&frames=3&dose=300&seed=9&rate=0&speed=0.5&loop=4"
    truth = Movie(MovieSpec(shape=(16, 24), dose=300.0, seed=9, speed=0.5, loop=4))
    with open_source(uri) as source:
        assert source.info == SourceInfo("sim", (16, 24), np.dtype(np.uint16), 3, None, PIXEL_SIZE_NM, 1.0)
        out = np.empty((3, 16, 24), np.uint16)
        assert source.read_into(out) == 3
        np.testing.assert_array_equal(out, truth.counts(0, 3))


@pytest.mark.parametrize("text", ["inf", "none", "None"])
def test_an_endless_movie(text: str) -> None:
    with open_source(f"sim:?shape=16x24&frames={text}&rate=0&loop=4") as source:
        assert source.info.frame_count is None
        out = np.empty((50, 16, 24), source.info.dtype)
        assert [source.read_into(out) for _ in range(30)] == [50] * 30


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            "?doze=20",
            "sim: has no parameter 'doze'; known are shape, frames, dose, seed, rate, speed, loop, live. Did you mean 'dose'?",
        ),
        ("?shape=512", "sim: shape is '512', expected HEIGHTxWIDTH in pixels"),
        ("?shape=axb", "sim: shape is 'axb', expected HEIGHTxWIDTH"),
        ("?shape=4x4", "shape is (4, 4), expected (H, W) of at least 16 pixels each"),
        ("?frames=0", "sim: frames is '0', expected a number of frames, at least 1, or inf"),
        ("?frames=2.5", "sim: frames is '2.5'"),
        ("?dose=lots", "sim: dose is 'lots', expected electrons per pixel per frame"),
        ("?dose=nan", "dose is nan, expected 0.001 to 30000 e-/px"),
        ("?dose", "sim: dose is ''"),
        ("?rate=-1", "sim: rate is '-1', expected frames per second, 0 for as fast as possible"),
        ("?rate=inf", "sim: rate is 'inf'"),
        ("?rate=nan", "sim: rate is 'nan'"),
        ("?seed=x", "sim: seed is 'x', expected a whole number"),
        ("?speed=fast", "sim: speed is 'fast'"),
        ("?loop=x", "sim: loop is 'x'"),
        ("?dose=1&dose=2", "sim: parameter 'dose' is given twice"),
        ("dose=20", "source 'sim:dose=20': expected nothing or '?' after 'sim:'. Write sim:?shape=512x512&dose=20"),
    ],
)
def test_wrong_parameters(rest: str, expected: str) -> None:
    assert expected in refusal(f"sim:{rest}")


def paced(clock: Clock, frames: int | None = 20, rate_hz: float = 100.0) -> SimulatedSource:
    return SimulatedSource(SPEC, frames=frames, rate_hz=rate_hz, sleep=clock.sleep, clock=clock)


def test_an_eager_reader_gets_frames_as_they_are_taken() -> None:
    clock = Clock()
    with paced(clock) as source:
        out = np.empty((8, 16, 24), source.info.dtype)
        for frame in range(20):
            assert source.read_into(out) == 1
            assert clock.now == pytest.approx(1000.0 + (frame + 1) / 100)
        assert source.read_into(out) == 0
        assert clock.now == pytest.approx(1000.2)


def test_a_slow_reader_misses_nothing() -> None:
    clock = Clock()
    truth = Movie(SPEC).counts(0, 20)
    with paced(clock) as source:
        out = np.empty((20, 16, 24), source.info.dtype)
        assert source.read_into(out[:8]) == 1
        clock.now += 0.0501  # five more are due
        assert source.read_into(out[1:9]) == 5
        clock.now += 10.0
        assert source.read_into(out[6:14]) == 8
        assert source.read_into(out[14:]) == 6
        np.testing.assert_array_equal(out, truth)
    assert clock.now == pytest.approx(1010.0601)


def test_as_fast_as_possible_never_looks_at_the_clock() -> None:
    def forbidden(*_: float) -> float:
        raise AssertionError("time was asked for")

    with SimulatedSource(SPEC, frames=5, rate_hz=0, sleep=forbidden, clock=forbidden) as source:
        assert source.read_into(np.empty((9, 16, 24), source.info.dtype)) == 5


@settings(max_examples=50, deadline=None)
@given(
    rate_hz=st.floats(0.5, 1e5),
    reads=st.lists(st.tuples(st.integers(1, 9), st.floats(0, 0.1)), min_size=1, max_size=30),
)
def test_no_frame_comes_before_it_is_taken(rate_hz: float, reads: list[tuple[int, float]]) -> None:
    clock = Clock()
    movie = Movie(SPEC)
    with paced(clock, None, rate_hz) as source:
        done = 0
        for n, work_s in reads:
            out = np.empty((n, 16, 24), source.info.dtype)
            got = source.read_into(out)
            assert 1 <= got <= n
            np.testing.assert_array_equal(out[:got], movie.counts(done, done + got))
            done += got
            assert clock.now - 1000.0 >= done / rate_hz * (1 - 1e-6) - 1e-9
            clock.now += work_s
