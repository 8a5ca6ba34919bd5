"""The contract between a trained net and the decoder: the card beside the file, and what the net is fed.

A net is one ONNX file with float32 inputs

    snapshots  (n, 5, H, W)  two snapshots before, this one, and two after it, each divided by this snapshot's level
    exposures  (n, 5, H, W)  ones per pixel of the five
    masks      (n, B, H, W)  this snapshot's masks, {0, 1}
    noise      (n,)          variance of one frame's pixel at the level, relative to the level squared: 1 / dose for counting;
                             that of the near-lossless coder's bins counts as noise

and one output `frames` (n, B, H, W), the frames divided by the level. A neighbour that is missing, at a stream's ends, or of
another scene is this snapshot again. Training builds its inputs from the same definitions, so what is learned is what is fed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import ModelError
from framefold_protocol.noise import NoiseModel

INPUTS_VERSION = 2
"""Counts up when the inputs above change their meaning. 1: one snapshot before and one after."""
REACH = 2
"""Snapshots a net is fed on each side of its own: what moves slowly or not at all is seen with that many more electrons."""
SNAPSHOTS = 2 * REACH + 1


@dataclass(frozen=True)
class ModelCard:
    """What a net says of itself; `NAME.json` beside `NAME.onnx`."""

    name: str
    sha256: str
    """Of the ONNX file."""
    ratios: tuple[int, ...]
    """The B it was trained on. A net of several takes any B between the least and the largest of them."""
    mask_kinds: tuple[str, ...]
    """Mask kinds it was trained on."""
    densities: tuple[float, ...]
    """Mask densities it was trained on."""
    dose_range: tuple[float, float]
    """Doses in e-/px (mean over the frame) it was trained on."""
    multiple: int
    """H and W fed to it must be multiples of this."""
    halo: int
    """Pixels at a tile's edge to throw away so that seams stay invisible."""
    parameters: int
    """Number of weights."""
    kmac_per_frame_pixel: float
    """Cost: thousand multiply-adds per pixel of each output frame, at B = 20 or the nearest it takes."""
    inputs_version: int = INPUTS_VERSION
    training: dict[str, Any] = field(default_factory=dict)
    """How it was made: run, minutes, steps, seed, rate, git revision, data, library versions."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """Measured on data it was not trained on: rows with data, dose, method, psnr_db."""

    def write(self, path: Path) -> None:
        """Write as JSON, indented."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a card. Raises `ModelError` when the file is missing or is not a card."""
        try:
            fields = json.loads(path.read_text())
            known = {name: fields[name] for name in fields if name in cls.__dataclass_fields__}
            for name in ("ratios", "mask_kinds", "densities", "dose_range"):
                known[name] = tuple(known[name])
            return cls(**known)
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "Export the model again, or take it out of the model folder"
            raise ModelError(f"model card {path} cannot be used: {error!r}", hint=hint) from error


def level(snapshot: npt.NDArray[np.generic], exposure: npt.NDArray[np.generic]) -> float:
    """Mean counts of one frame's pixel: sum of the (H, W) snapshot over sum of its exposure; at least 1e-3."""
    exposed = float(np.sum(exposure, dtype=np.float64))
    return max(float(np.sum(snapshot, dtype=np.float64)) / max(exposed, 1.0), 1e-3)


def relative_noise(level_counts: float, noise: NoiseModel) -> float:
    """The net's `noise`: (gain * level + read noise^2) / level^2, all in counts."""
    return (noise.counts_per_electron * level_counts + noise.read_noise_counts**2) / level_counts**2
