"""How bright each frame is as a whole: nets look at a pixel's surroundings, where noise hides it; all of a snapshot shows it.

Frames X_t that should be brighter by shares d_t leave Y - sum_t C_t X_t = sum_t d_t C_t X_t on average: weighted least squares
over the pixels tell d, and how far it can be trusted. Beams flicker, and crystals that bend brighten and darken as a whole;
nets follow that too little. Where d is no larger than chance makes it, or only a part of the frame says so, nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import ROUNDING_VARIANCE
from framefold_decoder.reconstruct.base import FoldedGroup, Frames
from framefold_protocol.coding import BLOCK, Coding
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
Part = tuple[slice, slice]
"""Rows and columns of a block."""


def correct(group: FoldedGroup, frames: Frames, noise: NoiseModel) -> None:
    """Scale each of the frames (B, H, W), in detector counts, by its own factor, in place; leave them where none is called for.

    The factors' mean is 1, but for those at the bound: the mean brightness of a group is what nets know best. Blocks that are
    exposed in all frames, as still ones of a block map, are left alone: they do not tell how bright each was.
    """
    blocks = list(_blocks(group.coding))
    missing = np.clip(_missing(group, frames, noise, blocks), -LARGEST, LARGEST) if blocks else np.zeros(len(frames))
    if not missing.any():
        return
    offset, factors = np.float32(noise.offset_counts), (1 + missing).astype(np.float32)[:, None, None]
    for block in blocks:
        part = frames[:, *block]
        part *= factors
        if offset:
            part += offset * (1 - factors)
            np.maximum(part, 0, out=part)


def _blocks(coding: Coding) -> Iterator[Part]:
    """Those whose masks hide some frames and not others, in most pixels; at the right and lower edge they are smaller."""
    corner = slice(0, BLOCK), slice(0, BLOCK)
    exposures = [masks.exposure(*corner) for masks in coding.families]
    telling = [((exposure > 0) & (exposure < coding.ratio)).mean() > 0.5 for exposure in exposures]
    height, width = coding.shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            family = 0 if coding.block_map is None else coding.block_map[top // BLOCK, left // BLOCK]
            if telling[family]:
                yield slice(top, min(top + BLOCK, height)), slice(left, min(left + BLOCK, width))


def _missing(group: FoldedGroup, frames: Frames, noise: NoiseModel, blocks: list[Part]) -> Floats:
    """d (B,), shrunk by what chance makes of it (W. James & C. Stein, Proc. 4th Berkeley Symp. 1, 361, 1961), and to what half
    of the blocks say at least; else zeros."""
    nothing, period = np.zeros(len(frames)), _period(group)
    if len(frames) < FEWEST or period**2 < 4 * len(frames):
        return nothing
    seen = sorted({int(len(blocks) * (k * _GOLDEN % 1)) for k in range(BLOCKS)}) if len(blocks) > BLOCKS else range(len(blocks))
    normals, scores, sides = [], np.zeros((len(frames), BLOCK, BLOCK)), []
    for k in seen:
        normal, part = _sums(group, frames, noise, blocks[k])
        normals.append(normal)
        sides.append(part.sum((1, 2)))
        scores[:, : part.shape[1], : part.shape[2]] += part
    cells = BLOCK // period
    samples = scores.reshape(len(frames), cells, period, cells, period).sum((1, 3))
    centred = np.eye(len(frames)) - 1 / len(frames)
    solve = centred @ np.linalg.pinv(sum(normals), rcond=1e-6, hermitian=True)
    found = solve @ samples.sum((1, 2))
    scatter = solve @ _products(samples, samples) @ solve.T
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


def _sums(group: FoldedGroup, frames: Frames, noise: NoiseModel, block: Part) -> tuple[Floats, Floats]:
    """A block's share of the normal equations' matrix (B, B), and of their right-hand side each pixel's (B, rows, columns)."""
    bits, seen = group.coding.window(*block), noise.in_bins(group.step_sigma)
    normal, scores = np.zeros((len(bits), len(bits))), np.zeros(bits.shape)
    numbers = float(noise.offset_counts), float(seen.counts_per_electron), float(seen.read_noise_counts) ** 2
    _gather(np.ascontiguousarray(frames[:, *block]), bits, group.snapshot[block].astype(np.float64), numbers, normal, scores)
    return normal + np.tril(normal, -1).T, scores


@compiled()
def _gather(
    frames: Frames, bits: Bits, snapshot: Floats, numbers: tuple[float, float, float], normal: Floats, scores: Floats
) -> None:
    """Add a block's share to the lower half of the matrix (B, B), and write the right-hand sides, which are 0 before.

    Frames, bits and scores are (B, rows, columns), the snapshot (rows, columns). `numbers`: offset, gain and variance without
    electrons, in counts. Pixels that are exposed always or never tell nothing. Compiled: in most few frames are exposed.
    """
    offset, gain, dark = numbers
    count, height, width = bits.shape
    which, signal = np.empty(count, np.intp), np.empty(count)
    for y in range(height):
        for x in range(width):
            exposed, expected = 0, 0.0
            for t in range(count):
                which[exposed], signal[exposed] = t, frames[t, y, x] - offset
                expected += bits[t, y, x] * signal[exposed]
                exposed += bits[t, y, x]  # what is not exposed is written over: chance is no branch to predict
            if 0 < exposed < count:
                weight = 1 / max(gain * max(expected, 0.0) + dark * exposed, ROUNDING_VARIANCE)
                left = snapshot[y, x] - offset * exposed - expected
                for i in range(exposed):
                    weighted = weight * signal[i]
                    scores[which[i], y, x] = weighted * left
                    for j in range(i + 1):
                        normal[which[i], which[j]] += weighted * signal[j]


def _products(one: Floats, other: Floats) -> Floats:
    """Of images (B, rows, columns) with others, summed over the pixels: (B, B).

    Row by row: products of that size BLAS makes by itself, without threads of its own that get into the way of ONNX Runtime's.
    """
    left, right = (np.ascontiguousarray(images.transpose(1, 0, 2)) for images in (one, other))
    products: Floats = np.matmul(left, right.transpose(0, 2, 1)).sum(0, dtype=np.float64)
    return products
