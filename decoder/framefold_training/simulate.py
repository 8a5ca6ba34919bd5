"""Training scenes: procedural movies that look like in-situ electron microscopy, seeded, values in [0.02, 1.1].

`texture` paints one static scene (lattices, or grains, particles, dislocation lines and fringes, over uneven background);
`movie` sets one or two of them in motion: drift, jitter, deformation, moving bend contours, cross-fades, brightness changes, or
nothing at all. Speeds range from still to several pixels a frame, because a decoder must learn when it may average. No doses
and no masks here. The shipped virtual microscope is another source of training movies, see `data`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

Image = npt.NDArray[np.float32]
Rng = np.random.Generator

LOWEST, HIGHEST = 0.02, 1.1
"""Bounds of a movie's values."""

MARGIN = 32
"""A movie of N pixels moves over a scene of N + 2 * MARGIN."""


def texture(rng: Rng, size: int) -> Image:
    """A static scene, (size, size), mostly in [0, 1]."""
    image = np.full((size, size), rng.uniform(0.25, 0.75), np.float32)
    image += smooth_noise(rng, size, rng.uniform(10, 50)) * rng.uniform(0, 0.18)
    kind = rng.random()
    if kind < 0.35:
        for _ in range(rng.integers(1, 4)):
            _add_lattice(rng, image)
    else:
        if kind < 0.6:
            _add_grains(rng, image)
        for _ in range(rng.integers(3, 40)):
            _add_particle(rng, image)
        for _ in range(rng.integers(0, 14)):
            _add_line(rng, image)
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 1.6))  # the detector's point spread
    return image + smooth_noise(rng, size, rng.uniform(0.8, 2.5)) * np.float32(rng.uniform(0, 0.04))


def movie(rng: Rng, frames: int, size: int, scenes: tuple[Image, Image] | None = None) -> Image:
    """A clean movie, (frames, size, size). `scenes`: two static ones of at least size + 2 * MARGIN pixels, or fresh ones."""
    full = size + 2 * MARGIN
    first, second = scenes or (texture(rng, full), texture(rng, full))
    speed = float(rng.choice([0.0, 0.03, 0.15, 0.6, 2.0], p=[0.15, 0.15, 0.25, 0.25, 0.2]))
    path = _path(rng, frames, speed)
    phase = (np.arange(frames) - frames / 2) / frames  # -1/2 .. 1/2
    bend = np.stack([smooth_noise(rng, size, rng.uniform(12, 40)) for _ in range(2)])
    bend *= np.float32(rng.choice([0.0, 2.0, 6.0, 14.0], p=[0.4, 0.25, 0.2, 0.15]) * (speed > 0))
    out = np.empty((frames, size, size), np.float32)
    _warp(first, path, phase, bend, out)
    if rng.random() < 0.4:
        _fade_in(rng, out, second, path[:, ::-1] * np.array([-1.0, 1.0]), phase)
    if rng.random() < 0.35:
        _add_contours(rng, out, phase * speed)
    if speed > 0:
        out += np.cumsum(rng.normal(0, rng.choice([0.0, 0.001, 0.006]), frames))[:, None, None].astype(np.float32)
    return _normalised(out, float(rng.uniform(0.5, 1)))


def smooth_noise(rng: Rng, size: int, sigma: float) -> Image:
    """Gaussian noise blurred by `sigma` pixels (at most a third of `size`), periodic, standard deviation 1: (size, size)."""
    sigma = min(sigma, size / 3)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    noise = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * sigma) ** 2 * (kx**2 + ky**2)), (size, size))
    unit: Image = (noise / noise.std()).astype(np.float32)
    return unit


def _normalised(movie: Image, contrast: float) -> Image:
    low, high = np.percentile(movie[::4, ::2, ::2], (1, 99))
    scaled = (movie - low) / max(high - low, 0.15) * (0.9 * contrast) + 0.05
    bounded: Image = np.clip(scaled, LOWEST, HIGHEST).astype(np.float32)
    return bounded


# Static scenes


def _add_lattice(rng: Rng, image: Image) -> None:
    """A round patch of atom columns, square or hexagonal, bright or dark."""
    size = image.shape[0]
    spacing, radius, angle = rng.uniform(4.5, 14), rng.uniform(15, size * 0.6), rng.uniform(0, 2 * np.pi)
    reach = int(2 * radius / spacing) + 2
    i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    hexagonal = rng.random() < 0.5
    x, y = (i + 0.5 * j) * spacing if hexagonal else i * spacing, j * spacing * (0.866 if hexagonal else 1)
    inside = x**2 + y**2 < radius**2
    x, y, centre = x[inside], y[inside], rng.uniform(0, size, 2)
    height = rng.uniform(-0.35, 0.5) * rng.uniform(0.7, 1.3, x.size)
    column, row = centre[0] + np.cos(angle) * x - np.sin(angle) * y, centre[1] + np.sin(angle) * x + np.cos(angle) * y
    _splat(image, row, column, height, spacing * rng.uniform(0.17, 0.3))


def _add_grains(rng: Rng, image: Image) -> None:
    """A polycrystal: Voronoi cells of different brightness, some with fringes."""
    size, count = image.shape[0], int(rng.integers(4, 40))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    seeds = rng.uniform(0, size, (count, 2))
    label = np.argmin((y - seeds[:, 0, None, None]) ** 2 + (x - seeds[:, 1, None, None]) ** 2, axis=0)
    image += (rng.normal(0, 0.15, count).astype(np.float32))[label]
    k = rng.uniform(0.1, 0.9, count) * np.exp(1j * rng.uniform(0, 2 * np.pi, count))
    height = np.where(rng.random(count) < 0.3, rng.uniform(0, 0.25, count), 0)
    image += (height[label] * np.sin(k.real[label] * x + k.imag[label] * y)).astype(np.float32)


def _add_particle(rng: Rng, image: Image) -> None:
    """A blob with a random outline, some with lattice fringes."""
    size = image.shape[0]
    centre, radius = rng.uniform(0, size, 2), rng.uniform(3, rng.choice([10, 30, 80]))
    reach = int(1.4 * radius) + 2
    rows = slice(max(0, int(centre[0]) - reach), min(size, int(centre[0]) + reach))
    columns = slice(max(0, int(centre[1]) - reach), min(size, int(centre[1]) + reach))
    y, x = np.ogrid[rows, columns]
    dy, dx = y - centre[0], x - centre[1]
    corners = radius * rng.uniform(0.6, 1.3, rng.integers(5, 14))
    outline = np.interp(
        np.arctan2(dy, dx) % (2 * np.pi), np.linspace(0, 2 * np.pi, corners.size + 1), np.append(corners, corners[0])
    )
    shape = np.clip(outline - np.hypot(dy, dx) + 0.5, 0, 1)
    if rng.random() < 0.3:
        direction, k = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.9)
        shape = shape * (1 + rng.uniform(0, 1) * np.sin(k * (dx * np.cos(direction) + dy * np.sin(direction))))
    image[rows, columns] += (shape * rng.uniform(-0.3, 0.3)).astype(np.float32)


def _add_line(rng: Rng, image: Image) -> None:
    """A dislocation: a curved line, mostly dark."""
    size, knots = image.shape[0], int(rng.integers(3, 8))
    corners = np.cumsum(np.vstack([rng.uniform(0, size, 2), rng.normal(0, size / 5, (knots, 2))]), axis=0)
    t = np.linspace(0, knots, 12 * size)
    row, column = (ndimage.gaussian_filter1d(np.interp(t, np.arange(knots + 1), corners[:, i]), size / 2) for i in (0, 1))
    length = np.hypot(np.gradient(row), np.gradient(column))
    sigma = rng.uniform(0.5, 1.6)
    _splat(image, row, column, rng.uniform(-0.4, 0.15) * length / (sigma * np.sqrt(2 * np.pi)), sigma)


@njit(cache=True, nogil=True)
def _splat(
    image: Image, row: npt.NDArray[np.float64], column: npt.NDArray[np.float64], height: npt.NDArray[np.float64], sigma: float
) -> None:
    """Add a Gaussian of this height at every (row, column)."""
    reach = int(np.ceil(3.2 * sigma))
    for k in range(row.size):
        middle_row, middle_column = int(np.round(row[k])), int(np.round(column[k]))
        for y in range(max(0, middle_row - reach), min(image.shape[0], middle_row + reach + 1)):
            for x in range(max(0, middle_column - reach), min(image.shape[1], middle_column + reach + 1)):
                squared = (x - column[k]) ** 2 + (y - row[k]) ** 2
                image[y, x] += np.float32(height[k] * np.exp(-squared / (2 * sigma * sigma)))


# Motion


def _path(rng: Rng, frames: int, speed: float) -> npt.NDArray[np.float64]:
    """Stage drift with acceleration and jitter, (frames, 2) pixels, 0 in the middle, within the margin."""
    drift = np.cumsum(rng.normal(0, speed * 0.5, 2) + rng.normal(0, speed * 0.05, (frames, 2)), axis=0)
    jitter = rng.normal(0, rng.choice([0.0, 0.1, 0.25]) * (speed > 0), (frames, 2))
    path: npt.NDArray[np.float64] = np.clip(drift - drift[frames // 2] + jitter, 4 - MARGIN, MARGIN - 4)
    return path


def _fade_in(rng: Rng, movie: Image, scene: Image, path: npt.NDArray[np.float64], phase: npt.NDArray[np.float64]) -> None:
    """Cross-fade to another scene that moves along `path`."""
    size = movie.shape[1]
    other = np.empty_like(movie)
    _warp(scene, path, phase, np.zeros((2, size, size), np.float32), other)
    swing = rng.uniform(-2, 2) if np.ptp(path) > 0 else 0.0
    share = np.clip(rng.uniform(0.2, 0.8) + swing * phase, 0, 1)[:, None, None].astype(np.float32)
    movie += share * (other - movie)


def _add_contours(rng: Rng, movie: Image, shift: npt.NDArray[np.float64]) -> None:
    """Dark bend contours: bands where a smooth phase passes multiples of 2 pi, sweeping as the sample bends."""
    phase = smooth_noise(rng, movie.shape[1], rng.uniform(15, 50)) * np.float32(rng.uniform(1, 6))
    sweep, width = shift * rng.uniform(-12, 12), rng.uniform(0.2, 0.8)
    _darken(movie, phase, sweep, np.float32(rng.uniform(0.1, 0.5)), np.float32(1 / width**2))


@njit(cache=True, nogil=True)
def _darken(movie: Image, phase: Image, sweep: npt.NDArray[np.float64], depth: np.float32, sharpness: np.float32) -> None:
    for t in range(movie.shape[0]):
        for y in range(movie.shape[1]):
            for x in range(movie.shape[2]):
                s = np.sin(np.float32(0.5) * (phase[y, x] + np.float32(sweep[t])))
                movie[t, y, x] *= np.float32(1) - depth * np.exp(-s * s * sharpness)


@njit(cache=True, nogil=True)
def _warp(scene: Image, path: npt.NDArray[np.float64], phase: npt.NDArray[np.float64], bend: Image, out: Image) -> None:
    """Sample the scene bilinearly at (y, x) + margin + path[t] + phase[t] * bend, clamped to its edge."""
    rows, columns = np.float32(scene.shape[0] - 1.001), np.float32(scene.shape[1] - 1.001)
    for t in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                v = np.float32(y + MARGIN + path[t, 0] + phase[t] * bend[0, y, x])
                u = np.float32(x + MARGIN + path[t, 1] + phase[t] * bend[1, y, x])
                v, u = min(max(v, np.float32(0)), rows), min(max(u, np.float32(0)), columns)
                i, j = int(v), int(u)
                fv, fu = v - np.float32(i), u - np.float32(j)
                top = scene[i, j] + fu * (scene[i, j + 1] - scene[i, j])
                bottom = scene[i + 1, j] + fu * (scene[i + 1, j + 1] - scene[i + 1, j])
                out[t, y, x] = top + fv * (bottom - top)
