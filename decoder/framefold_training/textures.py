"""Static scenes: what an electron microscope sees when nothing moves. Seeded; (size, size) float32, mostly in [0, 1].

`texture` paints one scene of a random kind on an uneven background. Nothing moves here and nothing is noisy: see `simulate`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from framefold_protocol.compiled import compiled

Image = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator


def texture(rng: Rng, size: int) -> Image:
    """A static scene, (size, size), mostly in [0, 1]."""
    if rng.random() < 0.12:
        return _stem(rng, size)
    image = np.full((size, size), rng.uniform(0.25, 0.75), np.float32)
    image += smooth_noise(rng, size, rng.uniform(10, 50)) * rng.uniform(0, 0.18)
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 4)):
            add_lattice(rng, image)
    else:
        for add, share, most in _OBJECTS:
            if rng.random() < share:
                for _ in range(rng.integers(1, most + 1)):
                    add(rng, image)
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 1.6))
    return image + _support(rng, size)


def smooth_noise(rng: Rng, size: int, sigma: float) -> Image:
    """Gaussian noise blurred by `sigma` pixels (at most a third of `size`), periodic, standard deviation 1: (size, size)."""
    sigma = min(sigma, size / 3)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    noise = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * sigma) ** 2 * (kx**2 + ky**2)), (size, size))
    unit: Image = (noise / noise.std()).astype(np.float32)
    return unit


def add_lattice(rng: Rng, image: Image, height: float | None = None) -> None:
    """A round patch of atom columns, square to hexagonal, bright or dark, some with vacancies."""
    size = image.shape[0]
    spacing, radius, angle = rng.uniform(4.5, 14), rng.uniform(15, max(16, size * 0.6)), rng.uniform(0, 2 * np.pi)
    reach = int(2 * radius / spacing) + 2
    i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    lean = rng.choice([0.0, 0.5, rng.uniform(0, 0.5)])
    x, y = (i + lean * j) * spacing, j * spacing * np.sqrt(1 - lean**2) * rng.uniform(0.9, 1.1)
    inside = (x**2 + y**2 < radius**2) & (rng.random(x.shape) > rng.choice([0.0, 0.03]))
    x, y, centre = x[inside], y[inside], rng.uniform(0, size, 2)
    heights = (rng.uniform(-0.35, 0.5) if height is None else height) * rng.uniform(0.7, 1.3, x.size)
    column, row = centre[0] + np.cos(angle) * x - np.sin(angle) * y, centre[1] + np.sin(angle) * x + np.cos(angle) * y
    splat(image, row, column, heights, spacing * rng.uniform(0.17, 0.3))


def _stem(rng: Rng, size: int) -> Image:
    """Annular dark field: bright columns and particles on a dark ground."""
    image = np.full((size, size), rng.uniform(0.02, 0.15), np.float32)
    image += np.abs(smooth_noise(rng, size, rng.uniform(15, 50))) * rng.uniform(0, 0.06)
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 4)):
            add_lattice(rng, image, rng.uniform(0.3, 0.9))
    else:
        for _ in range(rng.integers(3, 25)):
            _add_particle(rng, image, rng.uniform(0.1, 0.7))
    blurred: Image = ndimage.gaussian_filter(image, rng.uniform(0.5, 1.2))
    return blurred


def _support(rng: Rng, size: int) -> Image:
    """Amorphous grain, weak."""
    return smooth_noise(rng, size, rng.uniform(0.8, 2.5)) * np.float32(rng.uniform(0, 0.04))


def _add_grains(rng: Rng, image: Image) -> None:
    """A polycrystal: Voronoi cells of different brightness, some with fringes, some boundaries dark."""
    size, count = image.shape[0], int(rng.integers(4, 40))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    seeds = rng.uniform(0, size, (count, 2))
    distance = np.sqrt((y - seeds[:, 0, None, None]) ** 2 + (x - seeds[:, 1, None, None]) ** 2)
    label = np.argmin(distance, axis=0)
    image += (rng.normal(0, 0.15, count).astype(np.float32))[label]
    k = rng.uniform(0.1, 0.9, count) * np.exp(1j * rng.uniform(0, 2 * np.pi, count))
    height = np.where(rng.random(count) < 0.3, rng.uniform(0, 0.25, count), 0)
    image += (height[label] * np.sin(k.real[label] * x + k.imag[label] * y)).astype(np.float32)
    nearest = np.partition(distance, 1, axis=0)[:2]
    image -= rng.choice([0.0, rng.uniform(0, 0.3)]) * np.exp(-((nearest[1] - nearest[0]) ** 2) / 4).astype(np.float32)


def _add_particle(rng: Rng, image: Image, height: float | None = None) -> None:
    """A blob with a random outline, some with lattice fringes."""
    size = image.shape[0]
    centre, radius = rng.uniform(0, size, 2), rng.uniform(3, rng.choice([10, 30, 80]))
    reach = int(1.4 * radius) + 2
    rows = slice(max(0, int(centre[0]) - reach), min(size, int(centre[0]) + reach))
    columns = slice(max(0, int(centre[1]) - reach), min(size, int(centre[1]) + reach))
    y, x = np.ogrid[rows, columns]
    dy, dx = y - centre[0], x - centre[1]
    corners = radius * rng.uniform(0.6, 1.3, rng.integers(5, 14))
    places = np.linspace(0, 2 * np.pi, corners.size + 1)
    outline = np.interp(np.arctan2(dy, dx) % (2 * np.pi), places, np.append(corners, corners[0]))
    shape = np.clip(outline - np.hypot(dy, dx) + 0.5, 0, 1)
    if rng.random() < 0.3:
        direction, k = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.9)
        shape = shape * (1 + rng.uniform(0, 1) * np.sin(k * (dx * np.cos(direction) + dy * np.sin(direction))))
    image[rows, columns] += (shape * (rng.uniform(-0.3, 0.3) if height is None else height)).astype(np.float32)


def _add_precipitates(rng: Rng, image: Image) -> None:
    """Needles or plates along two crystal directions, as in aged alloys."""
    size, base = image.shape[0], rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for _ in range(rng.integers(4, 25)):
        angle = base + rng.integers(2) * rng.choice([np.pi / 2, np.pi / 3])
        dy, dx = y - rng.uniform(0, size), x - rng.uniform(0, size)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        shape = np.exp(-((along / rng.uniform(3, 25)) ** 4) - (across / rng.uniform(0.8, 4)) ** 2)
        image += np.float32(rng.uniform(-0.35, 0.2)) * shape


def _add_fringes(rng: Rng, image: Image) -> None:
    """Thickness fringes: bands along a wedge's edge, fading inwards."""
    size = image.shape[0]
    thickness = (
        smooth_noise(rng, size, rng.uniform(20, 60)) + np.linspace(0, rng.uniform(0, 3), size, dtype=np.float32)[:, None]
    )
    thickness -= thickness.min()
    decay = np.exp(-thickness * np.float32(rng.uniform(0.1, 0.6)))
    image += np.float32(rng.uniform(0.05, 0.3)) * decay * np.cos(np.float32(rng.uniform(3, 15)) * thickness)


def _add_line(rng: Rng, image: Image) -> None:
    """A dislocation: a curved line, mostly dark, some dotted where it oscillates through the foil."""
    size, knots = image.shape[0], int(rng.integers(3, 8))
    corners = np.cumsum(np.vstack([rng.uniform(0, size, 2), rng.normal(0, size / 5, (knots, 2))]), axis=0)
    t = np.linspace(0, knots, 12 * size)
    row, column = (ndimage.gaussian_filter1d(np.interp(t, np.arange(knots + 1), corners[:, i]), size / 2) for i in (0, 1))
    length = np.hypot(np.gradient(row), np.gradient(column))
    sigma = rng.uniform(0.5, 1.6)
    dots = 1 + rng.choice([0.0, 0.8]) * np.sin(np.cumsum(length) * rng.uniform(0.3, 1.0))
    splat(image, row, column, rng.uniform(-0.4, 0.15) * dots * length / (sigma * np.sqrt(2 * np.pi)), sigma)


_OBJECTS: tuple[tuple[Callable[[Rng, Image], None], float, int], ...] = (
    (_add_grains, 0.35, 1),
    (_add_fringes, 0.2, 2),
    (_add_particle, 0.75, 40),
    (_add_precipitates, 0.2, 1),
    (_add_line, 0.6, 14),
)
"""What is added, in which share of the scenes, and how many at most."""


@compiled()
def splat(image: Image, row: Floats, column: Floats, height: Floats, sigma: float) -> None:
    """Add a Gaussian of this height at every (row, column)."""
    reach = int(np.ceil(3.2 * sigma))
    for k in range(row.size):
        middle_row, middle_column = int(np.round(row[k])), int(np.round(column[k]))
        for y in range(max(0, middle_row - reach), min(image.shape[0], middle_row + reach + 1)):
            for x in range(max(0, middle_column - reach), min(image.shape[1], middle_column + reach + 1)):
                squared = (x - column[k]) ** 2 + (y - row[k]) ** 2
                image[y, x] += np.float32(height[k] * np.exp(-squared / (2 * sigma * sigma)))
