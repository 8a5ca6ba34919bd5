"""What happens in a scene besides its drift: columns that hop, particles in liquid, bend contours, changes of contrast and
brightness, cuts.

Each function draws into a clean movie (T, H, W) in place, seeded. Called by `simulate` and `pool`; speeds are pixels per frame.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from framefold_protocol.compiled import compiled
from framefold_training.textures import Floats, Image, Rng, smooth_noise, splat


def add_contours(rng: Rng, movie: Image, speed: float) -> None:
    """Dark bend contours: bands where a smooth phase passes multiples of 2 pi, sweeping as the sample bends."""
    phase = smooth_noise(rng, movie.shape[1], rng.uniform(15, 50)) * np.float32(rng.uniform(1, 6))
    sweep = np.linspace(-0.5, 0.5, len(movie)) * speed * len(movie) / 60 * rng.uniform(-12, 12)
    _darken(movie, phase, sweep, np.float32(rng.uniform(0.1, 0.5)), np.float32(1 / rng.uniform(0.2, 0.8) ** 2))


def add_hopping(rng: Rng, movie: Image, path: Floats) -> None:
    """Atom columns or small clusters that appear, vanish and hop to a neighbouring site, riding on the `path` (T, 2)."""
    frames, size = len(movie), movie.shape[1]
    sigma, height = rng.uniform(1.0, 3.0), rng.uniform(-0.4, 0.4)
    hop = 4 * sigma * np.exp(1j * rng.uniform(0, 2 * np.pi))
    for _ in range(rng.integers(2, 12)):
        site = rng.uniform(0, size, 2)
        moves = rng.random(frames) < rng.choice([0.02, 0.1, 0.3])
        place = np.cumsum(moves * rng.choice([-1, 1], frames))
        present = np.cumsum(rng.random(frames) < 0.03) % 2 == 0
        row, column = site[0] + place * hop.imag - path[:, 0], site[1] + place * hop.real - path[:, 1]
        for t in np.flatnonzero(present):
            splat(movie[t], row[t : t + 1], column[t : t + 1], np.array([height]), sigma)


def add_swimmers(rng: Rng, movie: Image, speed: float) -> None:
    """Particles in a liquid cell: discs with soft edges in Brownian motion and flow, each with its own pace."""
    frames, size, count = len(movie), movie.shape[1], int(rng.integers(3, 30))
    pace = speed * rng.uniform(0.2, 1.5, count)
    walk = np.cumsum(rng.normal(0, 1, (2, frames, count)) * pace * rng.uniform(0.2, 1), axis=1)
    flow = rng.normal(0, 0.3 * speed, (2, 1, 1)) * np.arange(frames)[None, :, None]
    place = (rng.uniform(0, size, (2, 1, count)) + walk + flow) % size
    radius, height = np.exp(rng.uniform(np.log(2), np.log(15), count)), rng.uniform(-0.4, 0.1, count)
    _add_discs(movie, place[0], place[1], radius, height, np.float32(rng.uniform(0.5, 1.5)))


def replace_suddenly(rng: Rng, movie: Image, other: Image) -> None:
    """From one frame to the next, all of the movie or a region of it becomes another (T, H, W)."""
    start = int(rng.integers(1, max(2, len(movie))))
    if rng.random() < 0.5:
        movie[start:] = other[start:]
    else:
        region = smooth_noise(rng, movie.shape[1], rng.uniform(8, 30)) > rng.uniform(0, 1)
        movie[start:, region] = other[start:, region]


def change_contrast(rng: Rng, movie: Image) -> None:
    """Contrast grows, fades or flips, and brightness wanders, as focus, tilt and beam change."""
    frames = len(movie)
    first, last = rng.uniform(0.4, 1.3), rng.uniform(-0.5, 1.3)
    factor = np.linspace(first, last, frames) if rng.random() < 0.7 else np.where(np.arange(frames) < frames / 2, first, last)
    mean = movie.mean()
    movie -= mean
    movie *= factor[:, None, None].astype(np.float32)
    movie += mean + np.cumsum(rng.normal(0, 0.004, frames))[:, None, None].astype(np.float32)


def swing_brightness(rng: Rng, movie: Image) -> None:
    """Brightness rises and falls smoothly, by some hundredths to tenths, evenly or not: beam, bending, diffraction."""
    frames, size = movie.shape[:2]
    pace = np.exp(rng.uniform(np.log(2), np.log(15)))  # frames; a swing takes some six of them
    waves = ndimage.gaussian_filter1d(rng.standard_normal((2, frames)), pace, axis=1, mode="wrap")
    waves *= np.exp(rng.uniform(np.log(0.03), np.log(0.4))) / np.abs(waves).max()
    even, uneven = np.ones((size, size), np.float32), smooth_noise(rng, size, rng.uniform(15, 50)) / 2
    first, second = (even, uneven) if rng.random() < 0.5 else (even, even)
    for image, a, b in zip(movie, *waves.astype(np.float32), strict=True):
        image *= np.maximum(1 + a * first + b * second, np.float32(0.1))


@compiled()
def _darken(movie: Image, phase: Image, sweep: Floats, depth: np.float32, sharpness: np.float32) -> None:
    for t in range(movie.shape[0]):
        for y in range(movie.shape[1]):
            for x in range(movie.shape[2]):
                s = np.sin(np.float32(0.5) * (phase[y, x] + np.float32(sweep[t])))
                movie[t, y, x] *= np.float32(1) - depth * np.exp(-s * s * sharpness)


@compiled()
def _add_discs(movie: Image, row: Floats, column: Floats, radius: Floats, height: Floats, edge: np.float32) -> None:
    """Discs at (T, N) rows and columns, of (N,) radius and height, whose edges are `edge` pixels soft."""
    for t in range(movie.shape[0]):
        for k in range(radius.size):
            reach = int(radius[k] + 3 * edge) + 1
            middle_row, middle_column = int(row[t, k]), int(column[t, k])
            for y in range(max(0, middle_row - reach), min(movie.shape[1], middle_row + reach + 1)):
                for x in range(max(0, middle_column - reach), min(movie.shape[2], middle_column + reach + 1)):
                    inside = radius[k] - np.sqrt((x - column[t, k]) ** 2 + (y - row[t, k]) ** 2)
                    movie[t, y, x] += np.float32(height[k] / (1 + np.exp(-2 * inside / edge)))
