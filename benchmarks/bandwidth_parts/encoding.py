"""How fast frames are folded: as a share of the machine's read bandwidth, and as a multiple of what other coders reach.

All of a case's figures are measured in turns on one array, larger than the caches. `fold` hands the kernel B frames at once;
`live` folds them as they come from a camera, five at a time where they lie; `single` one at a time. Then the sums are loaded
and stored for every frame: that moves five bytes for one, which leaves a fifth of the read bandwidth (`single_bound`) and what
the caches still hold of the sums. Whole groups move the sums once, too: B of B + 4 bytes are of frames (`bound`), unless the
caches hold the sums. `map` folds with three families, drawn anew for
each block; `watched` looks at every group first, as an adaptive stream does. What that takes is timed by itself, group by
group, as a share of the group's fold: the difference of two speeds would be good to a twentieth only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bandwidth_parts import machine, rivals
from bandwidth_parts.folded import RATIO, RATIOS
from bandwidth_parts.material import Counts, fit
from common_parts.document import cores
from framefold_encoder.folding import Folder
from framefold_encoder.kernels import VISIT
from framefold_encoder.memory import zeros
from framefold_encoder.motion import COUNTING
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.watch import Watch
from framefold_protocol.coding import BlockMap, block_map_shape
from framefold_protocol.masks import MaskSpec, derive_masks

SIDES = (1024, 2048, 4096)
HEADLINE_SIDE = 2048
DENSITIES = (0.25, 0.5, 1.0)
"""Of one family, and of the block map's three."""
CACHE_BYTES = 128 << 20
"""Arrays are at least this large, four times a large last-level cache."""
RIVAL_FRAMES = 2
"""Frames of 1024x1024 the slow coders take a turn."""
Actions = dict[str, tuple[int, Callable[[], object]]]


def measure(counts: Counts, side: int, dtype: np.dtype[np.unsignedinteger], rounds: int, small: bool) -> list[dict[str, Any]]:
    """Cases of one frame size and type, one for each number of threads and each B. `small`: one group, cached or not.

    Other B than 20 are measured at the headline size.
    """
    ratios = RATIOS if side == HEADLINE_SIDE else (RATIO,)
    return [case for ratio in ratios for case in _measure(counts, side, dtype, ratio, rounds, small)]


def _measure(
    counts: Counts, side: int, dtype: np.dtype[np.unsignedinteger], ratio: int, rounds: int, small: bool
) -> list[dict[str, Any]]:
    groups = 1 if small else max(1, -(-CACHE_BYTES // (ratio * side * side * dtype.itemsize)))
    frames = fit(counts, (groups * ratio, side, side), dtype)
    threads = tuple(count for count in (1, 2) if count <= cores())
    actions = machine.memory_actions(frames, threads)
    watched = {count: _Watched(frames, ratio, count) for count in threads}
    for count in threads:
        actions |= _fold_actions(frames, ratio, count) | {f"watched {count}": (frames.nbytes, watched[count].run)}
    speeds = machine.compare(actions | (_rival_actions(frames) if ratio == RATIO else {}), rounds)
    described = {"dtype": dtype.name, "side": side, "ratio": ratio}
    return [described | _case(speeds, count, ratio) | watched[count].costs for count in threads]


def headline(cases: list[dict[str, Any]], dtype: str) -> dict[str, Any]:
    """The case that stands for a type: `HEADLINE_SIDE` (or what is nearest) on all threads measured."""
    mine = [case for case in cases if case["dtype"] == dtype and case["ratio"] == RATIO]
    return min(mine, key=lambda case: (abs(case["side"] - HEADLINE_SIDE), -case["threads"]))


def _fold_actions(frames: Counts, ratio: int, threads: int) -> Actions:
    shape = frames.shape[1:]
    families = [derive_masks(MaskSpec(ratio=ratio, density=density), shape) for density in DENSITIES]
    folder, adaptive = Folder(families[:1], frames.dtype, threads), Folder(families, frames.dtype, threads)
    sums = zeros(shape, adaptive.sum_dtype)
    block_map = np.random.default_rng(0).integers(0, len(families), block_map_shape(shape), np.uint8)
    steps = {"fold": ratio, "live": VISIT, "single": 1}
    actions: Actions = {name: (frames.nbytes, partial(_fold, folder, frames, sums, step)) for name, step in steps.items()}
    actions["map"] = frames.nbytes, partial(_fold, adaptive, frames, sums, ratio, block_map)
    return {f"{name} {threads}": action for name, action in actions.items()}


def _fold(folder: Folder, frames: Counts, sums: Counts, step: int, block_map: BlockMap | None = None) -> None:
    for start in range(0, len(frames), step):
        folder.add(frames[start : start + step], start % folder.ratio, sums, block_map)


class _Watched:
    """Folds groups by the masks of what moves, each looked at before."""

    def __init__(self, frames: Counts, ratio: int, threads: int) -> None:
        shape = frames.shape[1], frames.shape[2]
        self._frames, self._ratio = frames, ratio
        self._folder = Folder([derive_masks(MaskSpec(ratio=ratio), shape)], frames.dtype, threads)
        self._sums, self._watch = zeros(shape, self._folder.sum_dtype), Watch(shape, EncoderSettings().still_below, threads)
        self._motion, self._looking = list[float](), list[float]()

    def run(self) -> None:
        """All groups once."""
        for first in range(0, len(self._frames), self._ratio):
            group = self._frames[first : first + self._ratio]
            start = time.perf_counter()
            self._watch.look(group, COUNTING)
            told = time.perf_counter()
            self._watch.choose(group, COUNTING)
            seen = time.perf_counter()
            self._folder.add(group, 0, self._sums)
            fold_s = time.perf_counter() - seen
            self._motion.append((told - start) / fold_s)
            self._looking.append((seen - start) / fold_s)

    @property
    def costs(self) -> dict[str, float]:
        """Of a group's fold: the motion statistic, and all that leads to a block map. Medians."""
        return {"motion_cost_of_fold": statistics.median(self._motion), "map_cost_of_fold": statistics.median(self._looking)}


def _rival_actions(frames: Counts) -> Actions:
    some = np.ascontiguousarray(frames[:RIVAL_FRAMES, :1024, :1024])
    actions: Actions = {}
    for name, encode in (("jpeg", rivals.jpeg), ("bitshuffle_lz4", rivals.bitshuffle_lz4)):
        try:
            encode(some)
        except rivals.Unavailable:
            continue
        actions[name] = some.nbytes, partial(encode, some)
    return actions


def _case(speeds: machine.Rounds, threads: int, ratio: int) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    read = f"read {threads}"
    found: dict[str, Any] = {
        "threads": threads,
        "read_gb_s": middle[read],
        "memcpy_gb_s": middle[f"memcpy {threads}"],
        "gb_s": middle[f"fold {threads}"],
        "fraction_of_read": machine.ratio(speeds, f"fold {threads}", read),
        "times_memcpy": machine.ratio(speeds, f"fold {threads}", f"memcpy {threads}"),
        "bound": ratio / (ratio + 4),  # of whole groups: sums twice as wide, each line of them fetched and written once
        "single_bound": 1 / (1 + 4),
    }
    for name in ("live", "single"):
        found[f"{name}_gb_s"] = middle[f"{name} {threads}"]
        found[f"{name}_fraction_of_read"] = machine.ratio(speeds, f"{name} {threads}", read)
    found["map_fraction_of_fold"] = machine.ratio(speeds, f"map {threads}", f"fold {threads}")
    for rival in ("jpeg", "bitshuffle_lz4"):
        found[f"times_{rival}"] = machine.ratio(speeds, "fold 1", rival) if rival in speeds else None
    return found
