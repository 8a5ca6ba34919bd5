"""What lies under the beam: a seeded layout of crystalline particles, and where every atomic column is at a given frame.

Lengths are pixels, angles radians, contrasts fractions of the background. The field is a torus: what leaves on one side enters
on the other. How things move is `motion`'s, drawing them is `render`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_simulator.motion import SMOOTH, Array, Clock, Swing

AREA_PER_PARTICLE = 512 * 512 / 14
"""Square pixels of field per particle."""

ZONES = (70.53, 90.0, 60.0)
"""Rhombic, square and hexagonal: degrees between the rows of columns of an fcc crystal seen along [110], [100] and [111]."""


BODY_WIDTH = 0.6
"""Width of a column's share in its particle's body, in spacings: wide enough that neighbours merge to within 1 %."""


@dataclass(frozen=True)
class Columns:
    """Atomic columns as the renderer draws them; every field (N,)."""

    x: Array
    y: Array
    """Place in the field, or within the particle before it is turned."""
    width: Array
    """Standard deviation of the column's image."""
    peak: Array
    """Contrast at the column's centre."""
    body_width: Array
    """Standard deviation of the column's share in the particle's mass-thickness contrast."""
    body_peak: Array


@dataclass(frozen=True)
class Particles:
    """The particles' places, motions and tilts; every field (P, ...)."""

    centre: Array  # (P, 2) x, y
    drift: Swing  # (P, 2, 2): x and y, a slow and a fast part
    orientation: Array  # (P,)
    rotation: Swing  # (P,)
    band_direction: Array  # (P, 2) unit vectors
    band_place: Swing  # (P,) where the bend contour lies along its direction
    band_width: Array  # (P,)
    band_depth: Array  # (P,) 0: this particle does not bend


@dataclass(frozen=True)
class Scene:
    """A field of particles on a support, at any frame of its loop."""

    shape: tuple[int, int]  # (H, W)
    loop: int
    particles: Particles
    owner: npt.NDArray[np.intp]  # (N,) particle of each column
    crystal: Columns  # (N,) each within its particle, fully occupied
    occupancy: Swing  # (N,) amplitude 0: always there
    stage: Swing  # (2,) x, y
    beam: Swing  # (2,) summed

    def stage_shift(self, frame: int) -> Array:
        """(x, y) of everything, support included, at `frame`."""
        return self.stage.at(frame / self.loop)

    def beam_current(self, frame: int) -> float:
        """Relative beam current at `frame`; it fluctuates by 1 % r.m.s."""
        return 1.0 + float(self.beam.at(frame / self.loop).sum())

    def columns(self, frame: int) -> Columns:
        """Every column's place and contrast at `frame`."""
        turn, owner, particles, crystal = frame / self.loop, self.owner, self.particles, self.crystal
        angle = (particles.orientation + particles.rotation.at(turn))[owner]
        centre = (particles.centre + particles.drift.at(turn).sum(axis=2) + self.stage_shift(frame))[owner]
        bend = self._bend(turn)
        present = np.where(self.occupancy.amplitude > 0.0, 0.5 + self.occupancy.at(turn), 1.0)
        return Columns(
            x=centre[:, 0] + np.cos(angle) * crystal.x - np.sin(angle) * crystal.y,
            y=centre[:, 1] + np.sin(angle) * crystal.x + np.cos(angle) * crystal.y,
            width=crystal.width,
            peak=crystal.peak * present * (1.0 - 0.8 * bend),
            body_width=crystal.body_width,
            body_peak=crystal.body_peak * present * (1.0 + bend),
        )

    def _bend(self, turn: float) -> Array:
        """How far each column (N,) is tilted out of its zone, 0 to 1: the lattice fades there and the particle darkens."""
        owner, particles = self.owner, self.particles
        along = self.crystal.x * particles.band_direction[owner, 0] + self.crystal.y * particles.band_direction[owner, 1]
        distance = (along - particles.band_place.at(turn)[owner]) / particles.band_width[owner]
        bend: Array = particles.band_depth[owner] * np.exp(-0.5 * distance**2)
        return bend


def make_scene(shape: tuple[int, int], loop: int, speed: float, seed: int) -> Scene:
    """Lay out a periodic field of `shape` (H, W) pixels; the same arguments give the same scene."""
    rng = np.random.default_rng(seed)
    clock = Clock(loop, speed)
    centre, radius = _place(rng, shape)
    spacing = rng.uniform(7.5, 10.5) * rng.uniform(0.85, 1.1, len(radius))
    site, depth = zip(*(_crystal_sites(rng, r, a) for r, a in zip(radius, spacing, strict=True)), strict=True)
    owner = np.repeat(np.arange(len(radius)), [len(d) for d in depth])
    return Scene(
        shape=shape,
        loop=loop,
        particles=_particles(rng, clock, centre, radius),
        owner=owner,
        crystal=_crystal(rng, np.concatenate(site), np.concatenate(depth), owner, spacing, radius),
        occupancy=_occupancy(rng, clock, np.concatenate(depth) / spacing[owner]),
        stage=clock.wander(rng, np.full(2, 0.008), (150.0, 400.0)),
        beam=clock.cycle(rng, np.full(2, 0.01), (30.0, 240.0), np.array([SMOOTH, 1.5])),
    )


def _place(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Centres (P, 2) and radii (P,) of particles that hardly touch, on a torus of `shape`; at least one."""
    height, width = shape
    largest = min(120.0, 0.75 * min(shape))
    wanted = max(1, round(height * width / AREA_PER_PARTICLE))
    radii = np.sort(rng.uniform(min(30.0, largest), largest, wanted))[::-1] / 2.0
    size = np.array([width, height], dtype=float)
    centres: list[Array] = []
    kept: list[float] = []
    for radius in radii:
        for _ in range(100):
            centre = rng.uniform(0.0, size)
            apart = [np.linalg.norm((centre - other + size / 2) % size - size / 2) for other in centres]
            if all(d > 0.95 * (radius + r) for d, r in zip(apart, kept, strict=True)):
                centres.append(centre)
                kept.append(radius)
                break
    return np.array(centres), np.array(kept)


def _crystal_sites(rng: np.random.Generator, radius: float, spacing: float) -> tuple[Array, Array]:
    """Column sites (N, 2) about the centre, twinned in some particles, and their depth inside the outline (N,) in pixels."""
    reach = int(3.0 * radius / spacing) + 2
    row, column = (index.ravel() for index in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    twin = rng.integers(-2, 3)
    lean = np.abs(row - twin) + twin if rng.random() < 0.4 else row  # beyond a twin boundary rows lean the other way
    angle = np.radians(ZONES[rng.integers(len(ZONES))])
    site = spacing * np.stack([column + lean * np.cos(angle), row * np.sin(angle)], axis=1)
    site += rng.uniform(-0.5, 0.5, 2) * spacing
    depth = _outline_depth(rng, site, radius)
    kept = (depth > 0.0) | ((depth > -0.7 * spacing) & (rng.random(depth.shape) < 0.4))  # the latter are adatoms
    strained = site + rng.normal(0.0, 0.02 * spacing, site.shape)
    return strained[kept], depth[kept]


def _outline_depth(rng: np.random.Generator, site: Array, radius: float) -> Array:
    """Depth of each site (N,) inside a faceted outline: six to eight facets about `radius` from the centre."""
    facets = rng.integers(6, 9)
    angle = 2.0 * np.pi * (np.arange(facets) + rng.uniform(-0.15, 0.15, facets)) / facets + rng.uniform(0.0, np.pi)
    normal = np.stack([np.cos(angle), np.sin(angle)])  # (2, facets)
    depth: Array = (radius * rng.uniform(0.86, 1.04, facets) - site @ normal).min(axis=1)
    return depth


def _particles(rng: np.random.Generator, clock: Clock, centre: Array, radius: Array) -> Particles:
    """Motions: about a third of the particles nearly still, the others 2-6 px in 20 frames, some of these in bursts."""
    count = len(radius)
    moving = rng.random(count) < 0.65
    velocity = np.where(moving, np.exp(rng.uniform(np.log(0.1), np.log(0.32), count)), 0.004) / np.sqrt(2.0)
    sticking = rng.random(count) < 0.25
    velocity[sticking] *= 0.6  # a burst is faster than the mean
    sharpness = np.where(sticking, 3.0, SMOOTH)[:, None, None]
    direction = rng.uniform(0.0, 2.0 * np.pi, count)
    return Particles(
        centre=centre,
        drift=clock.wander(rng, velocity[:, None, None] * np.array([[0.9, 0.45]] * 2), (60.0, 240.0), sharpness),
        orientation=rng.uniform(0.0, 2.0 * np.pi, count),
        rotation=clock.wander(rng, np.where(moving, rng.uniform(0.0, 0.12, count), 0.002) / radius, (80.0, 240.0)),
        band_direction=np.stack([np.cos(direction), np.sin(direction)], axis=1),
        band_place=clock.wander(rng, rng.uniform(0.006, 0.02, count) * radius, (120.0, 240.0)),
        band_width=rng.uniform(0.2, 0.5, count) * radius,
        band_depth=np.where(rng.random(count) < 0.5, rng.uniform(0.5, 1.0, count), 0.0),
    )


def _occupancy(rng: np.random.Generator, clock: Clock, depth: Array) -> Swing:
    """Hopping columns: some of the outermost ones, and all adatoms (`depth`, in spacings, < 0)."""
    hopping = (depth < 0.0) | ((depth < 1.2) & (rng.random(depth.shape) < 0.3))
    sharpness = np.exp(rng.uniform(0.5, 4.5, depth.shape))  # from fading over tens of frames to a jump in one
    return clock.cycle(rng, np.where(hopping, 0.5, 0.0), (30.0, 200.0), sharpness)


def _crystal(
    rng: np.random.Generator,
    site: Array,
    depth: Array,
    owner: npt.NDArray[np.intp],
    spacing: Array,
    radius: Array,
) -> Columns:
    """Columns at `site` (N, 2): thickness, and contrast with it, grows inwards from the outline; dark or bright by particle."""
    count = len(radius)
    bright = rng.random(count) < 0.4
    contrast = rng.uniform(0.3, 0.6, count) * np.where(bright, 1.0, -1.0)
    body = rng.uniform(0.7, 1.2, count) * np.where(bright, -0.3, -0.12)
    thickness = np.clip(0.35 + 0.65 * (depth + 0.5 * spacing[owner]) / (0.6 * radius[owner]), 0.25, 1.0)
    return Columns(
        x=site[:, 0],
        y=site[:, 1],
        width=0.21 * spacing[owner],
        peak=contrast[owner] * np.sqrt(thickness) * (1.0 + rng.normal(0.0, 0.06, owner.shape)),
        body_width=BODY_WIDTH * spacing[owner],
        body_peak=body[owner] * thickness / (2.0 * np.pi * BODY_WIDTH**2),
    )
