"""framefold itself: its net on snapshots as the encoder folds them by default, block by block, and on plain ones, all of the
masks of what moves, each lossless and at half a sigma; GAP-TV and a reference net on the lossless ones.

The default lossless snapshots say how many bytes every rival may take. Plain and half-sigma ones are of the same B and take the
bytes they take, fewer: their own `wire_ratio` says how many. `TO_BYTES` take at most those of the lossless ones, and their B is
free.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from framefold_decoder.decoding import trust
from framefold_decoder.reconstruct.base import Reconstructor
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.budget import WIDTHS
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import Coding
from framefold_protocol.errors import ModelError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.cells import NOISE, Cell, Row
from quality_parts.folding import Folded, fold, neighbourhood
from quality_parts.to_bytes import reconstruct, to_bytes

HALF_SIGMA = VarianceStabilised(gain=1.0, step=0.5)
METHODS = ("framefold lossless", "framefold half-sigma", "framefold plain", "framefold plain half-sigma")
TO_BYTES = {
    "framefold wire-ratio lossless": (0.0,),
    "framefold wire-ratio": (1.0,),
    "framefold wire-ratio auto": WIDTHS,
}
"""Widths of the bins to choose from, in sigma; 0: exact."""
REFERENCES = ("reference net", "reference net, same snapshots")
"""The net that framefold's is held against: on plain snapshots, as the paper has it, and on framefold's own."""


@dataclass(frozen=True)
class Nets:
    """What reconstructs."""

    registry: Registry
    model: str
    """`auto` or a model's name."""
    reference: str | None
    """The name of a model that framefold's is held against, such as a BIRNAT-type net."""

    def with_solver(self, coding: Coding) -> list[Reconstructor]:
        """The model for a coding, and GAP-TV unless that is it."""
        solver, chosen = (self.registry.choose(name, coding) for name in ("gap-tv", self.model))
        return [chosen] if chosen is solver else [chosen, solver]


def framefold_rows(cell: Cell, nets: Nets) -> list[Row]:
    """A row a method. The reference net has two where it fits the ratio."""
    masks = [derive_masks(MaskSpec(ratio=cell.ratio), cell.shape)]
    half_sigma, plain = fold_adaptively(groups_of(cell.counts, cell.ratio), HALF_SIGMA), fold(cell.counts, masks)
    folds = dict(zip(METHODS, (cell.lossless, half_sigma, plain, fold(cell.counts, masks, HALF_SIGMA)), strict=True))
    rows = [_row(cell, method, one, nets.registry.choose(nets.model, one.groups[0].coding)) for method, one in folds.items()]
    rows.append(_row(cell, "gap-tv", cell.lossless, nets.registry.choose("gap-tv", cell.lossless.groups[0].coding)))
    rows += [_row_to_bytes(cell, nets, method, widths) for method, widths in TO_BYTES.items()]
    if nets.reference:
        for method, one in zip(REFERENCES, (plain, cell.lossless), strict=True):
            try:
                net = nets.registry.choose(nets.reference, one.groups[0].coding)
            except ModelError:
                continue  # of another B
            rows.append(_row(cell, method, one, net))
    return rows


def _row_to_bytes(cell: Cell, nets: Nets, method: str, widths: tuple[float, ...]) -> Row:
    """B is free, and may be larger than the cell's, so all of the clip is streamed; the bytes a frame are the cell's."""
    _, counts = cell.clip.take(cell.dose)
    ratio, folded = to_bytes(counts, cell.lossless.bytes_per_frame, widths, cell.middle.stop)
    start = time.perf_counter()
    found = reconstruct(folded, cell.middle, nets.registry, nets.model)
    took = time.perf_counter() - start
    width = max(group.step_sigma for group in folded.groups)
    told: Row = {"frames_per_snapshot": ratio, "step_sigma": width, "decode_frames_per_s": len(found.frames) / took}
    told |= {"chi2": found.chi2, "followed": found.followed, "model": found.model}
    sent = round(folded.bytes_per_frame * len(cell.counts))
    return cell.row(method, found.frames, sent, folded.cpu_s * len(cell.counts) / len(counts), **told)


def _row(cell: Cell, method: str, folded: Folded, reconstructor: Reconstructor) -> Row:
    seen = neighbourhood(folded.groups, REACH)
    group = seen[0]
    start = time.perf_counter()
    frames = reconstructor.reconstruct(*seen, NOISE)
    took = time.perf_counter() - start
    more: Row = {} if group.coding.block_map is None else {"still_blocks": float(np.mean(group.coding.block_map > 0))}
    explained, share = trust(seen, frames, NOISE, reconstructor)
    more |= {"chi2": explained, "followed": share, "model": reconstructor.name, "decode_frames_per_s": len(frames) / took}
    return cell.row(method, np.asarray(frames), folded.sent_bytes, folded.cpu_s, **more)
