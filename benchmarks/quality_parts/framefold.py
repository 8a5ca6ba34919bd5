"""framefold itself: a net on plain and adaptively folded snapshots, each lossless and at half a sigma; GAP-TV and a reference
net on plain lossless ones.

Half-sigma and adaptive snapshots are of the same B and take the bytes they take: their own `wire_ratio` says how many.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from framefold_decoder.decoding import trust
from framefold_decoder.reconstruct.base import Reconstructor
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.exposure import choose_families
from framefold_encoder.motion import motion
from framefold_encoder.settings import EncoderSettings
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import Coding
from framefold_protocol.errors import ModelError
from framefold_protocol.masks import MaskSpec, derive_masks
from quality_parts.cells import GROUPS, NOISE, Cell, Row
from quality_parts.folding import Folded, fold

HALF_SIGMA = VarianceStabilised(gain=1.0, step=0.5)
METHODS = ("framefold lossless", "framefold half-sigma", "framefold adaptive", "framefold adaptive half-sigma")


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
    """A row a method. The reference net has one where it fits the ratio."""
    default = [derive_masks(MaskSpec(ratio=cell.ratio), cell.shape)]
    plain = cell.lossless, fold(cell.counts, default, HALF_SIGMA)
    folds = dict(zip(METHODS, (*plain, _adaptive(cell), _adaptive(cell, HALF_SIGMA)), strict=True))
    rows = [_row(cell, method, one, nets.registry.choose(nets.model, one.groups[1].coding)) for method, one in folds.items()]
    rows.append(_row(cell, "gap-tv", cell.lossless, nets.registry.choose("gap-tv", cell.lossless.groups[1].coding)))
    if nets.reference:
        try:
            net = nets.registry.choose(nets.reference, cell.lossless.groups[1].coding)
        except ModelError:
            return rows  # of another B
        rows.append(_row(cell, "reference net", cell.lossless, net))
    return rows


def _adaptive(cell: Cell, quantisation: VarianceStabilised | None = None) -> Folded:
    """As the encoder folds with `adaptive`: families, motion and thresholds are its own."""
    settings = EncoderSettings(ratio=cell.ratio, adaptive=True)
    families = [derive_masks(spec, cell.shape) for spec in settings.families]
    maps = [choose_families(motion(group), settings.still_below) for group in np.split(cell.counts, GROUPS)]
    return fold(cell.counts, families, quantisation, maps)


def _row(cell: Cell, method: str, folded: Folded, reconstructor: Reconstructor) -> Row:
    previous, group, following = folded.groups
    start = time.perf_counter()
    frames = reconstructor.reconstruct(group, previous, following, NOISE)
    took = time.perf_counter() - start
    more: Row = {} if group.coding.block_map is None else {"still_blocks": float(np.mean(group.coding.block_map > 0))}
    explained, share = trust((group, previous, following), frames, NOISE, reconstructor)
    more |= {"chi2": explained, "followed": share, "model": reconstructor.name, "decode_frames_per_s": len(frames) / took}
    return cell.row(method, np.asarray(frames), folded.sent_bytes, folded.cpu_s, **more)
