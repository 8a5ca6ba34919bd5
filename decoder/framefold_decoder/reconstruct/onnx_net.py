"""A trained net, run by ONNX Runtime as its card and `framefold_protocol.model` tell. Large frames go through in tiles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_decoder.reconstruct.base import FoldedGroup, Frames, NoiseModel
from framefold_decoder.reconstruct.onnx_runtime import Provider, open_session
from framefold_decoder.reconstruct.tiling import Tile, pad_to_multiple, tiles
from framefold_protocol.coding import Coding
from framefold_protocol.errors import ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import INPUTS_VERSION, ModelCard, level, relative_noise

TILE_SIDE = 512
"""Pixels: with B = 20 a tile's activations take some hundred MB."""

DENSITY_SLACK = 1.25
"""A net takes masks up to this factor outside the densities it was trained on."""

_INPUTS = {"snapshots", "exposures", "masks", "noise"}
_OUTPUT = "frames"

Floats = npt.NDArray[np.float32]


class OnnxNet:
    """A reconstructor: one ONNX file with its card, loaded."""

    def __init__(
        self, path: Path, card: ModelCard, provider: Provider = "auto", threads: int = 0, tile_side: int = TILE_SIDE
    ) -> None:
        """Load `path`. `threads` 0: ONNX Runtime's choice. Raises `ModelError` when it is not the model its card tells of, and
        `ProviderError` when the provider cannot be had."""
        check_file(path, card)
        self.card = card
        self.name = card.name
        self._tile_side = tile_side
        self._session = open_session(path, provider, threads)
        _check_contract(self._session, path)

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the provider in use."""
        return str(self._session.get_providers()[0])

    def reconstruct(
        self, group: FoldedGroup, previous: FoldedGroup | None, following: FoldedGroup | None, noise: NoiseModel
    ) -> Frames:
        """The frames (B, H, W) in detector counts, finite, 0 or more.

        Raises `ModelError` when the coding does not fit or the net fails.
        """
        if reason := misfit(self.card, group.coding):
            raise ModelError(
                f"model {self.name} does not fit: {reason}", hint="Choose another model, or gap-tv, which fits all"
            )
        three = [neighbour or group for neighbour in (previous, group, following)]
        exposures = np.stack([one.exposure() for one in three])  # (3, H, W)
        signal = _signal(group.snapshot, exposures[1], noise)
        counts = level(signal, exposures[1])
        relative = np.array([relative_noise(counts, noise.counts_per_electron, noise.read_noise_counts)], np.float32)
        frames = np.empty((group.coding.ratio, *group.coding.shape), np.float32)
        for tile in tiles(group.coding.shape, self._tile_side, self.card.halo, self.card.multiple):
            window = (tile.rows, tile.columns)
            exposed = exposures[:, *window]
            snapshots = np.stack([_signal(one.snapshot[window], e, noise) for one, e in zip(three, exposed, strict=True)])
            inputs = {"snapshots": snapshots / counts, "exposures": exposed, "masks": group.coding.window(*window)}
            frames[:, *tile.core] = self._run(inputs, relative, tile)[:, *tile.inner]
        frames *= np.float32(counts)
        frames += np.float32(noise.offset_counts)
        return np.maximum(frames, 0, out=frames)

    def _run(self, images: dict[str, npt.NDArray[Any]], noise: Floats, tile: Tile) -> Floats:
        """The net's frames of one window, in units of the level: (B, rows, columns)."""
        inputs = {name: pad_to_multiple(image.astype(np.float32), self.card.multiple)[None] for name, image in images.items()}
        expected = inputs["masks"].shape
        where = f"model {self.name}, rows {tile.rows.start}-{tile.rows.stop}, columns {tile.columns.start}-{tile.columns.stop}"
        hint = "Choose another model, or gap-tv"
        try:
            (frames,) = self._session.run([_OUTPUT], {**inputs, "noise": noise})
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise ModelError(f"{where}: ONNX Runtime failed: {' '.join(str(error).split())}", hint=hint) from error
        if frames.shape != expected or not np.isfinite(frames).all():
            found = f"{frames.shape}" if frames.shape != expected else "values that are not finite"
            raise ModelError(f"{where}: the net answered {found}, expected finite frames {expected}", hint=hint)
        height, width = images["masks"].shape[1:]
        answer: Floats = frames[0, :, :height, :width]
        return answer


def check_file(path: Path, card: ModelCard) -> None:
    """Raise `ModelError` unless the file is there, is the card's, and takes inputs as this framefold makes them."""
    hint = "Export the model again, or take it out of the model folder"
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist", hint=hint)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != card.sha256:
        found = f"has SHA-256 {digest[:12]}..., its card says {str(card.sha256)[:12]}..."
        raise ModelError(f"model file {path} {found}: one of the two is damaged or of another version", hint=hint)
    if card.inputs_version != INPUTS_VERSION:
        found = f"inputs of version {card.inputs_version}, this framefold makes version {INPUTS_VERSION}"
        raise ModelError(f"model {path} takes {found}", hint="Use the framefold it was made with, or train it again")


def misfit(card: ModelCard, coding: Coding) -> str:
    """Why a net cannot reconstruct this coding, in a few words; empty when it can. Families without a block do not count."""
    if coding.ratio not in card.ratios:
        return f"{coding.ratio} frames per snapshot, it was trained on {', '.join(map(str, card.ratios))}"
    used = [0] if coding.block_map is None else np.unique(coding.block_map)
    reasons = (_mask_misfit(card, coding.families[index].spec) for index in used)
    return next(filter(None, reasons), "")


def _mask_misfit(card: ModelCard, spec: MaskSpec) -> str:
    if spec.kind not in card.mask_kinds:
        return f"masks of kind {spec.kind}, it was trained on {', '.join(card.mask_kinds)}"
    lowest, highest = min(card.densities, default=0.0) / DENSITY_SLACK, max(card.densities, default=1.0) * DENSITY_SLACK
    if spec.kind in ("balanced", "random") and not lowest <= spec.density <= highest:
        return f"masks of density {spec.density}, it was trained on {', '.join(map(str, card.densities))}"
    return ""


def _check_contract(session: Any, path: Path) -> None:
    """Raise `ModelError` unless the net has the inputs and output of `framefold_protocol.model`."""
    inputs, outputs = {one.name for one in session.get_inputs()}, {one.name for one in session.get_outputs()}
    if inputs != _INPUTS or _OUTPUT not in outputs:
        found = f"inputs {', '.join(sorted(inputs))} and outputs {', '.join(sorted(outputs))}"
        expected = f"{', '.join(sorted(_INPUTS))} and {_OUTPUT}"
        raise ModelError(f"model {path} has {found}, expected {expected}", hint="Export it with framefold_training.export")


def _signal(snapshot: npt.NDArray[np.unsignedinteger], exposure: npt.NDArray[np.uint16], noise: NoiseModel) -> Floats:
    """The snapshot without the detector's offset, (H, W)."""
    return (snapshot - np.float64(noise.offset_counts) * exposure).astype(np.float32)
