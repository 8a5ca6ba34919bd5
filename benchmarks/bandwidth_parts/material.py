"""The frames everything is measured on: of the simulator at any dose, or of the user's own recording at the dose it has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from urllib.parse import parse_qsl, urlencode

import numpy as np
import numpy.typing as npt

from framefold_encoder.memory import zeros
from framefold_encoder.sources import open_source
from framefold_protocol.errors import InputError
from framefold_simulator.movie import Movie, MovieSpec

Counts = npt.NDArray[np.unsignedinteger]
DOSES = (1.0, 5.0, 20.0, 100.0)
"""e-/px and frame."""
TYPICAL = 20.0
"""The dose at which speeds and the detector table are measured, e-/px and frame."""


@dataclass(frozen=True)
class Material:
    """Frames of one dose."""

    dose: float
    """Mean electrons per pixel and frame; of a recording without a known gain, mean counts."""
    counts: Counts
    """(T, H, W), in the smallest type of the detector that holds them."""
    gain: float = 1.0
    """Counts per electron."""
    clean: npt.NDArray[np.float32] | None = None
    """(T, H, W) expected counts: the truth, where it is known."""


def load(uri: str, frames: int, shape: str) -> list[Material]:
    """Materials of all `DOSES` from the simulator (of `shape`, unless the URI says another), or the one a recording is."""
    if uri.partition(":")[0].lower() == "sim":
        return [_simulated(uri, dose, frames, shape) for dose in DOSES]
    return [_recorded(uri, frames)]


def typical(materials: list[Material]) -> Material:
    """The one whose dose is nearest to `TYPICAL`."""
    return min(materials, key=lambda material: abs(material.dose - TYPICAL))


def fit(counts: Counts, shape: tuple[int, int, int], dtype: np.dtype[np.unsignedinteger]) -> Counts:
    """An array (T, H, W) of another shape and type, as the ring's memory is, filled with these frames over and over.

    Neighbouring tiles are of different times, so that no noise appears twice in a frame or snapshot: a coder would find it. A
    type that is too small for the counts takes their low bits: as noisy as they are, which is all that speeds depend on.
    """
    frames = counts.astype(dtype, copy=False)
    height, width = frames.shape[1:]
    corners = list(product(range(0, shape[1], height), range(0, shape[2], width)))
    out = zeros(shape, dtype)
    for t, target in enumerate(out):
        for k, (y, x) in enumerate(corners):
            tile = target[y : y + height, x : x + width]
            again = k // len(frames)
            source = frames[(t + 7 * k) % len(frames)]
            tile[:] = (np.roll(source, 13 * again, (0, 1)) if again else source)[: tile.shape[0], : tile.shape[1]]
    return out


def _simulated(uri: str, dose: float, frames: int, shape: str) -> Material:
    query = {"shape": shape, "loop": str(frames), **dict(parse_qsl(uri.partition("?")[2])), "dose": str(dose)}
    query |= {"rate": "0", "frames": str(frames)}
    with open_source(f"sim:?{urlencode(query)}") as source:  # refuses what is not right
        counts = np.empty((frames, *source.info.shape), source.info.dtype)
        source.read_into(counts)
        spec = MovieSpec(source.info.shape, dose, int(query.get("seed", 0)), int(query["loop"]), float(query.get("speed", 1.0)))
    return Material(dose, counts, 1.0, Movie(spec).clean(0, min(frames, 20)))


def _recorded(uri: str, frames: int) -> Material:
    with open_source(uri) as source:
        info = source.info
        found = np.empty((frames, *info.shape), info.dtype)
        filled = 0
        while filled < frames and (count := source.read_into(found[filled:])):
            filled += count
    if not filled:
        raise InputError(f"source {uri!r} has no frames", hint="Give one that has, or sim:")
    gain = info.counts_per_electron or 1.0
    return Material(round(float(found[:filled].mean()) / gain, 2), fit(found[:filled], found.shape, info.dtype), gain)
