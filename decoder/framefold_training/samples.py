"""A contact sheet of random training movies, to be looked at: three moments of each, a noisy frame, and its snapshot.

python -m framefold_training.samples benchmarks/results/training-samples.png [--atoms training-runs/atoms.npz]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Picture

from framefold_protocol.errors import FramefoldError
from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_training.data import DataSpec, make_batch
from framefold_training.pool import PoolSpec, render

RATIO = 20
GAP = 4
"""Pixels between tiles."""

Image = npt.NDArray[np.float32]


def sheet(spec: PoolSpec, rows: int, columns: int) -> Image:
    """`rows` x `columns` movies (numbers from 0), each as a strip of five tiles, values in [0, 1]."""
    strips = [_strip(spec, number) for number in range(rows * columns)]
    lines = [np.concatenate(strips[row * columns : (row + 1) * columns], 1) for row in range(rows)]
    return np.concatenate(lines)


def _strip(spec: PoolSpec, number: int) -> Image:
    """First, middle and last frame of a movie's middle group, one noisy frame, the snapshot as a mean per exposure."""
    movie = torch.from_numpy(render(spec, number))[None]
    batch = make_batch(DataSpec(ratios=(RATIO,), size=128, batch=1, seed=number), movie, 0)
    frames = batch.frames[0]
    electrons = 1 / float(batch.noise)
    noisy = torch.poisson(frames[RATIO // 2] * electrons, generator=torch.Generator().manual_seed(number)) / electrons
    mean = batch.snapshots[0, REACH] / batch.exposures[0, REACH].clamp(min=1)
    scale = float(frames.quantile(0.998) if frames.numel() < 2**24 else frames.max())
    tiles = [frames[0], frames[RATIO // 2], frames[-1], noisy, mean]
    return np.concatenate([np.pad((tile / scale).clamp(0, 1).numpy(), GAP // 2, constant_values=1) for tile in tiles], 1)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.samples", description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--columns", type=int, default=2, help="movies side by side")
    parser.add_argument("--atoms", default="", help="file of multislice movies, made by framefold_training.atoms")
    given = parser.parse_args(arguments)
    spec = PoolSpec(frames=SNAPSHOTS * RATIO, atoms=given.atoms, atoms_share=0.15 if given.atoms else 0.0)
    Picture.fromarray((255 * sheet(spec, given.rows, given.columns)).astype(np.uint8)).save(given.out, optimize=True)


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
