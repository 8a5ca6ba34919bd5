"""A run's checkpoint: one file, written whole or not at all, of net, optimizer, progress and settings. No training here."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from framefold_protocol.errors import ModelError
from framefold_training.model import Net, NetSpec

CHECKPOINT = "checkpoint.pt"
"""The file's name in the folder of a run."""

State = dict[str, Any]
"""`net` and `optimizer`: torch state dicts; `step`; `minutes`; `spec`: the run's settings as nested dicts."""


def write_checkpoint(run: Path, state: State) -> None:
    """Write into the folder `run`, replacing the one before."""
    partial = run / (CHECKPOINT + ".partial")
    torch.save(state, partial)
    partial.replace(run / CHECKPOINT)


def read_checkpoint(run: Path) -> State:
    """The checkpoint in the folder `run`, on the CPU. Raises `ModelError` when there is none or it cannot be read."""
    path = run / CHECKPOINT
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"checkpoint {path} cannot be read: {error}", hint="Train again, or name the folder of a run"
        ) from error
    return state


def load_net(run: Path) -> Net:
    """The net of the checkpoint in the folder `run`, ready to use. Raises `ModelError` as `read_checkpoint`."""
    state = read_checkpoint(run)
    net = Net(NetSpec(**state["spec"]["net"]))
    net.load_state_dict(state["net"])
    return net.eval()
