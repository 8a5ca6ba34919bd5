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
from framefold_training.tiers import AnySpec

NO_STEP = -6.0
"""Offset of an added stage's step: its logistic is 1/400, and grows with training where it helps."""


def fitted(weights: Tensors, found: AnySpec, wanted: AnySpec) -> Tensors | None:
    """The weights of a net of the size `found` for one of `wanted`, which is that, or as wide and deeper; else None."""
    if found == wanted:
        return weights
    if not isinstance(found, NetSpec) or not isinstance(wanted, NetSpec):
        return None
    wide = (found.modes, found.widths) == (wanted.modes, wanted.widths)
    deep = all(mine <= its for mine, its in zip((found.stages, *found.blocks), (wanted.stages, *wanted.blocks), strict=True))
    return grown(weights, found, wanted) if wide and deep else None


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
        if source != name and name.endswith("step_slope"):
            result[name] = torch.zeros_like(result[name])  # at no dose
    return result


def _in_last_stage(name: str, small: NetSpec) -> str:
    """The name in the small net of what a weight of the large one is taken from: an added stage's from the last."""
    return re.sub(r"^stages\.(\d+)\.", lambda found: f"stages.{min(int(found[1]), small.stages - 1)}.", name)
