"""framefold's own coders: groups folded and coded to messages, every byte of them counted; and the bound none can pass.

Order-0 entropy is the right bound for what a detector delivers: each pixel's count is an independent draw of a Poisson
distribution, so knowing the pixels around it or before it tells its mean, but not the noise on it, and the noise is nearly all
of the information. It is taken over the histogram of all pixels, whose means differ; a coder that predicted every mean
perfectly could gain what that mixing costs, a few per cent in scenes of this contrast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from bandwidth_parts.material import Counts, Material
from framefold_encoder.folding import Folder
from framefold_protocol import payload, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import Coding
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Snapshot
from framefold_protocol.wire import Parts

RATIO = 20
MOVING, STILL = 0.25, 1.0
"""Densities of the masks of blocks that move, and of those that do not move at all: they take the most bytes."""
RATIOS = (10, 20, 30)
Reconstruct = Callable[[list[Counts], Coding], npt.NDArray[np.float32]]


def entropy_bits(values: Counts) -> float:
    """Order-0 entropy in bits per value."""
    if values.dtype.itemsize <= 2:
        found = np.bincount(values.reshape(-1))
    else:
        found = np.unique(values, return_counts=True)[1]
    share = found[found > 0] / values.size
    return float(-(share * np.log2(share)).sum())


class FoldedCoder:
    """Folds and codes groups as the encoder does, on one thread."""

    def __init__(
        self, frames: Counts, ratio: int, quantisation: VarianceStabilised | None = None, density: float = MOVING
    ) -> None:
        """For frames like these, (T, H, W)."""
        self.coding = Coding((derive_masks(MaskSpec(ratio=ratio, density=density), frames.shape[1:]),))
        self.ratio = ratio
        self.step_sigma = quantisation.step if quantisation else 0.0
        self._folder = Folder(self.coding.families, frames.dtype)
        self._quantisation = quantisation

    def encode(self, frames: Counts) -> list[Parts]:
        """The messages of all whole groups."""
        return [self._message(k, group) for k, group in enumerate(self._groups(frames))]

    def wire_ratio(self, frames: Counts) -> float:
        """Bytes of whole groups over the bytes of their messages, all headers in."""
        messages = self.encode(frames)
        return float(len(messages) * self.ratio * frames[0].nbytes / sum(map(wire.size, messages)))

    def entropy_ratio(self, frames: Counts) -> float:
        """Bits of a group's frames over the order-0 entropy of what is coded of it."""
        groups = [self._folder.fold(group) for group in self._groups(frames)]
        coded = [self._quantisation.quantise(sums) if self._quantisation else sums for sums in groups]
        return float(self.ratio * frames.itemsize * 8 / entropy_bits(np.stack(coded)))

    def snapshots(self, messages: list[Parts]) -> list[Counts]:
        """What the decoder makes of the messages."""
        found = [wire.decode(parts) for parts in messages]
        return [_pixels(message, self.coding.shape) for message in found if isinstance(message, Snapshot)]

    def _groups(self, frames: Counts) -> Iterator[Counts]:
        for start in range(0, len(frames) - self.ratio + 1, self.ratio):
            yield frames[start : start + self.ratio]

    def _message(self, position: int, group: Counts) -> Parts:
        packed = payload.pack(self._folder.fold(group), self._quantisation)
        header = position, position * self.ratio, self.ratio, time.time_ns()
        return wire.encode(Snapshot(*header, **vars(packed), quantisation=self._quantisation))


def coders(material: Material, ratio: int) -> dict[str, FoldedCoder]:
    """framefold's coders by name, for this material, lossless first: by the masks of what moves, and of what is still."""
    half_sigma = VarianceStabilised(gain=material.gain, step=0.5)
    return {
        f"framefold {name}{scene}": FoldedCoder(material.counts, ratio, quantisation, density)
        for scene, density in (("", MOVING), (", still", STILL))
        for name, quantisation in (("lossless", None), ("half-sigma", half_sigma))
    }


def _pixels(message: Snapshot, shape: tuple[int, int]) -> Counts:
    return payload.decode(message, shape, message.quantisation)
