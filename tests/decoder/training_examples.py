"""Small runs, movies and nets for the tests of training, a second each."""

from __future__ import annotations

import numpy as np
import torch

from framefold_protocol.model import SNAPSHOTS
from framefold_training.birnat import BirnatSpec
from framefold_training.data import Batch, DataSpec, make_batch
from framefold_training.model import NetSpec
from framefold_training.pool import PoolSpec, open_pool
from framefold_training.run import TrainSpec

RATIO = 4
POOL = PoolSpec(frames=30, side=40, slots=3, life=2)
DATA = DataSpec(ratios=(RATIO, 2, 6), size=32, batch=2, pool=POOL)
NET = NetSpec(modes=4, stages=2, widths=(8, 8, 8), blocks=(1, 1, 1))
BIRNAT = BirnatSpec(width=4, blocks=1, ratio=RATIO)
SPEC = TrainSpec(steps=4, workers=0, scored=False, net=NET, data=DATA)
CPU = torch.device("cpu")


def some_movies(spec: PoolSpec = POOL) -> torch.Tensor:
    """The first movies of a seed, (slots, frames, side, side)."""
    with open_pool(spec, 0, 0, CPU) as pool:
        return pool.at(0).clone()


def some_batch(ratio: int = RATIO, count: int = 2, step: int = 0) -> Batch:
    """Samples of one B."""
    movies = torch.from_numpy(np.random.default_rng(5).uniform(0.3, 1, (3, SNAPSHOTS * ratio, 40, 40)).astype(np.float16))
    return make_batch(DataSpec(ratios=(ratio,), size=32, batch=count), movies, step)


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    return all(torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))
