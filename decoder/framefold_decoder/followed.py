"""How much of its snapshot's noise a reconstruction follows: the degrees of freedom that chi2 must not count.

For a reconstruction H that is linear, Y - H Y holds (I - H) of the noise; ours are nearly so for changes smaller than the
noise. So the snapshot is changed at random, up and down by half its noise's standard deviation, and what the frames leave of
the change is what they leave of the noise (J. Ye, J. Am. Stat. Assoc. 93, 120, 1998; S. Ramani, T. Blu & M. Unser, "Monte-
Carlo SURE", IEEE Trans. Image Process. 17, 1540, 2008). A few small windows of the frame are enough, others for every
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import ROUNDING_VARIANCE
from framefold_decoder.reconstruct.base import FoldedGroup, Reconstructor
from framefold_decoder.reconstruct.scenes import Neighbourhood
from framefold_protocol.coding import BLOCK
from framefold_protocol.noise import NoiseModel

SIDE = 2 * BLOCK
"""Of a window, pixels."""
MARGIN = 24
"""Pixels at a window's edge that do not count where the frame goes on: nets would see more there."""
MOST = 4
"""Windows."""
SHARE = 1 / 8
"""Of the frame that the windows take at most, unless that is less than one: each is reconstructed twice."""
SIZE = 0.5
"""Of the change, standard deviations."""
_LARGEST = 2**62
"""Of sums that are changed; 256 frames of 32 bits stay below 2^40."""
_GOLDEN = np.array([0.7548776662466927, 0.5698402909980532])
"""Multiples of these, less their whole parts, fill the unit square evenly (M. Roberts's R2 sequence)."""


def followed(neighbourhood: Neighbourhood, noise: NoiseModel, reconstructor: Reconstructor, number: int = 0) -> float:
    """Share of the noise's variance that is missing from Y - sum C X, at most 1; about 0 for frames that ignore the noise.

    `number`, that of the snapshot, picks windows and changes. 0 where nothing can be changed: a snapshot without counts.
    """
    left = total = 0.0
    group, *sides = neighbourhood
    for k, (rows, columns) in enumerate(_windows(group.coding.shape, number)):
        rng = np.random.default_rng([number, k])
        own = Change.of(group.window(rows, columns), noise, rng)
        beside = [[Change.of(one.window(rows, columns), noise, rng) for one in side] for side in sides]
        up, down = (_frames(own, beside, sign, noise, reconstructor) for sign in (1, -1))
        seen = np.einsum("tyx,tyx->yx", own.group.coding.window(), up - down) / 2
        inner = tuple(_inner(span, side) for span, side in zip((rows, columns), group.coding.shape, strict=True))
        left += float(((own.counts - seen) ** 2 / own.variance)[inner].sum())
        total += float((own.counts**2 / own.variance)[inner].sum())
    return 1 - left / total if total else 0.0


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

    def by(self, sign: int) -> FoldedGroup:
        """The group, changed this way (1) or the other (-1)."""
        snapshot = self.group.snapshot.astype(np.int64) + sign * self.counts
        return self.group.with_snapshot(snapshot.astype(self.group.snapshot.dtype))


def _frames(
    own: Change, sides: Sequence[Sequence[Change]], sign: int, noise: NoiseModel, reconstructor: Reconstructor
) -> npt.NDArray[np.float32]:
    """Of all changed: frames follow the noise of the neighbours, too."""
    before, after = ([one.by(sign) for one in side] for side in sides)
    return reconstructor.reconstruct(own.by(sign), before, after, noise)


def _windows(shape: tuple[int, int], number: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each, beginning at blocks."""
    count = int(np.clip(SHARE * shape[0] * shape[1] / SIDE**2, 1, MOST))
    for k in range(count):
        where = (number * count + k) * _GOLDEN % 1
        starts = [BLOCK * int(part * (max(side - SIDE, 0) // BLOCK + 1)) for part, side in zip(where, shape, strict=True)]
        rows, columns = (slice(start, min(start + SIDE, side)) for start, side in zip(starts, shape, strict=True))
        yield rows, columns


def _inner(span: slice, side: int) -> slice:
    """The part of a window's axis that counts, in the window."""
    length = span.stop - span.start
    return slice(MARGIN if span.start else 0, length - MARGIN if span.stop < side else length)
