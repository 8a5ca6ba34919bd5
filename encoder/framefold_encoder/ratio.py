"""How many frames the next group gets: a fixed B, or one that follows the link within bounds (`20`, `10..30`, `auto`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from framefold_protocol.masks import MAX_RATIO

AUTO = (10, 30)
"""The paper's range (Zheng et al. 2021)."""
GROW_ABOVE = 0.5
"""Backlog above which B grows: fast, because what comes next is a loss."""
SHRINK_BELOW = 0.25
"""Backlog below which B shrinks, by one frame a group: slowly, because what comes next is the backlog again."""


@dataclass(frozen=True)
class RatioRange:
    """The frames per snapshot a stream may have; equal bounds fix B. Raises `ValueError` when they are out of bounds."""

    smallest: int
    largest: int

    def __post_init__(self) -> None:
        fixed = self.smallest == self.largest
        if not (1 if fixed else 2) <= self.smallest <= self.largest <= MAX_RATIO:
            raise ValueError(f"a number of frames from 1 to {MAX_RATIO}, a range such as 10..30, or auto")

    @classmethod
    def parse(cls, text: object) -> RatioRange:
        """Read `20`, `10..30` or `auto`. Raises `ValueError` for anything else."""
        if isinstance(text, RatioRange):
            return text
        if text == "auto":
            return cls(*AUTO)
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(text).strip())
        first, last = found.groups() if found else ("0", None)
        return cls(int(first), int(last or first))

    def __str__(self) -> str:
        return str(self.largest) if self.smallest == self.largest else f"{self.smallest}..{self.largest}"

    def next(self, current: int, backlog: float) -> int:
        """B of the group after one of `current` frames, when this share of what may wait for the link is waiting."""
        if backlog > GROW_ABOVE:
            return self.grown(current)
        return max(current - 1, self.smallest) if backlog < SHRINK_BELOW else current

    def grown(self, current: int) -> int:
        """An eighth more, or one frame."""
        return min(current + max(1, current // 8), self.largest)
