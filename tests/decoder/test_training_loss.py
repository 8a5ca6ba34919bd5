"""The loss: nothing is unexplained by the truth, errors count for what chi2 would tell of them, hidden ones for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_examples import some_batch

from framefold_training.loss import unexplained


def test_nothing_is_unexplained_by_the_truth():
    batch = some_batch()
    assert torch.equal(unexplained(batch.frames, batch), torch.zeros(len(batch)))


def test_an_error_of_one_standard_deviation_of_the_snapshot_counts_as_one():
    batch = some_batch()
    exposed = batch.masks.sum(1, keepdim=True)
    deviation = (batch.noise[:, None, None, None] * (batch.masks * batch.frames).sum(1, keepdim=True)).sqrt()
    wrong = batch.frames + torch.where(exposed > 0, deviation / exposed.clamp(min=1), 0)
    share = (exposed > 0).float().mean((1, 2, 3))
    assert torch.allclose(unexplained(wrong, batch), share, rtol=1e-3)


def test_the_same_error_counts_for_more_in_the_dark():
    batch = some_batch()
    dark = replace(batch, frames=batch.frames / 4)
    light, found = (unexplained(one.frames + 0.1, one) for one in (batch, dark))
    assert float((found / light).mean()) == pytest.approx(4, rel=1e-3)


def test_an_error_where_the_masks_hide_a_frame_is_not_seen():
    batch = some_batch()
    wrong = torch.where(batch.masks == 0, batch.frames + 1, batch.frames)
    assert torch.equal(unexplained(wrong, batch), torch.zeros(len(batch)))
