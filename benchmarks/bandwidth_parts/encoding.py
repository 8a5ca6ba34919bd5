"""How fast frames are folded: as a share of the machine's read bandwidth, and as a multiple of what other coders reach.

All of a case's figures are measured in turns on one array, larger than the caches. `whole groups` hands the kernel B frames at
once; `live` hands it one frame at a time, as they come from a camera, which costs it loading and storing the sums each time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bandwidth_parts import machine, rivals
from bandwidth_parts.folded import RATIO
from bandwidth_parts.material import Counts, fit
from framefold_encoder.folding import Folder
from framefold_protocol.masks import MaskSpec, derive_masks

SIDES = (1024, 2048, 4096)
HEADLINE_SIDE = 2048
CACHE_BYTES = 128 << 20
"""Arrays are at least this large, four times a large last-level cache."""
RIVAL_FRAMES = 2
"""Frames of 1024x1024 the slow coders take a turn."""
Actions = dict[str, tuple[int, Callable[[], object]]]


def measure(counts: Counts, side: int, dtype: np.dtype[np.unsignedinteger], rounds: int, small: bool) -> list[dict[str, Any]]:
    """Cases of one frame size and type, one for each number of threads. `small`: one group, cached or not."""
    groups = 1 if small else max(1, -(-CACHE_BYTES // (RATIO * side * side * dtype.itemsize)))
    frames = fit(counts, (groups * RATIO, side, side), dtype)
    threads = tuple(count for count in (1, 2) if count <= machine.cores())
    actions = machine.memory_actions(frames, threads)
    for count in threads:
        actions |= _fold_actions(frames, count)
    speeds = machine.compare(actions | _rival_actions(frames), rounds)
    return [_case(speeds, count, side, dtype) for count in threads]


def headline(cases: list[dict[str, Any]], dtype: str) -> dict[str, Any]:
    """The case that stands for a type: `HEADLINE_SIDE` (or what is nearest) on all threads measured."""
    mine = [case for case in cases if case["dtype"] == dtype]
    return min(mine, key=lambda case: (abs(case["side"] - HEADLINE_SIDE), -case["threads"]))


def _fold_actions(frames: Counts, threads: int) -> Actions:
    masks = derive_masks(MaskSpec(ratio=RATIO), frames.shape[1:])
    folder = Folder((masks,), frames.dtype, threads)
    sums = np.empty(frames.shape[1:], folder.sum_dtype)
    return {
        f"fold {threads}": (frames.nbytes, partial(_fold_groups, folder, frames, sums)),
        f"live {threads}": (frames.nbytes, partial(_fold_one_by_one, folder, frames, sums)),
    }


def _fold_groups(folder: Folder, frames: Counts, sums: Counts) -> None:
    for start in range(0, len(frames), RATIO):
        folder.add(frames[start : start + RATIO], 0, sums)


def _fold_one_by_one(folder: Folder, frames: Counts, sums: Counts) -> None:
    for t in range(len(frames)):
        folder.add(frames[t : t + 1], t % RATIO, sums)


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


def _case(speeds: machine.Rounds, threads: int, side: int, dtype: np.dtype[np.unsignedinteger]) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    fold, read = f"fold {threads}", f"read {threads}"
    return {
        "dtype": dtype.name,
        "side": side,
        "threads": threads,
        "gb_s": middle[fold],
        "live_gb_s": middle[f"live {threads}"],
        "read_gb_s": middle[read],
        "memcpy_gb_s": middle[f"memcpy {threads}"],
        "fraction_of_read": machine.ratio(speeds, fold, read),
        "live_fraction_of_read": machine.ratio(speeds, f"live {threads}", read),
        "times_memcpy": machine.ratio(speeds, fold, f"memcpy {threads}"),
        "times_jpeg": machine.ratio(speeds, "fold 1", "jpeg") if "jpeg" in speeds else None,
        "times_bitshuffle_lz4": machine.ratio(speeds, "fold 1", "bitshuffle_lz4"),
    }
