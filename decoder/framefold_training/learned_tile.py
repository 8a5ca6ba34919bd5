"""Masks that training chooses itself: a tile of bits, learned together with the net that decodes it, for the mask study.

Notable: a pixel is exposed in the k frames with the largest scores. Backwards that choice counts as a soft one (a straight-
through estimator: Bengio, Léonard & Courville, arXiv 1308.3432, 2013), and the snapshot's noise as if it did not depend on the
masks. The scores are learned in the first two thirds of the steps; the net then has the rest to get used to the tile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framefold_protocol.masks import Bits
from framefold_training.checkpoint import write_checkpoint
from framefold_training.data import Batch, make_batch
from framefold_training.loss import relative_loss
from framefold_training.pool import open_pool
from framefold_training.run import Run, TrainSpec

EVERY = 3
"""Steps of the net to one of the scores."""
LEARNED_SHARE = 2 / 3
RATE = 0.03
"""Of Adam, for scores that begin with a standard deviation of 1."""


def train_with_tile(spec: TrainSpec, tile_file: Path, ones: int, period: int, *, learned: bool = True) -> Bits:
    """Train `spec.net` for its steps with a tile (B, period, period), `ones` ones a pixel, that is learned meanwhile or stays.

    Writes the tile as a mask file, the net's checkpoint beside it, and returns the tile. `spec` has one B.
    """
    out = tile_file.parent
    assert spec.steps, "equal terms are steps"
    run, (ratio,) = Run(spec), spec.data.ratios
    scores = torch.randn(ratio, period, period, generator=torch.Generator().manual_seed(spec.data.seed)).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=RATE)
    with open_pool(spec.data.pool, 0, spec.workers, torch.device(spec.device)) as pool:
        while run.step < spec.steps:
            batch = make_batch(spec.data, pool.at(run.step), run.step, chosen(scores, ones).to(spec.device))
            if learned and run.step % EVERY == 0 and run.step < LEARNED_SHARE * spec.steps:
                (scores.grad,) = torch.autograd.grad(relative_loss(run.net, batch), [scores])
                optimizer.step()
            run.learn(Batch(*(one.detach() for one in batch.tensors)))
    tile: Bits = chosen(scores, ones).detach().numpy().astype(np.uint8)
    out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(out, run.state())
    np.save(tile_file, tile)
    return tile


def chosen(scores: Tensor, ones: int) -> Tensor:
    """One in the `ones` frames of largest score of each pixel, (B, h, w); its gradient is that of `ones` times the softmax."""
    soft = ones * torch.softmax(scores, 0)
    hard = torch.zeros_like(scores).scatter_(0, scores.detach().topk(ones, 0).indices, 1.0)
    return hard + (soft - soft.detach())  # exactly 0 or 1
