"""A deeper net that begins where a smaller one ended: same answers at first, more to learn with.

Notable: residual blocks begin as the identity, so added ones change nothing; an added stage is the last one again, without its
tail and with hardly a step towards the snapshot. After "Net2Net" (Chen et al., ICLR 2016), which grows a net by layers that
keep its function.
"""

from __future__ import annotations

import re

import torch

from framefold_training.checkpoint import Tensors
from framefold_training.model import Net, NetSpec

NO_STEP = -6.0
"""Offset of an added stage's step: its logistic is 1/400, and grows with training where it helps."""


def fits(small: NetSpec, large: NetSpec) -> bool:
    """Whether a net of the size `small` can become one of `large`: as wide, at least as deep."""
    deeper = all(mine >= its for mine, its in zip(large.blocks, small.blocks, strict=True))
    return (large.modes, large.widths) == (small.modes, small.widths) and large.stages >= small.stages and deeper


def grown(weights: Tensors, small: NetSpec, large: NetSpec) -> Tensors:
    """The weights of a net of the size `large` that answers as that of `small` with `weights` does."""
    result = Net(large).state_dict()
    for name in result:
        source = _in_last_stage(name, small)
        if source in weights:
            result[name] = weights[source].clone()
        if source != name and ".tail." in name:
            result[name] = torch.zeros_like(result[name])
        if source != name and name.endswith("step_offset"):
            result[name] = torch.full_like(result[name], NO_STEP)
    return result


def _in_last_stage(name: str, small: NetSpec) -> str:
    """The name in the small net of what a weight of the large one is taken from: an added stage's from the last."""
    return re.sub(r"^stages\.(\d+)\.", lambda found: f"stages.{min(int(found[1]), small.stages - 1)}.", name)
