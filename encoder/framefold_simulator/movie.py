"""The movie: a scene rendered once into a clean loop of quantised levels, and Poisson counts about it at any frame.

Expected counts are `level * scale`, and the counts are Poisson about exactly those. Sources, files and sockets are not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError
from framefold_simulator.noise import largest_count, poisson_into, poisson_table
from framefold_simulator.render import mean_intensity, render, support_texture
from framefold_simulator.scene import make_scene

LEVELS = 1024
"""Levels of expected counts from 0 to BRIGHTEST * dose: steps of 0.2 % of the dose, far below shot noise."""

BRIGHTEST = 2.0
"""Expected counts are clipped here, in units of the mean dose; scenes stay below 1.8."""

DARKEST = 0.05
"""And here, where only overlapping particles come."""

TILE = 1024
"""A larger field repeats a rendered tile of at most this many pixels a side, so that memory stays bounded."""

LOOP_BYTES = 512 << 20
"""Bound on the clean loop's memory; the default loop of 240 frames fits at any shape."""


@dataclass(frozen=True)
class MovieSpec:
    """What to simulate. Raises `InputError` when a value is out of bounds."""

    shape: tuple[int, int] = (512, 512)
    """(H, W) in pixels, each at least 16."""
    dose: float = 20.0
    """Mean expected electrons per pixel per frame, e-/px; at most 30000, so that counts fit 16 bits."""
    seed: int = 0
    """Chooses scene and noise; 0 to 2**64 - 1."""
    loop: int = 240
    """Frames after which the motion repeats seamlessly. The noise never repeats. A short loop keeps speeds, not ranges."""
    speed: float = 1.0
    """Scales all motion; 0 is still."""

    def __post_init__(self) -> None:
        _check(len(self.shape) == 2 and min(self.shape) >= 16, "shape", self.shape, "(H, W) of at least 16 pixels each")
        _check(math.isfinite(self.dose) and 1e-3 <= self.dose <= 30000, "dose", self.dose, "0.001 to 30000 e-/px")
        _check(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        _check(math.isfinite(self.speed) and self.speed >= 0, "speed", self.speed, "0 or more")
        longest = LOOP_BYTES // (2 * self.tile[0] * self.tile[1])
        _check(1 <= self.loop <= longest, "loop", self.loop, f"1 to {longest} frames at this shape")

    @property
    def tile(self) -> tuple[int, int]:
        """(h, w) of the rendered field, which repeats over `shape`."""
        return min(self.shape[0], TILE), min(self.shape[1], TILE)


def _check(good: bool, field: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"movie {field} is {value}, expected {expected}")


class Movie:
    """An endless in-situ TEM movie. The same spec gives the same counts, in whatever pieces they are asked for.

    Construction renders the clean loop into `loop * h * w * 2` bytes (126 MB for 240 frames of 512x512), (h, w) being (H, W) up
    to 1024 pixels a side; larger fields repeat that tile, under noise of their own. Bytes are the same for the same versions of
    numpy and numba. All methods may be called from several threads.
    """

    spec: MovieSpec
    dtype: np.dtype[np.unsignedinteger]
    """uint8 when counts above 255 have a probability below 2**-32 at the brightest level, else uint16: counts never clip."""

    def __init__(self, spec: MovieSpec) -> None:
        self.spec = spec
        self.dtype = np.dtype(np.uint8 if largest_count(BRIGHTEST * spec.dose) <= 255 else np.uint16)
        self._expected = (np.arange(LEVELS) * (BRIGHTEST * spec.dose / (LEVELS - 1))).astype(np.float32)
        self._table = poisson_table(np.maximum(self._expected, self._expected[1]))  # level 0 is never used
        self._levels = _clean_loop(spec)

    def clean(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Expected counts per pixel (stop - start, H, W) of frames `start` to `stop`: the truth, strictly positive."""
        out = np.empty((_length(start, stop), *self.spec.shape), dtype=np.float32)
        beyond = [(0, whole - tile) for whole, tile in zip(self.spec.shape, self.spec.tile, strict=True)]
        for i, image in enumerate(out):
            image[:] = np.pad(self._expected[self._levels[(start + i) % self.spec.loop]], beyond, mode="wrap")
        return out

    def counts(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]:
        """Detector counts (stop - start, H, W) of `dtype`, Poisson about `clean`."""
        out = np.empty((_length(start, stop), *self.spec.shape), dtype=self.dtype)
        self.counts_into(start, out)
        return out

    def counts_into(self, start: int, out: npt.NDArray[np.unsignedinteger]) -> None:
        """Fill `out`, C-contiguous (n, H, W) of `dtype`, with counts from frame `start` on; the GIL is released."""
        _length(start, start + len(out))
        fits = out.ndim == 3 and out.shape[1:] == self.spec.shape and out.dtype == self.dtype and out.flags.c_contiguous
        _check(
            fits, "buffer", f"{out.dtype} {out.shape}", f"C-contiguous {self.dtype} (n, H, W) with (H, W) = {self.spec.shape}"
        )
        table = self._table
        poisson_into(self._levels, start, np.uint64(self.spec.seed), table.low, table.threshold, table.guide, out)


def _length(start: int, stop: int) -> int:
    _check(0 <= start <= stop, "range", f"{start} to {stop}", "0 <= start <= stop")
    return stop - start


def _clean_loop(spec: MovieSpec) -> npt.NDArray[np.uint16]:
    """Render all frames as levels (loop, h, w)."""
    scene = make_scene(spec.tile, spec.loop, spec.speed, spec.seed)
    support = support_texture(spec.tile, spec.seed)
    beam = np.array([scene.beam_current(frame) for frame in range(spec.loop)])
    mean = np.mean([current * mean_intensity(scene, frame) for frame, current in enumerate(beam)])
    to_level = (beam / mean * (LEVELS - 1) / BRIGHTEST).astype(np.float32)
    darkest = math.ceil(DARKEST * (LEVELS - 1) / BRIGHTEST)
    levels = np.empty((spec.loop, *spec.tile), dtype=np.uint16)
    for frame in range(spec.loop):
        image = render(scene, support, frame) * to_level[frame]
        levels[frame] = np.clip(np.rint(image), darkest, LEVELS - 1)
    return levels
