"""How much of its own noise a snapshot's reconstruction follows: the degrees of freedom of the fit, which chi2 must not count.

For frames X̂(Y) it is the mean of d(sum C X̂) / dY over the pixels (generalised degrees of freedom: J. Ye, J. Am. Stat. Assoc.
93, 120, 1998). It is measured on the reconstruction itself: each pixel of the snapshot is changed by half its noise's standard
deviation, up or down at random, and what the frames answer is held against the change (S. Ramani, T. Blu & M. Unser,
"Monte-Carlo SURE", IEEE Trans. Image Process. 17, 1540, 2008). Of large frames a few windows do, others for every snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import ROUNDING_VARIANCE
from framefold_decoder.reconstruct.base import FoldedGroup, Frames, Reconstructor
from framefold_decoder.reconstruct.scenes import Neighbourhood
from framefold_protocol.coding import BLOCK
from framefold_protocol.noise import NoiseModel

SIDE = 2 * BLOCK
"""Of a window, pixels."""
MARGIN = 24
"""Pixels at a window's edge that do not count where the frame goes on: nets would see more there."""
FEWEST, MOST = 4, 8
"""Windows of a frame; one of no more pixels than the fewest is taken whole."""
SHARE = 1 / 4
"""Of the frame that the windows take, within these bounds: how much noise is followed varies from place to place."""
SIZE = 0.5
"""Of the change, standard deviations."""
_LARGEST = 2**62
"""Of sums that are changed; 256 frames of 32 bits stay below 2^40."""
_GOLDEN = np.array([0.7548776662466927, 0.5698402909980532])
"""Multiples of these, less their whole parts, fill the unit square evenly (M. Roberts's R2 sequence)."""


def followed(
    neighbourhood: Neighbourhood, frames: Frames, noise: NoiseModel, reconstructor: Reconstructor, number: int = 0
) -> float:
    """Share of the snapshot's noise that its frames follow: 0 for frames that ignore it, 1 for frames that explain all of it.

    `frames` (B, H, W) are what the reconstructor made of the neighbourhood. `number`, that of the snapshot, picks windows and
    changes. 0 where nothing can be changed: a snapshot without counts.
    """
    answered = total = 0.0
    group, *sides = neighbourhood
    for k, (rows, columns) in enumerate(_windows(group.coding.shape, number)):
        change = Change.of(group.window(rows, columns), noise, np.random.default_rng([number, k]))
        before, after = ([one.window(rows, columns) for one in side] for side in sides)
        # That a window's frames differ from the whole's without any change, too, has nothing to do with the change's signs.
        answers = reconstructor.reconstruct(change.changed(), before, after, noise) - frames[:, rows, columns]
        answer = np.einsum("tyx,tyx->yx", change.group.coding.window(), answers)
        inner = tuple(_inner(span, side) for span, side in zip((rows, columns), group.coding.shape, strict=True))
        answered += float((answer * change.counts / change.variance)[inner].sum())
        total += float((change.counts**2 / change.variance)[inner].sum())
    return answered / total if total else 0.0


@dataclass(frozen=True, eq=False)
class Change:
    """A small random change of a group's snapshot."""

    group: FoldedGroup
    counts: npt.NDArray[np.int64]
    """(H, W): `SIZE` standard deviations, at least one count, up or down; 0 where the snapshot's type has but one of both."""
    variance: npt.NDArray[np.float32]
    """(H, W): the snapshot's."""

    @classmethod
    def of(cls, group: FoldedGroup, noise: NoiseModel, rng: np.random.Generator) -> Change:
        """Draw one."""
        variance = np.maximum(noise.variance(group.snapshot.astype(np.float64), group.exposure()), ROUNDING_VARIANCE)
        size = np.maximum(np.rint(SIZE * np.sqrt(variance)), 1).astype(np.int64)
        largest = min(int(np.iinfo(group.snapshot.dtype).max), _LARGEST)
        possible = (group.snapshot >= size) & (group.snapshot <= largest - size)
        return cls(group, size * rng.choice((-1, 1), size.shape) * possible, variance)

    def changed(self) -> FoldedGroup:
        """The group with the change."""
        snapshot = self.group.snapshot.astype(np.int64) + self.counts
        return self.group.with_snapshot(snapshot.astype(self.group.snapshot.dtype))


def _windows(shape: tuple[int, int], number: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each, beginning at blocks."""
    area = shape[0] * shape[1] / SIDE**2
    if area <= FEWEST:
        yield slice(0, shape[0]), slice(0, shape[1])
        return
    count = int(np.clip(SHARE * area, FEWEST, MOST))
    for k in range(count):
        where = (number * count + k) * _GOLDEN % 1
        starts = [BLOCK * int(part * (max(side - SIDE, 0) // BLOCK + 1)) for part, side in zip(where, shape, strict=True)]
        rows, columns = (slice(start, min(start + SIDE, side)) for start, side in zip(starts, shape, strict=True))
        yield rows, columns


def _inner(span: slice, side: int) -> slice:
    """The part of a window's axis that counts, in the window."""
    length = span.stop - span.start
    return slice(MARGIN if span.start else 0, length - MARGIN if span.stop < side else length)
