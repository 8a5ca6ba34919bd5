"""What one might do instead: average, skip frames, or code them. And two outer marks, for which every frame is sent.

The mean of B frames is what a detector that integrates longer delivers, sent as framefold sends snapshots; it is given B frames
though its sum, of more electrons, takes more bytes than a coded one. All others take framefold's bytes (`codecs`).
"""

from __future__ import annotations

import time

import numpy as np

from bandwidth_parts.rivals import Unavailable
from framefold_protocol import payload
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH
from quality_parts.cells import Cell, Row
from quality_parts.clips import Counts, Pixels
from quality_parts.codecs import codecs, tune
from quality_parts.denoise import bm3d
from quality_parts.folding import fold

SAME_BYTES = ("mean of B", "mean of B, BM3D", "every k-th frame", *(codec.name for codec in codecs()))
OUTER_MARKS = ("noisy frames", "BM3D of each frame")
"""Without compression: at the detector's full rate."""


def rival_rows(cell: Cell) -> list[Row]:
    """A row a method; one that cannot be had here has only its reason, `unavailable`."""
    return [*_mean_rows(cell), _skipping_row(cell), *_codec_rows(cell)]


def mark_rows(cell: Cell) -> list[Row]:
    """The frames as delivered, and BM3D of the middle one, which stands for all. Their ratio is 1, whatever the cell's."""
    noisy = cell.counts[cell.middle]
    rows = [{**cell.row(OUTER_MARKS[0], noisy, cell.counts.nbytes, 0.0), "ratio": 1}]
    try:
        denoised = bm3d(noisy[cell.ratio // 2], 1)
    except Unavailable as reason:
        return [*rows, {**_absent(cell, OUTER_MARKS[1], reason), "ratio": 1}]
    middle = cell.row(OUTER_MARKS[1], denoised[None], cell.counts.nbytes, 0.0, first=cell.ratio // 2)
    return [*rows, {**middle, "ratio": 1}]


def _mean_rows(cell: Cell) -> list[Row]:
    summed = fold(cell.counts, [derive_masks(MaskSpec("ones", cell.ratio), cell.shape)])
    total = summed.groups[REACH].snapshot
    costs = summed.sent_bytes, summed.cpu_s
    rows = [cell.row(SAME_BYTES[0], _repeated(total / np.float32(cell.ratio), cell), *costs)]
    try:
        denoised = bm3d(total, cell.ratio)
    except Unavailable as reason:
        return [*rows, _absent(cell, SAME_BYTES[1], reason)]
    return [*rows, cell.row(SAME_BYTES[1], _repeated(denoised, cell), *costs)]


def _repeated(image: Pixels, cell: Cell) -> Pixels:
    return np.broadcast_to(image, (cell.ratio, *cell.shape))


def _skipping_row(cell: Cell) -> Row:
    """Every k-th frame, exact, k the largest that takes no fewer bytes; those between by linear interpolation."""
    step = next(k for k in range(cell.ratio, 0, -1) if _packed_bytes(cell.counts[::k]) >= cell.lossless.sent_bytes or k == 1)
    kept = np.arange(0, len(cell.counts), step)
    start = time.process_time()
    sent = _packed_bytes(cell.counts[kept])
    cpu_s = time.process_time() - start
    wanted = np.arange(len(cell.counts))[cell.middle]
    after = np.minimum(np.searchsorted(kept, wanted), len(kept) - 1)
    before = np.where(kept[after] > wanted, after - 1, after)
    share = ((wanted - kept[before]) / np.maximum(kept[after] - kept[before], 1)).clip(0, 1)[:, None, None]
    frames = cell.counts[kept[before]] * (1 - share) + cell.counts[kept[after]] * share
    return cell.row(SAME_BYTES[2], frames, sent, cpu_s, setting=f"k = {step}")


def _packed_bytes(frames: Counts) -> int:
    return sum(len(payload.pack(frame).payload) for frame in frames)


def _codec_rows(cell: Cell) -> list[Row]:
    rows = []
    for codec in codecs():
        try:
            tuned = tune(codec, cell.counts, cell.lossless.sent_bytes)
        except Unavailable as reason:
            rows.append(_absent(cell, codec.name, reason))
            continue
        rows.append(cell.row(codec.name, tuned.frames[cell.middle], tuned.sent_bytes, tuned.cpu_s, setting=tuned.setting))
    return rows


def _absent(cell: Cell, method: str, reason: Unavailable) -> Row:
    return {**cell.key, "method": method, "unavailable": str(reason)}
