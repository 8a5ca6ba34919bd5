"""A learned tile is one a mask file may hold, is no longer the one it began as, and lowers the loss it is learned on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from training_examples import DATA, RATIO, SPEC, some_movies

from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_training import learned_tile
from framefold_training.checkpoint import load_net
from framefold_training.data import make_batch
from framefold_training.learned_tile import chosen, train_with_tile


def test_a_tile_is_learned_with_its_net_and_kept_as_a_mask_file(tmp_path):
    ones, period = 1, 8
    spec = replace(SPEC, steps=4, data=replace(DATA, ratios=(RATIO,)))
    tile = train_with_tile(spec, tmp_path / "tile.npy", ones, period)
    masks = derive_masks(MaskSpec("file", RATIO, file="tile.npy"), (20, 24), tmp_path)
    assert np.array_equal(masks.cell, tile)
    assert tile.shape == (RATIO, period, period)
    assert (tile.sum(0) == ones).all()
    assert load_net(tmp_path).spec == spec.net


def test_scores_learn_which_frame_is_bright():
    """A pixel of the tile whose sums ought to be large comes to be exposed in the brightest frame."""
    movies = torch.full_like(some_movies(), 0.1)
    movies[:, ::RATIO] = 1.0
    scores = torch.zeros(RATIO, 4, 4).requires_grad_()
    batch = make_batch(replace(DATA, ratios=(RATIO,), batch=1), movies, 0, chosen(scores, 1))
    (gradient,) = torch.autograd.grad(batch.snapshots[0, 1, ::4, ::4].sum(), [scores])
    assert gradient[:, 0, 0].argmax() == batch.frames.mean((0, 2, 3)).argmax()


def test_masks_that_are_learned_fold_what_masks_fold():
    bits = torch.zeros(RATIO, 4, 4).scatter_(0, torch.randint(0, RATIO, (1, 4, 4)), 1.0)
    movies, spec = some_movies(), replace(DATA, ratios=(RATIO,))
    plain = make_batch(spec, movies, 3, bits)
    learned = make_batch(spec, movies, 3, chosen((10 * bits).requires_grad_(), 1))
    assert learned.snapshots.requires_grad
    for mine, theirs in zip(learned.tensors, plain.tensors, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5)


def test_the_choice_is_of_zeros_and_ones():
    tile = chosen(torch.randn(7, 5, 5).requires_grad_(), 3)
    assert set(tile.unique().tolist()) == {0.0, 1.0}
    assert (tile.sum(0) == 3).all()
    assert learned_tile.LEARNED_SHARE < 1
