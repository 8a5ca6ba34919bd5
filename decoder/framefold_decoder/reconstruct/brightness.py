"""How bright each frame is as a whole: nets look at a pixel's surroundings, where noise hides it; all of a snapshot shows it.

Frames X_t that should be brighter by shares d_t leave Y - sum_t C_t X_t = sum_t d_t C_t X_t on average: weighted least squares
over the pixels tell d, and how far it can be trusted. Beams flicker, and crystals that bend brighten and darken as a whole;
nets follow that too little. Where d is no larger than chance makes it, or only a part of the frame says so, nothing is changed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import ROUNDING_VARIANCE
from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_protocol.coding import BLOCK, Coding, block_map_shape
from framefold_protocol.compiled import compiled
from framefold_protocol.masks import Bits
from framefold_protocol.noise import NoiseModel

BLOCKS = 32
"""That are looked at, of 64x64 pixels and evenly spread: enough to tell 1 % in the usual doses."""
FEWEST = 3
"""Frames: of two the one is as much too bright as the other is too dark, which chance does often."""
LARGEST = 0.5
"""Of a frame's brightness that is added or taken away."""
_GOLDEN = 0.6180339887498949

Floats = npt.NDArray[np.float64]


def correct(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> None:
    """Scale each of the frames (B, H, W), in detector counts, by its own factor, in place; leave them where none is called for.

    The factors' mean is 1, but for those at the bound: the mean brightness of a group is what nets know best. Blocks that are
    exposed in all frames, as still ones of a block map, are left alone: they do not tell how bright each was.
    """
    telling = _telling(group.coding)
    missing = np.clip(_missing(group, frames, noise, telling), -LARGEST, LARGEST).astype(np.float32)
    if not missing.any():
        return
    height, width = group.coding.shape
    told = telling.astype(np.float32).repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
    offset = np.float32(noise.offset_counts)
    for frame, share in zip(frames, missing, strict=True):
        factor = 1 + share * told
        frame *= factor
        if offset:
            frame += offset * (1 - factor)
            np.maximum(frame, 0, out=frame)


def _telling(coding: Coding) -> npt.NDArray[np.bool_]:
    """Of each block whether its masks hide some frames and not others, in most pixels: (ceil(H / 64), ceil(W / 64))."""
    corner = slice(0, BLOCK), slice(0, BLOCK)
    exposures = [masks.exposure(*corner) for masks in coding.families]
    telling = np.array([((exposure > 0) & (exposure < coding.ratio)).mean() > 0.5 for exposure in exposures])
    blocks = np.zeros(block_map_shape(coding.shape), np.uint8) if coding.block_map is None else coding.block_map
    return telling[blocks]


def _missing(group: FoldedGroup, frames: Frames, noise: NoiseModel, telling: npt.NDArray[np.bool_]) -> Floats:
    """d (B,), shrunk by what chance makes of it (W. James & C. Stein, Proc. 4th Berkeley Symp. 1, 361, 1961), and to what half
    of the blocks say at least; else zeros."""
    nothing, period = np.zeros(len(frames)), _period(group)
    corners = BLOCK * np.argwhere(telling)
    if not len(corners) or len(frames) < FEWEST or period**2 < 4 * len(frames):
        return nothing
    if len(corners) > BLOCKS:
        corners = corners[sorted({int(len(corners) * (k * _GOLDEN % 1)) for k in range(BLOCKS)})]
    normals, sides, scores = [], [], np.zeros((len(frames), BLOCK, BLOCK))
    for top, left in corners:
        normal, part = _sums(group, frames, noise, slice(top, top + BLOCK), slice(left, left + BLOCK))
        normals.append(normal)
        sides.append(part.sum((1, 2), dtype=np.float64))
        scores[:, : part.shape[1], : part.shape[2]] += part
    cells = BLOCK // period
    samples = scores.reshape(len(frames), cells, period, cells, period).sum((1, 3))
    centred = np.eye(len(frames)) - 1 / len(frames)
    solve = centred @ np.linalg.pinv(sum(normals), rcond=1e-6, hermitian=True)
    found = solve @ samples.sum((1, 2))
    scatter = solve @ _products(samples) @ solve.T
    freedom = len(frames) - 1
    size = float(found @ np.linalg.pinv(scatter, rcond=1e-4, hermitian=True) @ found) / freedom
    by_chance = 1 + 1.645 * math.sqrt(2 / freedom)  # more in about one of twenty cases
    if not size > by_chance:
        return nothing
    told = [found @ side / max(found @ normal @ found, 1e-300) for side, normal in zip(sides, normals, strict=True)]
    shrunk: Floats = found * (1 - by_chance / size) * min(max(float(np.median(told)), 0.0), 1.0)
    return shrunk


def _period(group: FoldedGroup) -> int:
    """Of the masks within a block: pixels so far apart have equal ones.

    What frames miss of a lattice or texture of that period has the same sign there, so such pixels are one sample of the
    scatter and not many (a sandwich estimator: K.-Y. Liang & S. Zeger, Biometrika 73, 13, 1986).
    """
    return math.gcd(BLOCK, *(masks.spec.period for masks in group.coding.families))


def _sums(group: FoldedGroup, frames: Frames, noise: NoiseModel, rows: slice, columns: slice) -> tuple[Floats, Frames]:
    """A block's share of the normal equations' matrix (B, B), and of their right-hand side each pixel's (B, rows, columns)."""
    bits, seen = group.coding.window(rows, columns), noise.in_bins(group.step_sigma)
    numbers = np.array([noise.offset_counts, seen.counts_per_electron, seen.read_noise_counts**2], np.float32)
    normal, scores = np.zeros((len(bits), len(bits))), np.empty(bits.shape, np.float32)
    snapshot = group.snapshot[rows, columns].astype(np.float32)
    _gather(frames, (rows.start, columns.start), bits, snapshot, numbers, normal, scores)
    return normal + np.tril(normal, -1).T, scores


@compiled(fastmath={"reassoc", "contract"})
def _gather(
    frames: Frames, corner: tuple[int, int], bits: Bits, snapshot: Frames, numbers: Frames, normal: Floats, scores: Frames
) -> None:
    """Fill the lower half of a block's share of the matrix (B, B), and the right-hand sides.

    Frames are (B, H, W), bits and scores (B, rows, columns), the snapshot (rows, columns) is the block's. `numbers`: offset,
    gain and variance without electrons, in counts. Pixels that are exposed always or never tell nothing. What each frame gave
    to a pixel is taken in standard deviations of its sum; rows of a block are contiguous, so that all is done in vectors.
    """
    offset, gain, dark = numbers
    count, height, width = bits.shape
    signals = np.empty((count, height, width), np.float32)
    exposed, expected = np.empty(width, np.float32), np.empty(width, np.float32)
    root, left = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        exposed[:], expected[:] = 0, 0
        for t in range(count):
            bit, signal = bits[t, y], signals[t, y]
            frame = frames[t, corner[0] + y, corner[1] : corner[1] + width]
            for x in range(width):
                seen = np.float32(bit[x])
                signal[x] = seen * (frame[x] - offset)
                expected[x] += signal[x]
                exposed[x] += seen
        sums = snapshot[y]
        for x in range(width):
            variance = max(gain * max(expected[x], np.float32(0)) + dark * exposed[x], np.float32(ROUNDING_VARIANCE))
            root[x] = 1 / np.sqrt(variance) if 0 < exposed[x] < count else np.float32(0)
            left[x] = root[x] * (sums[x] - offset * exposed[x] - expected[x])
        for t in range(count):
            signal, score = signals[t, y], scores[t, y]
            for x in range(width):
                signal[x] *= root[x]
                score[x] = signal[x] * left[x]
    flat = signals.reshape(count, -1)
    for i in range(count):
        for j in range(i + 1):
            one_by_other = np.float32(0)
            one, other = flat[i], flat[j]
            for k in range(one.size):
                one_by_other += one[k] * other[k]
            normal[i, j] = one_by_other


def _products(images: Floats) -> Floats:
    """Of images (B, rows, columns) with each other, summed over the pixels: (B, B).

    Row by row: products of that size BLAS makes by itself, without threads of its own that get into the way of ONNX Runtime's.
    """
    rows = np.ascontiguousarray(images.transpose(1, 0, 2))
    products: Floats = np.matmul(rows, rows.transpose(0, 2, 1)).sum(0, dtype=np.float64)
    return products
