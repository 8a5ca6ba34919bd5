"""What training can go on from: a run's folder, or a model that was exported, such as the one that ships.

An exported file holds every weight under its name in the net, its card how they were made; what an optimizer remembers is not
there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from framefold_protocol.errors import ModelError
from framefold_training.checkpoint import State, built, read_checkpoint
from framefold_training.tiers import build, recall

SUFFIX = ".onnx"
LEARNED = ("rate", "snapshot_weight")
"""What cards tell of how a net learned; means, and nets from before it was a setting, tell no `snapshot_weight`."""
ANCESTRY = ("start", "finetuned", "averaged")
"""What cards and checkpoints tell of where a net comes from besides its own training."""


def read_start(path: Path) -> State:
    """The weights in the folder of a run, or in NAME.onnx beside its card. Raises `ModelError` when they cannot be read, or are
    not those of a net of this version."""
    state = _read_model(path) if path.suffix == SUFFIX else read_checkpoint(path)
    built(state, path)
    return state


def told(path: Path, state: State) -> dict[str, Any]:
    """What a card says of the net that training went on from."""
    progress = state.progress
    made = {"name": path.stem, "minutes": round(progress["minutes"], 1), "steps": progress["step"]}
    learned = {key: progress["spec"][key] for key in LEARNED if key in progress["spec"]}
    return {**made, **learned, **{key: progress[key] for key in ("sha256", *ANCESTRY) if key in progress}}


def _read_model(path: Path) -> State:
    import onnx  # training from chance or a run needs none

    card_path = path.with_suffix(".json")
    try:
        card, content = json.loads(card_path.read_text()), path.read_bytes()
        made, digest = card["training"], hashlib.sha256(content).hexdigest()
        if digest != card["sha256"]:
            raise ValueError(f"the card is that of another file: SHA-256 {card['sha256'][:12]}..., not {digest[:12]}...")
        found = {one.name: one for one in onnx.load_model_from_string(content).graph.initializer}
        names = build(recall(made["net"])).state_dict()
        weights = {name: torch.from_numpy(onnx.numpy_helper.to_array(found[name]).copy()) for name in names}
        spec = {key: made[key] for key in ("data", "net", "device", "rate")}
        spec |= {key: made[key] for key in LEARNED if key in made}
        progress = {"step": made["steps"], "minutes": made["minutes"], "spec": spec, "sha256": digest}
    except Exception as error:  # onnx raises whatever a damaged file makes of it
        hint = "Name the folder of a run, or a model made by framefold_training.export, its card beside it"
        raise ModelError(f"model {path} with card {card_path.name} cannot be read: {error!r}", hint=hint) from error
    return State(progress | {key: made[key] for key in ANCESTRY if key in made}, weights)
