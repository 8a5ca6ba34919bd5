"""Which models there are, and which of them reconstructs a given coding. `gap-tv` is always there."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framefold_decoder.reconstruct.base import Reconstructor
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_decoder.reconstruct.onnx_net import OnnxNet, check_file, unsuitable
from framefold_decoder.reconstruct.onnx_runtime import Precision, Provider, ProviderError, check_installation
from framefold_protocol.coding import Coding
from framefold_protocol.errors import InputError, ModelError
from framefold_protocol.model import ModelCard

PACKAGED = Path(__file__).parents[1] / "models"
"""The folder of the nets that ship with framefold."""

_log = logging.getLogger(__name__)
_RESERVED = ("auto", "none", "gap-tv")


@dataclass(frozen=True)
class ModelEntry:
    """One way to reconstruct frames, as the command line and REST tell it."""

    name: str
    kind: str
    """`onnx` or `gap-tv`."""
    provider: str | None
    """What really computes; None before the model was first loaded."""
    ratios: tuple[int, ...] = ()
    """The B it was trained on, and those between; empty: any."""
    mask_kinds: tuple[str, ...] = ()
    """The mask kinds it was trained on; empty: any."""
    problem: str | None = None
    """Why it cannot be used."""
    card: dict[str, Any] | None = None
    """All its card says."""

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.name}: cannot be used: {self.problem}"
        ratios, kinds = ", ".join(map(str, self.ratios)) or "any", ", ".join(self.mask_kinds) or "any"
        return f"{self.name}: {self.kind}, frames per snapshot {ratios}, masks {kinds}"


class Registry:
    """The packaged models, those of the user's folder, and `gap-tv`. Safe to use from several threads.

    Folders are read once. A model that cannot be used is listed with its problem and does not stand in the way of the others.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        provider: Provider = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        packaged: Path = PACKAGED,
    ) -> None:
        """`folder` may hold further models; its names win over packaged ones. Raises `InputError` when it does not exist,
        and `ProviderError` when ONNX Runtime is installed twice."""
        check_installation()
        if folder is not None and not folder.is_dir():
            raise InputError(f"model folder {folder} does not exist", hint="Make it, or leave the setting out")
        self._provider: Provider = provider
        self._precision: Precision = precision
        self._threads = threads
        self._gap_tv = GapTv(threads=threads)
        self._paths = {path.stem: path for place in (packaged, folder) if place for path in _model_files(place)}
        self._cards: dict[str, ModelCard] = {}
        self._problems: dict[str, str] = {}
        self._nets: dict[str, OnnxNet] = {}
        self._lock = threading.Lock()
        for name, path in self._paths.items():
            try:
                self._cards[name] = _read_card(path)
            except ModelError as error:
                self._problems[name] = str(error)

    def models(self) -> list[ModelEntry]:
        """`gap-tv` and all models, by name, those that cannot be used among them."""
        solver = ModelEntry(self._gap_tv.name, "gap-tv", self._gap_tv.provider)
        return [solver, *(self._info(name) for name in sorted(self._paths))]

    def check(self, name: str) -> None:
        """Load what reconstructing with `name` will need. Raises `ModelError` when there is no such model or it cannot be used.

        `auto` raises only when ONNX Runtime or the provider cannot be used; a damaged model is logged, and listed with its
        problem.
        """
        if name == "auto":
            for left_out, problem in self._problems.items():
                _log.warning("model %s is left out: %s", left_out, problem)
            for model in self._usable():
                self._load_or_note(model)
        elif name not in _RESERVED:
            self._load(name)

    def choose(self, name: str, coding: Coding) -> Reconstructor:
        """The reconstructor called `name`, or, for `auto`, the best net that fits the coding, else `gap-tv`.

        Among nets that fit, the costliest on a GPU and the cheapest on a CPU. Raises `ModelError` when the named model does not
        exist, cannot be used or does not fit, and `ProviderError` when the provider cannot be had.
        """
        if name == self._gap_tv.name:
            return self._gap_tv
        if name == "auto":
            return self._best(coding) or self._gap_tv
        net = self._load(name)
        if reason := unsuitable(net.card, coding):
            raise ModelError(f"model {name} does not fit: {reason}", hint=f"Use auto, or one of {self._names()}")
        return net

    def _best(self, coding: Coding) -> OnnxNet | None:
        fitting = [name for name in self._usable() if not unsuitable(self._cards[name], coding)]
        nets = [net for name in fitting if (net := self._load_or_note(name))]
        by_cost = sorted(nets, key=lambda net: net.card.kmac_per_frame_pixel)
        return next((net for net in reversed(by_cost) if net.on_gpu), next(iter(by_cost), None))

    def _usable(self) -> list[str]:
        return [name for name in self._cards if name not in self._problems]

    def _load_or_note(self, name: str) -> OnnxNet | None:
        """The net, or None when it is damaged, which is noted."""
        try:
            return self._load(name)
        except ProviderError:
            raise
        except ModelError as error:
            self._problems[name] = str(error)
            _log.warning("model %s is left out: %s", name, error)
            return None

    def _load(self, name: str) -> OnnxNet:
        if name not in self._paths:
            raise ModelError(f"there is no model {name!r}, but {self._names()}", hint="Put NAME.onnx and NAME.json there")
        if name in self._problems:
            raise ModelError(f"model {name!r} cannot be used: {self._problems[name]}")
        with self._lock:
            if name not in self._nets:
                options = self._provider, self._threads
                self._nets[name] = OnnxNet(self._paths[name], self._cards[name], *options, precision=self._precision)
            return self._nets[name]

    def _info(self, name: str) -> ModelEntry:
        card, net = self._cards.get(name), self._nets.get(name)
        provider, problem = net.provider if net else None, self._problems.get(name)
        if card is None:
            return ModelEntry(name, "onnx", provider, problem=problem)
        return ModelEntry(name, "onnx", provider, card.ratios, card.mask_kinds, problem, asdict(card))

    def _names(self) -> str:
        return ", ".join([self._gap_tv.name, *sorted(self._usable())])


def _model_files(folder: Path) -> list[Path]:
    """The `.onnx` paths of a folder's models, also where only the card is there."""
    return sorted({path.with_suffix(".onnx") for pattern in ("*.onnx", "*.json") for path in folder.glob(pattern)})


def _read_card(path: Path) -> ModelCard:
    """The card beside an ONNX file, checked against it. Raises `ModelError`."""
    card = ModelCard.read(path.with_suffix(".json"))
    hint = "Name file, card and model alike, and not auto, none or gap-tv"
    if card.name != path.stem or path.stem in _RESERVED:
        raise ModelError(f"model card {path.with_suffix('.json')} is named {card.name!r}", hint=hint)
    check_file(path, card)
    return card
