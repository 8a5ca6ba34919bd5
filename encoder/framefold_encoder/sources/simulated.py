"""`sim:`, the virtual microscope as a source: `sim:?shape=512x512&frames=1000&dose=20&seed=0&rate=200&speed=1&loop=240&live=0`.

Frames come at the camera's pace, as from a detector, but a slow reader misses none: the simulator waits, unless it is live as a
camera is. The truth behind them is `Movie(spec).clean`; equal parameters give equal frames.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources.base import SourceInfo
from framefold_protocol.errors import InputError
from framefold_simulator.movie import Movie, MovieSpec

PIXEL_SIZE_NM = 0.02
"""20 pm at the specimen, as in atomic-resolution in-situ work; the simulated scenes have no scale of their own."""

FRAMES = 1000
"""Frames of `sim:` when none are asked for."""

RATE_HZ = 200.0
"""Frames per second of `sim:` when none are asked for."""


class SimulatedSource:
    """Counts of a simulated movie, delivered in real time. Implements `Source`."""

    def __init__(
        self,
        spec: MovieSpec,
        *,
        frames: int | None = FRAMES,
        rate_hz: float = RATE_HZ,
        live: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`frames` None is endless; `rate_hz` 0 is as fast as they can be made; `live`: see `SourceInfo`. Clocks in seconds."""
        self._movie: Movie | None = Movie(spec)
        frame_time_s = 1 / rate_hz if rate_hz else None
        self._info = SourceInfo(
            "sim", spec.shape, self._movie.dtype, frames, frame_time_s, PIXEL_SIZE_NM, counts_per_electron=1.0, live=live
        )
        self._rate_hz = rate_hz
        self._sleep = sleep
        self._clock = clock
        self._started: float | None = None
        self._position = self._first = 0

    @property
    def info(self) -> SourceInfo:
        """The movie's description."""
        return self._info

    def read_into(self, out: npt.NDArray[np.unsignedinteger[Any]]) -> int:
        """Write the frames that are due into `out`, waiting for the first of them; see `Source.read_into`."""
        if self._movie is None:
            raise ValueError("sim: read after close")
        left = len(out) if self._info.frame_count is None else min(len(out), self._info.frame_count - self._position)
        count = min(left, self._due()) if left else 0
        self._movie.counts_into(self._position, out[:count])
        self._position += count
        return count

    def skip(self, count: int) -> None:
        """Go past the next `count` frames, as if the camera had delivered them before."""
        self._position = self._first = self._position + count

    def _due(self) -> int:
        """Frames the camera has finished and nobody has read; waits until there is one."""
        if not self._rate_hz:
            return np.iinfo(np.intp).max
        if self._started is None:
            self._started = self._clock()
        wait = self._started + (self._position + 1 - self._first) / self._rate_hz - self._clock()
        if wait > 0:
            self._sleep(wait)
        finished = math.floor((self._clock() - self._started) * self._rate_hz)
        return max(finished + self._first - self._position, 1)

    def close(self) -> None:
        """Drop the movie; calling it again does nothing."""
        self._movie = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_simulation(rest: str) -> SimulatedSource:
    """Open what follows `sim:`. Raises `InputError` naming the parameter that is unknown or out of bounds."""
    if rest and not rest.startswith("?"):
        raise InputError(f"source 'sim:{rest}': expected nothing or '?' after 'sim:'", hint="Write sim:?shape=512x512&dose=20")
    given: dict[str, Any] = {}
    for name, text in parse_qsl(rest[1:], keep_blank_values=True):
        if name in given:
            raise InputError(f"sim: parameter {name!r} is given twice", hint="Give it once")
        given[name] = _value(name, text)
    pace = {"frames": given.pop("frames", FRAMES), "rate_hz": given.pop("rate", RATE_HZ), "live": given.pop("live", False)}
    return SimulatedSource(MovieSpec(**given), **pace)


def _value(name: str, text: str) -> Any:
    if name not in _PARAMETERS:
        nearest = difflib.get_close_matches(name, _PARAMETERS, n=1)
        known = ", ".join(_PARAMETERS)
        raise InputError(
            f"sim: has no parameter {name!r}; known are {known}", hint=f"Did you mean {nearest[0]!r}?" if nearest else ""
        )
    parse, expected = _PARAMETERS[name]
    try:
        return parse(text)
    except ValueError:
        raise InputError(f"sim: {name} is {text!r}, expected {expected}") from None


def _shape(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


def _frames(text: str) -> int | None:
    if text.lower() in ("inf", "none"):
        return None
    if int(text) < 1:
        raise ValueError
    return int(text)


def _rate(text: str) -> float:
    rate_hz = float(text)
    if not 0 <= rate_hz < math.inf:
        raise ValueError
    return rate_hz


def _switch(text: str) -> bool:
    return bool(("0", "1").index(text))


_PARAMETERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "shape": (_shape, "HEIGHTxWIDTH in pixels, such as 512x512"),
    "frames": (_frames, "a number of frames, at least 1, or inf"),
    "dose": (float, "electrons per pixel per frame, such as 20"),
    "seed": (int, "a whole number"),
    "rate": (_rate, "frames per second, 0 for as fast as possible"),
    "speed": (float, "a factor of the motion, 1 for normal"),
    "loop": (int, "frames after which the motion repeats, such as 240"),
    "live": (_switch, "0 for a source that waits, 1 for one that does not"),
}
"""How each parameter is read, and what is expected. All but frames, rate and live are `MovieSpec`'s, which has the bounds."""
