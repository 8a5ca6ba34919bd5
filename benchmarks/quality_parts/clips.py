"""The clips: movies whose truth is known, and takes of them at a dose. None was ever shown to a net in training.

The virtual microscope at seeds 0 and 1 (training begins at a million); procedural scenes of three paces from seeds of a form
that training never draws; clean recordings, given by path, scaled to the dose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError
from framefold_simulator.movie import Movie, MovieSpec
from framefold_simulator.scene import make_scene

Pixels = npt.NDArray[np.float32]
Counts = npt.NDArray[np.unsignedinteger]

FIELD = 512
"""Side of the simulated field in pixels, of which a clip is the middle."""
SIMULATOR_SEEDS = {"simulator-0": 0, "simulator-1": 1}
PACES = {"still": 0.0, "slow": 0.1, "fast": 1.0}
"""Procedural scenes: drift in pixels per frame. All but the still one deform, too."""
LEAST_FRAMES = 160
"""That a clip has where it can: a procedural one of other length is another one, and all are scaled by their mean."""
BUILT_IN = (*SIMULATOR_SEEDS, *PACES)
CONTRAST = 0.25
"""Of the mean: fainter columns than this are not looked for, their place in a frame is anybody's guess."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A movie without noise."""

    name: str
    clean: Pixels = field(repr=False)
    """(T, H, W), mean 1."""
    columns: tuple[Pixels, ...] | None = field(default=None, repr=False)
    """Of every frame: (N, 3), y, x in pixels and the sign of each atomic column's contrast; None: no lattice."""

    def take(self, dose: float) -> tuple[Pixels, Counts]:
        """Expected electrons, and one draw of them, at a mean of `dose` e-/px and frame: bytes where 255 are enough."""
        expected = self.clean * np.float32(dose)
        counts = np.random.default_rng(0).poisson(expected)
        return expected, counts.astype(np.uint8 if counts.max() < 256 else np.uint16)


def load(name: str, frames: int, size: int) -> Clip:
    """The middle `size` x `size` pixels of a built-in clip or of a recording. Raises `InputError` when it is too short."""
    loaded = max(frames, LEAST_FRAMES)
    if name in SIMULATOR_SEEDS:
        return _simulated(name, loaded, size)
    clip = _procedural(name, loaded, size) if name in PACES else _recorded(Path(name), loaded, size)
    if len(clip.clean) < frames:
        found = f"recording {name} has {len(clip.clean)} frames"
        raise InputError(f"{found}, expected {frames}", hint="Ask for smaller --ratios")
    return clip


@cache
def _simulated(name: str, frames: int, size: int) -> Clip:
    spec = MovieSpec(shape=(FIELD, FIELD), dose=1.0, seed=SIMULATOR_SEEDS[name])
    corner = (FIELD - size) // 2
    inside = slice(corner, corner + size)
    clean = Movie(spec).clean(0, frames)[:, inside, inside]
    return Clip(name, clean / clean.mean(), tuple(_columns(spec, frame, corner, size) for frame in range(frames)))


def _columns(spec: MovieSpec, frame: int, corner: int, size: int) -> Pixels:
    """Clearly visible columns at least 6 pixels from the clip's edge."""
    found = make_scene(spec.tile, spec.loop, spec.speed, spec.seed).columns(frame)
    y, x = found.y % FIELD - corner, found.x % FIELD - corner
    kept = (np.minimum(y, x) > 6) & (np.maximum(y, x) < size - 7) & (np.abs(found.peak) > CONTRAST)
    return np.stack([y, x, np.sign(found.peak)], axis=1)[kept].astype(np.float32)


@cache
def _procedural(name: str, frames: int, size: int) -> Clip:
    from framefold_training import simulate  # scipy and numba's compilation, which other clips do without

    rng = np.random.default_rng([0, list(PACES).index(name), 11])  # two numbers make training's seeds, three these
    clean = simulate.movie(rng, frames, size, PACES[name])
    return Clip(name, clean / clean.mean())


@cache
def _recorded(path: Path, frames: int, size: int) -> Clip:
    clean = read(path, frames, size).astype(np.float32)
    return Clip(path.stem, clean / clean.mean())


def read(path: Path, frames: int, size: int) -> Counts:
    """Up to `frames` frames of a recording, their middle `size` x `size` pixels or what there is of them, sides even."""
    with open_source(f"file:{path}") as source:
        found = np.empty((min(frames, source.info.frame_count or frames), *source.info.shape), source.info.dtype)
        filled = 0
        while filled < len(found) and (count := source.read_into(found[filled:])):
            filled += count
    sides = [min(length, size) // 2 * 2 for length in found.shape[1:]]
    y, x = ((length - side) // 2 for length, side in zip(found.shape[1:], sides, strict=True))
    return np.ascontiguousarray(found[:filled, y : y + sides[0], x : x + sides[1]])
