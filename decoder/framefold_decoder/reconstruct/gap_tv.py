"""GAP-TV: the classic solver. Any masks, no training, one snapshot at a time; the fallback, and the baseline a net must beat.

Among all movies that explain a snapshot, the one of least total variation in space and time (X. Yuan, "Generalized alternating
projection based total variation minimization for compressive sensing", ICIP 2016), found by the primal-dual iteration of
A. Chambolle & T. Pock, J. Math. Imaging Vis. 40, 120 (2011), which is GAP's projection with a total variation step that needs
no inner loop. Noise relaxes the projection. Works in units of the snapshot's level, so that one set of constants fits all.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numba import njit

from framefold_decoder.reconstruct.averaging import local_mean, plain_mean
from framefold_decoder.reconstruct.base import FoldedGroup, Frames, NoiseModel
from framefold_decoder.reconstruct.tiling import Tile, tiles
from framefold_protocol.masks import Bits
from framefold_protocol.model import level

# Found on the public video clips without noise, and on microscope movies (recorded and simulated) at 5 to 100 e-/px.
STRENGTH = 0.25
"""Weight of total variation against the data, in units of the noise of one frame's pixel. B 8 to 40 and all densities agree."""
MOTION_WEIGHT = 0.4
"""Weight of change in time against change in space without noise: tuned for motion."""
WEIGHT_PER_NOISE = 36.0
"""What relative noise adds to it: the noisier, the more frames must agree."""
STILL_WEIGHT = 4.0
"""And where it stops; reached at 100 e-/px."""
SMOOTH_GRADIENT = 0.05
"""Gradients below this part of the level are smoothed rather than flattened to steps."""
STEP = 0.1
"""Primal step: how far a pixel may move in one iteration, in units of the level."""
ITERATIONS = 60
"""More change the PSNR by less than 0.2 dB."""
TILE_SIDE = 128
TILE_HALO = 16
"""Pixels; a tile's edges differ from the whole frame's solution by less than its noise."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GapTv:
    """GAP-TV on the CPU, one thread per tile."""

    temporal_weight: float | None = None
    """Weight of change in time against change in space; None: from the noise. About 0.5 suits fast video, 4 slow samples."""
    iterations: int = ITERATIONS
    threads: int = 0
    """0: one per core. The result does not depend on it."""
    name: str = field(default="gap-tv", init=False)
    provider: str = field(default="numba", init=False)

    def reconstruct(
        self, group: FoldedGroup, previous: FoldedGroup | None, following: FoldedGroup | None, noise: NoiseModel
    ) -> Frames:
        """The frames (B, H, W) in detector counts, finite, 0 or more. The neighbours are not used."""
        exposure = group.exposure()
        signal = group.snapshot - np.float64(noise.offset_counts) * exposure
        counts = level(signal, exposure)
        relative = NoiseModel(noise.counts_per_electron / counts, 0.0, noise.read_noise_counts / counts)
        deviation = float(np.sqrt(relative.variance(np.ones(()))))
        weight = default_temporal_weight(deviation) if self.temporal_weight is None else self.temporal_weight
        start = plain_mean(signal, exposure) / counts
        expected = np.maximum(local_mean(signal, exposure) / counts, 0.1)  # a dark pixel's noise is not known to be zero
        # The data weigh 1 / variance, total variation STRENGTH / deviation.
        relaxation = relative.variance(expected) * (STRENGTH / (STEP * max(deviation, 1e-6)))
        images = (signal / counts).astype(np.float32), start, relaxation

        def solve(tile: Tile) -> None:
            masks = group.coding.window(tile.rows, tile.columns)
            snapshot, first, relaxed = (np.ascontiguousarray(image[tile.rows, tile.columns]) for image in images)
            solution = _solve(masks, snapshot, first, relaxed, np.float32(weight), self.iterations)[:, *tile.inner]
            frames[:, *tile.core] = np.maximum(solution * np.float32(counts) + np.float32(noise.offset_counts), 0)

        frames = np.empty((group.coding.ratio, *group.coding.shape), np.float32)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            list(pool.map(solve, tiles(group.coding.shape, TILE_SIDE, TILE_HALO)))
        return frames


def default_temporal_weight(relative_deviation: float) -> float:
    """Weight of change in time against change in space, from the noise of one frame's pixel in units of the level."""
    return min(STILL_WEIGHT, MOTION_WEIGHT + WEIGHT_PER_NOISE * relative_deviation)


@njit(nogil=True, fastmath=True, cache=True)
def _solve(masks: Bits, snapshot: Floats, start: Floats, relaxation: Floats, weight: np.float32, iterations: int) -> Floats:
    """Frames (B, H, W) from masks (B, H, W) and snapshot, start and relaxation (H, W), in units of the level."""
    frames = np.empty(masks.shape, np.float32)
    frames[:] = start
    ahead = frames.copy()
    dual = np.zeros((3, *masks.shape), np.float32)
    gain = (1.0 / (np.maximum(masks.sum(axis=0), 1) * (1.0 + relaxation))).astype(np.float32)
    step = np.float32(1.0 / (STEP * (8.0 + 4.0 * weight * weight)))  # the largest with which the iteration converges
    shrink = np.float32(1.0 / (1.0 + step * SMOOTH_GRADIENT))
    for _ in range(iterations):
        _variation_step(dual, ahead, weight, step, shrink)
        _projection_step(frames, ahead, dual, masks, snapshot, gain, weight)
    return frames


@njit(nogil=True, fastmath=True, cache=True)
def _variation_step(dual: Floats, ahead: Floats, weight: np.float32, step: np.float32, shrink: np.float32) -> None:
    """Move `dual` (3: x, y, t; B, H, W) along the gradient of `ahead` (B, H, W), back into each voxel's unit ball."""
    ratio, height, width = ahead.shape
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
                pt = shrink * (dt[x] + step * weight * (after[x] - row[x]))
                norm = one / max(np.float32(math.sqrt(px * px + py * py + pt * pt)), one)
                dx[x], dy[x], dt[x] = px * norm, py * norm, pt * norm


@njit(nogil=True, fastmath=True, cache=True)
def _projection_step(
    frames: Floats, ahead: Floats, dual: Floats, masks: Bits, snapshot: Floats, gain: Floats, weight: np.float32
) -> None:
    """Move `frames` (B, H, W) along the divergence of `dual`, then towards the snapshot; `ahead` becomes 2 new - old."""
    ratio, height, width = frames.shape
    step = np.float32(STEP)
    moved = np.empty((ratio, width), np.float32)
    nothing = np.zeros(width, np.float32)
    for y in range(height):
        missing = snapshot[y].copy()
        for t in range(ratio):
            dx, dy, dt, old, new, mask = dual[0, t, y], dual[1, t, y], dual[2, t, y], frames[t, y], moved[t], masks[t, y]
            above = dual[1, t, y - 1] if y > 0 else nothing
            before = dual[2, t - 1, y] if t > 0 else nothing
            new[0] = old[0] + step * (dx[0] + dy[0] - above[0] + weight * (dt[0] - before[0]))
            for x in range(1, width):
                new[x] = old[x] + step * (dx[x] - dx[x - 1] + dy[x] - above[x] + weight * (dt[x] - before[x]))
            for x in range(width):
                missing[x] -= np.float32(mask[x]) * new[x]
        missing *= gain[y]
        for t in range(ratio):
            old, new, mask = frames[t, y], moved[t], masks[t, y]
            for x in range(width):
                value = new[x] + np.float32(mask[x]) * missing[x]
                ahead[t, y, x] = value + value - old[x]
                old[x] = value
