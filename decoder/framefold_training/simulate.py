"""Training scenes: procedural movies that look like in-situ electron microscopy, seeded, values in [0.02, 1.1].

`movie` sets one or two `textures` in motion (drift with jitter, rotation, deformation, cross-fades) and lets `events` happen in
them. Speeds range from still to several pixels a frame, because a decoder must learn when it may average. No doses and no masks
here. The shipped virtual microscope and multislice images (`atoms`) are other sources of training movies, see `pool`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from framefold_protocol.compiled import compiled
from framefold_training import events
from framefold_training.textures import Floats, Image, Rng, smooth_noise, texture

LOWEST, HIGHEST = 0.02, 1.1
"""Bounds of a movie's values."""

MARGIN = 32
"""A movie of N pixels moves over a scene of N + 2 * MARGIN."""

SPEEDS = (0.0, 0.03, 0.15, 0.6, 2.0)
"""Pixels per frame, r.m.s."""


def movie(rng: Rng, frames: int, size: int, speed: float | None = None) -> Image:
    """A clean movie, (frames, size, size). `speed` in pixels per frame; None: one of `SPEEDS`, 0 still but for its events."""
    if speed is None:
        speed = float(rng.choice(SPEEDS, p=[0.15, 0.15, 0.25, 0.25, 0.2]))
    path = _path(rng, frames, speed)
    out = _moving(rng, texture(rng, size + 2 * MARGIN), path, size, speed)
    if rng.random() < 0.3:
        other = _moving(rng, texture(rng, size + 2 * MARGIN), path[:, ::-1] * np.array([-1.0, 1.0]), size, speed)
        if speed > 0 and rng.random() < 0.4:
            events.replace_suddenly(rng, out, other)
        else:
            _cross_fade(rng, out, other, speed)
    if rng.random() < 0.35:
        events.add_contours(rng, out, speed)
    if rng.random() < 0.15:
        events.add_swimmers(rng, out, speed)
    if speed > 0 and rng.random() < 0.2:
        events.add_hopping(rng, out, path)
    if speed > 0 and rng.random() < 0.2:
        events.change_contrast(rng, out)
    _blur(out, float(rng.choice([0.0, rng.uniform(0.4, 1.0)])))
    return _normalised(out, float(rng.uniform(0.5, 1)))


def _moving(rng: Rng, scene: Image, path: Floats, size: int, speed: float) -> Image:
    """A scene that follows the path, turns and deforms: (frames, size, size)."""
    frames = len(path)
    phase = np.arange(frames) / frames - 0.5
    reach = speed * frames / 60  # of what deforms or turns, relative to what a minute of training movies once was
    bend = np.stack([smooth_noise(rng, size, rng.uniform(12, 40)) for _ in range(2)])
    bend *= np.float32(rng.choice([0.0, 1.0, 3.0, 7.0], p=[0.4, 0.25, 0.2, 0.15]) * min(1.0, 2 * reach))
    turn = phase * rng.choice([0.0, rng.normal(0, 0.15)], p=[0.6, 0.4]) * min(1.0, reach)
    out = np.empty((frames, size, size), np.float32)
    _warp(scene, path, turn, 2 * phase, bend, out)
    return out


def _path(rng: Rng, frames: int, speed: float) -> Floats:
    """Stage drift with acceleration, jitter and the odd jump, (frames, 2) pixels, 0 in the middle, within the margin."""
    drift = np.cumsum(rng.normal(0, speed * 0.5, 2) + rng.normal(0, speed * 0.05, (frames, 2)), axis=0)
    jitter = rng.normal(0, rng.choice([0.0, 0.1, 0.25]) * (speed > 0), (frames, 2))
    jumps = np.cumsum((rng.random((frames, 1)) < 0.01) * rng.normal(0, 3, (frames, 2)), axis=0) * (speed > 0.1)
    path: Floats = np.clip(drift - drift[frames // 2] + jitter + jumps - jumps[frames // 2], 4 - MARGIN, MARGIN - 4)
    return path


def _cross_fade(rng: Rng, out: Image, other: Image, speed: float) -> None:
    """A share of another movie, growing or fading unless the scene is still."""
    swing = rng.uniform(-2, 2) if speed > 0 else 0.0
    share = np.clip(rng.uniform(0.2, 0.8) + swing * np.linspace(-0.5, 0.5, len(out)), 0, 1)[:, None, None].astype(np.float32)
    out += share * (other - out)


def _blur(out: Image, sigma: float) -> None:
    """The detector's point spread, a Gaussian of `sigma` pixels."""
    if sigma:
        for axis in (1, 2):
            ndimage.gaussian_filter1d(out, sigma, axis, output=out, truncate=3)


def _normalised(out: Image, contrast: float) -> Image:
    low, high = np.percentile(out[::4, ::2, ::2], (1, 99))
    out -= np.float32(low)
    out *= np.float32(0.9 * contrast / max(high - low, 0.15))
    out += np.float32(0.05)
    return np.clip(out, np.float32(LOWEST), np.float32(HIGHEST), out=out)


@compiled(fastmath=True)
def _warp(scene: Image, path: Floats, turn: Floats, phase: Floats, bend: Image, out: Image) -> None:
    """Sample the scene bilinearly at margin + rotated (y, x) + path[t] + phase[t] * bend, clamped to its edge."""
    rows, columns = np.float32(scene.shape[0] - 1.001), np.float32(scene.shape[1] - 1.001)
    middle = np.float32(out.shape[1] / 2)
    for t in range(out.shape[0]):
        c, s, p = np.float32(np.cos(turn[t])), np.float32(np.sin(turn[t])), np.float32(phase[t])
        down, across = middle + np.float32(MARGIN + path[t, 0]), middle + np.float32(MARGIN + path[t, 1])
        for y in range(out.shape[1]):
            dy = np.float32(y) - middle
            for x in range(out.shape[2]):
                dx = np.float32(x) - middle
                v = c * dy - s * dx + down + p * bend[0, y, x]
                u = s * dy + c * dx + across + p * bend[1, y, x]
                v, u = min(max(v, np.float32(0)), rows), min(max(u, np.float32(0)), columns)
                i, j = int(v), int(u)
                fv, fu = v - np.float32(i), u - np.float32(j)
                top = scene[i, j] + fu * (scene[i, j + 1] - scene[i, j])
                bottom = scene[i + 1, j] + fu * (scene[i + 1, j + 1] - scene[i + 1, j])
                out[t, y, x] = top + fv * (bottom - top)
