"""A trained net, run by ONNX Runtime as its card and `framefold_protocol.model` tell: large frames in tiles, on a GPU several
tiles at once. Inputs and outputs are bound: a small frame's masks, the largest input, stay on a GPU from snapshot to snapshot.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framefold_decoder.reconstruct.base import Beside, FoldedGroup, Frames
from framefold_decoder.reconstruct.brightness import correct
from framefold_decoder.reconstruct.onnx_runtime import ON_CPU, Precision, Provider, import_runtime, open_session
from framefold_decoder.reconstruct.scenes import Neighbourhood
from framefold_decoder.reconstruct.windows import Floats, Window, batches, task, windows
from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError, ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import INPUTS_VERSION, ModelCard
from framefold_protocol.noise import NoiseModel

TILE_SIDE = 512
"""Pixels: with B = 20 a tile's activations take some hundred MB."""

GPU_BATCH = 4
"""Tiles that a GPU gets at once; a CPU gets one, whose activations its caches hold best."""

MASKS_KEPT_BYTES = 64_000_000
"""Of masks on the device, the last used: enough for those of a frame of one tile to stay while chi2 looks at windows."""

DENSITY_SLACK = 1.25
"""A net takes masks up to this factor outside the densities it was trained on."""

_INPUTS = {"snapshots", "exposures", "masks", "noise"}
_OUTPUT = "frames"


class OnnxNet:
    """A reconstructor: one ONNX file with its card, loaded."""

    def __init__(
        self,
        path: Path,
        card: ModelCard,
        provider: Provider = "auto",
        threads: int = 0,
        *,
        precision: Precision = "auto",
        tile_side: int = TILE_SIDE,
        batch: int | None = None,
    ) -> None:
        """Load `path`. `threads` 0: ONNX Runtime's choice; `batch` tiles at once, None: as many as suit the provider. Raises
        `ModelError` when it is not the model its card tells of, and `ProviderError` when the provider cannot be had."""
        check_file(path, card)
        self.card = card
        self.name = card.name
        self._tile_side = tile_side
        self._session, self._half = open_session(path, provider, threads, precision)
        _check_contract(self._session, path, card)
        self._device = "cpu" if self._session.get_providers()[0] in ON_CPU else "cuda"
        self._batch = batch or (1 if self._device == "cpu" else GPU_BATCH)
        self._values = import_runtime().OrtValue
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[Any, ...], tuple[int, Any]] = OrderedDict()

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the provider in use, and the precision where it is not single."""
        half = ", half precision" if self._half else ""
        return f"{self._session.get_providers()[0]}{half}"

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._device != "cpu"

    def reconstruct(self, group: FoldedGroup, before: Beside, after: Beside, noise: NoiseModel) -> Frames:
        """The frames (B, H, W) in detector counts, finite, 0 or more.

        Raises `ModelError` when the coding does not fit or the net fails.
        """
        return self.reconstruct_several([(group, before, after)], noise)[0]

    def reconstruct_several(self, neighbourhoods: Sequence[Neighbourhood], noise: NoiseModel) -> list[Frames]:
        """As `reconstruct`, of several groups of one stream and one B: a GPU is fed several of small frames at once.

        Memory beyond inputs and frames stays bounded. Raises `InputError` when the groups differ in B or shape.
        """
        for group, *_ in neighbourhoods:
            if reason := unsuitable(self.card, group.coding):
                hint = "Choose another model, or gap-tv, which fits all"
                raise ModelError(f"model {self.name} does not fit: {reason}", hint=hint)
        if len({(group.coding.ratio, group.coding.shape) for group, *_ in neighbourhoods}) > 1:
            raise InputError("groups reconstructed together must share frames per snapshot and shape")
        tasks = [task(one, noise) for one in neighbourhoods]
        for batch in batches(windows(tasks, self.card, self._tile_side), self._batch) if tasks else ():
            for window, answer in zip(batch, self._run(batch), strict=True):
                window.accept(answer)
        for one in tasks:
            # A part shows too little of it; chi2 looks at parts, and to it one freedom a frame is nothing.
            if one.group.whole is None:
                correct(one.group, one.frames, noise)
        return [one.frames for one in tasks]

    def _run(self, batch: list[Window]) -> Floats:
        """The net's frames of windows of one shape, in units of their levels: (n, B, rows, columns)."""
        where = f"model {self.name}, {batch[0]}"
        hint = "Choose another model, or gap-tv"
        expected = (len(batch), *batch[0].shape)
        inputs = {
            "snapshots": np.stack([window.snapshots() for window in batch]),
            "exposures": np.stack([window.exposures() for window in batch]),
            "noise": np.array([window.relative_noise() for window in batch], np.float32),
        }
        try:
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            binding.bind_ortvalue_input("masks", self._bound_masks(batch))
            binding.bind_output(_OUTPUT, self._device)
            self._session.run_with_iobinding(binding)
            frames: Floats = binding.get_outputs()[0].numpy()
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise ModelError(f"{where}: ONNX Runtime failed: {' '.join(str(error).split())}", hint=hint) from error
        if frames.shape != expected or not math.isfinite(float(frames.sum())):
            found = f"{frames.shape}" if frames.shape != expected else "values that are not finite"
            raise ModelError(f"{where}: the net answered {found}, expected finite frames {expected}", hint=hint)
        return frames

    def _bound_masks(self, batch: list[Window]) -> Any:
        """The masks (n, B, rows, columns) on the device: those of an earlier batch, where they are the same and still kept."""
        key: tuple[Any, ...] = tuple(window.mask_key() for window in batch)
        with self._lock:
            kept = self._masks.pop(key, None)
            if kept is None:
                masks = np.stack([window.masks() for window in batch])
                kept = masks.nbytes, self._values.ortvalue_from_numpy(masks, self._device, 0)
            self._masks[key] = kept
            while len(self._masks) > 1 and sum(size for size, _ in self._masks.values()) > MASKS_KEPT_BYTES:
                self._masks.popitem(last=False)
        return kept[1]


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


def unsuitable(card: ModelCard, coding: Coding) -> str:
    """Why a net cannot reconstruct this coding, in a few words; empty when it can. Families without a block do not count."""
    if not min(card.ratios, default=0) <= coding.ratio <= max(card.ratios, default=0):
        return f"{coding.ratio} frames per snapshot, it was trained on {', '.join(map(str, card.ratios))}"
    used = [0] if coding.block_map is None else np.unique(coding.block_map)
    reasons = (_unsuitable_mask(card, coding.families[index].spec) for index in used)
    return next(filter(None, reasons), "")


def _unsuitable_mask(card: ModelCard, spec: MaskSpec) -> str:
    if spec.kind not in card.mask_kinds:
        return f"masks of kind {spec.kind}, it was trained on {', '.join(card.mask_kinds)}"
    lowest, highest = min(card.densities, default=0.0) / DENSITY_SLACK, max(card.densities, default=1.0) * DENSITY_SLACK
    if spec.kind in ("balanced", "random") and not lowest <= spec.density <= highest:
        return f"masks of density {spec.density}, it was trained on {', '.join(map(str, card.densities))}"
    return ""


def _check_contract(session: Any, path: Path, card: ModelCard) -> None:
    """Raise `ModelError` unless the net has the inputs and output of `framefold_protocol.model`, for every B of its card."""
    inputs, outputs = {one.name: one.shape for one in session.get_inputs()}, {one.name for one in session.get_outputs()}
    hint = "Export it with framefold_training.export"
    if set(inputs) != _INPUTS or _OUTPUT not in outputs:
        found = f"inputs {', '.join(sorted(inputs))} and outputs {', '.join(sorted(outputs))}"
        expected = f"{', '.join(sorted(_INPUTS))} and {_OUTPUT}"
        raise ModelError(f"model {path} has {found}, expected {expected}", hint=hint)
    ratio = inputs["masks"][1]
    if isinstance(ratio, int) and {*card.ratios} != {ratio}:
        found = f"takes {ratio} frames per snapshot alone, its card says {', '.join(map(str, card.ratios))}"
        raise ModelError(f"model {path} {found}", hint=hint)
