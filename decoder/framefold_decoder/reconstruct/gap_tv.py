"""GAP-TV: the classic solver. Any masks, no training, one snapshot at a time; the fallback, and the baseline a net must beat.

Among all movies that explain a snapshot, the one of least total variation in space and time (X. Yuan, "Generalized alternating
projection based total variation minimization for compressive sensing", ICIP 2016), found by the primal-dual iteration of
A. Chambolle & T. Pock, J. Math. Imaging Vis. 40, 120 (2011), which is GAP's projection with a total variation step that needs
no inner loop. Noise relaxes the projection. A movie is the sum of a still and a moving component, each with a total variation
of its own (M. Holler & K. Kunisch, SIAM J. Imaging Sci. 7, 2258 (2014)): averages where nothing moves, follows where it does.
Works in units of the snapshot's level, so that one set of constants fits all.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from framefold_decoder.reconstruct.averaging import local_mean, plain_mean
from framefold_decoder.reconstruct.base import Beside, FoldedGroup, Frames
from framefold_decoder.reconstruct.tiling import Tile, tiles
from framefold_protocol.compiled import compiled
from framefold_protocol.masks import Bits
from framefold_protocol.noise import NoiseModel


class Component(NamedTuple):
    """Part of a movie, and what its variation costs."""

    strength: float
    """Cost of its total variation, relative to the other component's."""
    temporal: float
    """Weight of change from frame to frame against change from pixel to pixel."""


# Found on the public video clips without noise, and on microscope movies (recorded and simulated) at 5 to 100 e-/px.
STILL = Component(1.0, 6.0)
MOVING = Component(1.2, 0.3)
STRENGTH = 0.25
"""Weight of total variation against the data, in units of the noise of one frame's pixel. B 8 to 40 and all densities agree."""
NOISELESS = 0.01
"""Noise of one frame's pixel, relative to the level, below which the moving component does best alone: 10,000 e-/px."""
SMOOTH_GRADIENT = 0.02
"""Gradients below this part of the level are smoothed rather than flattened to steps."""
STEP = 0.1
"""Primal step: how far a pixel may move in one iteration, in units of the level."""
ITERATIONS = 80
"""Still scenes want fewer, fast ones more; both within half a dB."""
TILE_SIDE = 256
TILE_HALO = 24
"""Pixels. Frames differ from those of one large tile by less than a hundredth of the level at 5 e-/px, where noise is half."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GapTv:
    """GAP-TV on the CPU, one thread per tile."""

    threads: int = 0
    """0: one per core. The result does not depend on it."""
    name: str = field(default="gap-tv", init=False)
    provider: str = field(default="numba", init=False)

    def reconstruct(self, group: FoldedGroup, before: Beside, after: Beside, noise: NoiseModel) -> Frames:
        """The frames (B, H, W) in detector counts, finite, 0 or more. The neighbours are not used."""
        exposure = group.exposure()
        signal = group.snapshot - np.float64(noise.offset_counts) * exposure
        counts = group.level(noise)
        noise = noise.in_bins(group.step_sigma)
        relative = NoiseModel(noise.counts_per_electron / counts, 0.0, noise.read_noise_counts / counts)
        deviation = float(np.sqrt(relative.variance(np.ones(()))))
        components = np.array([MOVING] if deviation < NOISELESS else [STILL, MOVING], np.float32)
        start = plain_mean(signal, exposure) / counts
        expected = np.maximum(local_mean(signal, exposure) / counts, 0.1)  # a dark pixel's noise is not known to be zero
        # The data weigh 1 / variance, total variation STRENGTH / deviation.
        relaxation = relative.variance(expected) * (STRENGTH / (STEP * max(deviation, 1e-6)))
        images = (signal / counts).astype(np.float32), start, relaxation

        def solve(tile: Tile) -> None:
            masks = group.coding.window(tile.rows, tile.columns)
            snapshot, first, relaxed = (np.ascontiguousarray(image[tile.rows, tile.columns]) for image in images)
            solution = _solve(masks, snapshot, first, relaxed, components, ITERATIONS)[:, *tile.inner]
            frames[:, *tile.core] = np.maximum(solution * np.float32(counts) + np.float32(noise.offset_counts), 0)

        frames = np.empty((group.coding.ratio, *group.coding.shape), np.float32)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            list(pool.map(solve, tiles(group.coding.shape, TILE_SIDE, TILE_HALO)))
        return frames


@compiled(fastmath=True)
def _solve(masks: Bits, snapshot: Floats, start: Floats, relaxation: Floats, components: Floats, iterations: int) -> Floats:
    """Frames (B, H, W) from masks (B, H, W) and snapshot, start and relaxation (H, W), in units of the level.

    `components` are (K, 2): strength and temporal weight of each.
    """
    count = len(components)
    parts = np.zeros((count, *masks.shape), np.float32)
    parts[0] = start
    ahead = parts.copy()
    dual = np.zeros((count, 3, *masks.shape), np.float32)
    gain = (1.0 / (np.maximum(masks.sum(axis=0), 1) * (count + relaxation))).astype(np.float32)
    for _ in range(iterations):
        for k in range(count):
            _variation_step(dual[k], ahead[k], components[k, 0], components[k, 1])
        _projection_step(parts, ahead, dual, masks, snapshot, gain, components)
    frames: Floats = parts.sum(axis=0)
    return frames


@compiled(fastmath=True)
def _variation_step(dual: Floats, ahead: Floats, strength: np.float32, temporal: np.float32) -> None:
    """Move `dual` (3: x, y, t; B, H, W) along the gradient of `ahead` (B, H, W), back into each voxel's unit ball."""
    ratio, height, width = ahead.shape
    step = np.float32(1.0 / (STEP * strength * (8.0 + 4.0 * temporal * temporal)))  # the largest that converges
    shrink = np.float32(1.0 / (1.0 + step * SMOOTH_GRADIENT))
    one = np.float32(1)
    row = np.empty(width + 1, np.float32)  # with its last pixel twice: no gradient across the edge
    for t in range(ratio):
        later = ahead[min(t + 1, ratio - 1)]
        for y in range(height):
            below, after = ahead[t, min(y + 1, height - 1)], later[y]
            row[:width], row[width] = ahead[t, y], ahead[t, y, width - 1]
            dx, dy, dt = dual[0, t, y], dual[1, t, y], dual[2, t, y]
            for x in range(width):
                px = shrink * (dx[x] + step * (row[x + 1] - row[x]))
                py = shrink * (dy[x] + step * (below[x] - row[x]))
                pt = shrink * (dt[x] + step * temporal * (after[x] - row[x]))
                norm = one / max(np.float32(math.sqrt(px * px + py * py + pt * pt)), one)
                dx[x], dy[x], dt[x] = px * norm, py * norm, pt * norm


@compiled(fastmath=True)
def _projection_step(
    parts: Floats, ahead: Floats, dual: Floats, masks: Bits, snapshot: Floats, gain: Floats, components: Floats
) -> None:
    """Move `parts` (K, B, H, W) along the divergence of `dual`, their sum towards the snapshot; `ahead` becomes 2 new - old."""
    count, ratio, height, width = parts.shape
    moved = np.empty((count, ratio, width), np.float32)
    nothing = np.zeros(width, np.float32)
    for y in range(height):
        missing = snapshot[y].copy()
        for k in range(count):
            step, temporal = np.float32(STEP) * components[k, 0], components[k, 1]
            for t in range(ratio):
                dx, dy, dt, old, new = dual[k, 0, t, y], dual[k, 1, t, y], dual[k, 2, t, y], parts[k, t, y], moved[k, t]
                above = dual[k, 1, t, y - 1] if y > 0 else nothing
                before = dual[k, 2, t - 1, y] if t > 0 else nothing
                new[0] = old[0] + step * (dx[0] + dy[0] - above[0] + temporal * (dt[0] - before[0]))
                for x in range(1, width):
                    new[x] = old[x] + step * (dx[x] - dx[x - 1] + dy[x] - above[x] + temporal * (dt[x] - before[x]))
                mask = masks[t, y]
                for x in range(width):
                    missing[x] -= np.float32(mask[x]) * new[x]
        missing *= gain[y]
        for k in range(count):
            for t in range(ratio):
                old, new, following, mask = parts[k, t, y], moved[k, t], ahead[k, t, y], masks[t, y]
                for x in range(width):
                    value = new[x] + np.float32(mask[x]) * missing[x]
                    following[x] = value + value - old[x]
                    old[x] = value
