"""A movie of the virtual microscope in a file that lies in memory: the detector's frames, as fast as they can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framefold_simulator.movie import Movie, MovieSpec

DISTINCT = 60
"""Frames that are simulated; then they come again."""


def write_movie(path: Path, side: int, count: int) -> str:
    """Write `count` frames of `side` x `side` pixels, uint8 at 20 e-/px, as .npy; returns the SOURCE that reads them."""
    counts = Movie(MovieSpec(shape=(side, side))).counts(0, min(DISTINCT, count))
    movie = np.lib.format.open_memmap(path, "w+", counts.dtype, (count, side, side))
    for first in range(0, count, DISTINCT):
        movie[first : first + DISTINCT] = counts[: count - first]
    movie.flush()
    return f"file:{path}"
