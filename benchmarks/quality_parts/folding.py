"""Frames to groups as the decoder gets them: folded, coded to messages whose every byte is counted, and decoded again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.scenes import Neighbourhood
from framefold_encoder.folding import Folder
from framefold_protocol import payload, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import BlockMap, Coding
from framefold_protocol.masks import Masks
from framefold_protocol.messages import Snapshot
from framefold_protocol.model import REACH

Counts = npt.NDArray[np.unsignedinteger]
BlockMaps = Sequence[BlockMap | None]


@dataclass(frozen=True, eq=False)
class Folded:
    """Consecutive groups of one clip."""

    groups: list[FoldedGroup]
    sent_bytes: int
    """Of all messages, headers in."""
    bytes_per_frame: float
    """Of them, on average."""
    cpu_s: float
    """Of folding and coding, all threads."""


def neighbourhood(groups: Sequence[FoldedGroup], k: int) -> Neighbourhood:
    """Group k of a stream, and what a net is fed beside it: no further than to a frame that was sent as it is."""
    before, after = groups[max(k - REACH, 0) : k][::-1], groups[k + 1 : k + 1 + REACH]
    folded = (list(takewhile(lambda group: group.coding.ratio > 1, side)) for side in (before, after))
    return groups[k], *folded


def fold(
    counts: Counts, families: Sequence[Masks], quantisation: VarianceStabilised | None = None, maps: BlockMaps | None = None
) -> Folded:
    """All whole groups of (T, H, W) counts; `maps` has a block map for each."""
    ratio = families[0].spec.ratio
    groups = np.split(counts, range(ratio, len(counts), ratio))
    return fold_groups(groups, {ratio: families}, quantisation, [None] * len(groups) if maps is None else maps)


def fold_groups(
    groups: Sequence[Counts], families: Mapping[int, Sequence[Masks]], quantisation: VarianceStabilised | None, maps: BlockMaps
) -> Folded:
    """Groups that follow each other, with `families` for the frames of each, and each with its block map. A single frame goes
    as it is."""
    folders = {ratio: Folder(of_ratio, groups[0].dtype) for ratio, of_ratio in families.items()}
    folders[len(groups[0])].fold(groups[0], maps[0])  # compiled and in the caches
    start = time.process_time()
    coders = [quantisation if len(group) > 1 else None for group in groups]
    whole = zip(groups, maps, coders, strict=True)
    packed = [payload.pack(folders[len(group)].fold(group, one), coder) for group, one, coder in whole]
    cpu_s = time.process_time() - start
    sent, first, received = 0, 0, []
    for k, (group, one, block_map, coder) in enumerate(zip(groups, packed, maps, coders, strict=True)):
        coded = None if block_map is None else block_map.tobytes()
        message = Snapshot(k, first, len(group), time.time_ns(), **vars(one), block_map=coded, quantisation=coder)
        sent, first = sent + wire.size(wire.encode(message)), first + len(group)
        sums = payload.decode(one, groups[0].shape[1:], coder)
        received.append(FoldedGroup(sums, Coding(tuple(families[len(group)]), block_map), coder.step if coder else 0.0))
    return Folded(received, sent, sent / first, cpu_s)
