"""What goes wrong next, and when: drawn from one seeded generator.

Equal seeds draw equal faults in equal order. How far the processes have come when a fault strikes is up to the machine, so no
two soaks are the same to the millisecond. A fault's moment is either a random one or one that a stream is led to: while it
ends (nearly everything is stored) and while it closes (everything is), moments too short to be met by chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from soak_parts.faulty_link import CUTS
from soak_parts.scenes import Scene

Kind = Literal["kill", "cut", "disk-full", "clock-jump"]
Moment = Literal["any", "end", "close"]
SIDES = ("encoder", "decoder")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: Kind
    sides: tuple[str, ...] = ()
    """Which processes, disks or clocks; none of a cut."""
    how: str = ""
    """Which cut."""
    moment: Moment = "any"
    delay_s: float = 0.0
    """After the moment, or after the fault before."""
    lasts_s: float = 0.0
    """A cut's and a full disk's length; how long a killed process stays away."""
    kill_s: float = 0.0
    """When, after the beginning of another fault, `sides_killed` are killed and started again."""
    sides_killed: tuple[str, ...] = ()
    amount: float = 0.0
    """Bytes that a full disk still has; seconds by which a clock is wrong from now on."""


class Scheduler:
    """Draws the faults of one stream after the other."""

    def __init__(self, seed: int, *, disks: bool, mean_delay_s: float) -> None:
        """`disks`: whether they can be filled."""
        self._random = random.Random(seed)
        self._mean_delay_s = mean_delay_s
        draws: list[tuple[Callable[[], Fault], float]] = [(self._kill, 10), (self._cut, 4), (self._clock_jump, 2)]
        self._draws = [*draws, (self._disk_full, 2)] if disks else draws

    def stream(self) -> list[Fault]:
        """What the next stream has to live through, in order."""
        draws, weights = zip(*self._draws, strict=True)
        anywhen = [draw() for draw in self._random.choices(draws, weights, k=self._random.randint(1, 4))]
        led: list[Moment] = [moment for moment in ("end", "close") if self._random.random() < 0.5]
        return [*anywhen, *(self._kill(moment) for moment in led)]

    def pick(self, scenes: Sequence[Scene]) -> Scene:
        """What is streamed next."""
        return self._random.choice(scenes)

    def _kill(self, moment: Moment = "any") -> Fault:
        delay_s = self._delay_s() if moment == "any" else self._random.uniform(0, 0.15)
        return Fault("kill", self._sides(), moment=moment, delay_s=delay_s, lasts_s=self._away_s())

    def _cut(self) -> Fault:
        how = self._random.choice(CUTS)
        fault = Fault("cut", how=how, delay_s=self._delay_s())
        return fault if how == "reset" else self._with_length(fault)

    def _disk_full(self) -> Fault:
        left = self._random.choice((0, self._random.randint(0, 1 << 18)))
        return self._with_length(Fault("disk-full", self._sides(), delay_s=self._delay_s(), amount=left))

    def _clock_jump(self) -> Fault:
        jump_s = self._random.choice((-1, 1)) * 10 ** self._random.uniform(0, 7.5)  # up to a year
        killed = self._sides() if self._random.random() < 0.7 else ()
        return Fault("clock-jump", self._sides(), delay_s=self._delay_s(), sides_killed=killed, amount=jump_s)

    def _with_length(self, fault: Fault) -> Fault:
        """It lasts for some seconds, and sometimes a process is killed meanwhile."""
        lasts_s = self._random.uniform(0.2, 4.0)
        killed = self._sides() if self._random.random() < 0.4 else ()
        return replace(fault, lasts_s=lasts_s, kill_s=self._random.uniform(0, lasts_s), sides_killed=killed)

    def _delay_s(self) -> float:
        """Often at once after the fault before, so that starting up is met too, often after a while in peace."""
        return min(self._random.expovariate(1 / self._mean_delay_s), 4 * self._mean_delay_s)

    def _away_s(self) -> float:
        """Mostly restarted at once, as a service manager does; sometimes later than the other side's patience."""
        return self._random.choice((0.0, 0.0, 0.0, self._random.uniform(0, 1), self._random.uniform(1, 3)))

    def _sides(self) -> tuple[str, ...]:
        return self._random.choice((("encoder",), ("decoder",), ("encoder",), ("decoder",), SIDES))
