"""The nets that ship, on a movie that training never draws: above averaging, below their cost, and without seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_examples import CPU

from framefold_decoder.reconstruct.registry import PACKAGED
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import SNAPSHOTS, ModelCard
from framefold_simulator import Movie, MovieSpec
from framefold_training.data import Batch, fold
from framefold_training.dice import Dice
from framefold_training.evaluate import of_file, score

RATIO = 20


@pytest.fixture(scope="module", params=sorted(PACKAGED.glob("*.onnx")), ids=lambda path: path.stem)
def shipped(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def clip():
    """Mean about 1, (100, 96, 192)."""
    count = SNAPSHOTS * RATIO
    return Movie(MovieSpec(shape=(192, 192), dose=1.0, seed=0, loop=count)).clean(0, count)[:, :96]


def test_a_shipped_net_beats_averaging(shipped, clip):
    rows = score(of_file(shipped), "simulator", clip, MaskSpec(ratio=RATIO), doses=(5.0, 20.0))
    gains = [net.psnr_db - mean.psnr_db for net, mean in zip(rows[::2], rows[1::2], strict=True)]
    assert min(gains) > 2


def test_a_shipped_halo_hides_seams(shipped, clip):
    card = ModelCard.read(shipped.with_suffix(".json"))
    masks = torch.from_numpy(derive_masks(MaskSpec(ratio=RATIO), (96, 192)).window().astype(np.float32))[None]
    exposures = masks.sum(1, keepdim=True).expand(-1, SNAPSHOTS, -1, -1).contiguous()
    whole = fold(torch.from_numpy(20 * clip)[None], masks, exposures, Dice(CPU, 0), torch.zeros(1), torch.ones(1))
    tile = Batch(*(one[..., 48:] if one.ndim == 4 else one for one in whole.tensors))
    runtime = of_file(shipped)
    frames = runtime(whole)[..., 48:]
    seam = ((runtime(tile) - frames)[..., card.halo :] ** 2).mean().sqrt()
    assert seam < 0.02 * ((frames - tile.frames) ** 2).mean().sqrt()
