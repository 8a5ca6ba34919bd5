"""A run's checkpoint: `checkpoint.json` and the parts it names, each below 15 MB, so that they travel anywhere.

The averaged weights have parts of their own: they and the JSON are all that scoring and exporting need, and training goes on
from them too, with the optimizer's memory lost. The JSON is replaced last: a checkpoint is the new one or the one before, never
a mixture. No training here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framefold_protocol.errors import ModelError
from framefold_training.tiers import AnyNet, build, recall

CHECKPOINT = "checkpoint.json"
PART_BYTES = 14 << 20

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """What a checkpoint holds."""

    progress: dict[str, Any]
    """Plain values: `step`, `minutes`, `spec` (the run's settings)."""
    weights: Tensors
    """The averaged net."""
    training: Tensors = field(default_factory=dict)
    """The net in training and the optimizer's moments; empty: left behind."""


def write_checkpoint(run: Path, state: State) -> None:
    """Write into the folder `run`, replacing the one before."""
    old, parts = set(run.glob("checkpoint-*.pt")), dict[str, list[str]]()
    for kind in ("weights", "training"):
        parts[kind] = []
        for number, part in enumerate(_parts(getattr(state, kind))):
            parts[kind].append(f"checkpoint-{state.progress['step']:07d}-{kind}-{number}.pt")
            torch.save(part, run / parts[kind][-1])
    partial = run / (CHECKPOINT + ".partial")
    partial.write_text(json.dumps({**state.progress, "parts": parts}, indent=1) + "\n")
    partial.replace(run / CHECKPOINT)
    for path in old - {run / part for kind in parts.values() for part in kind}:
        path.unlink()


def read_checkpoint(run: Path) -> State:
    """The checkpoint in the folder `run`, on the CPU. Raises `ModelError` when there is none or it cannot be read."""
    path = run / CHECKPOINT
    try:
        progress = json.loads(path.read_text())
        parts = progress.pop("parts")
        there = all((run / part).exists() for part in parts["training"])
        return State(progress, _joined(run, parts["weights"]), _joined(run, parts["training"] if there else []))
    except Exception as error:  # torch.load raises whatever a damaged file makes of it
        hint = "Train again, or name the folder of a run"
        raise ModelError(f"checkpoint {path} cannot be read: {error!r}", hint=hint) from error


def load_net(run: Path) -> AnyNet:
    """The averaged net of the checkpoint in the folder `run`, ready to use. Raises `ModelError` as `read_checkpoint`."""
    return built(read_checkpoint(run), run).eval()


def built(state: State, where: Path) -> AnyNet:
    """The averaged net. Raises `ModelError` when its weights are not those of such a net, as of another version's."""
    net = build(recall(state.progress["spec"]["net"]))
    try:
        net.load_state_dict(state.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        message = f"the weights in {where} are not those of a net of this version: {reason}"
        raise ModelError(message, hint="Train again, or use the framefold that made it") from error
    return net


def _joined(run: Path, parts: list[str]) -> Tensors:
    return {name: one for part in parts for name, one in torch.load(run / part, map_location="cpu", weights_only=True).items()}


def _parts(tensors: Tensors) -> list[Tensors]:
    """In order, filled up to `PART_BYTES`; each on the CPU."""
    parts: list[Tensors] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if used + tensor.nbytes > PART_BYTES and parts[-1]:
            parts.append({})
            used = 0
        parts[-1][name] = tensor.detach().cpu().clone()
        used += tensor.nbytes
    return parts
