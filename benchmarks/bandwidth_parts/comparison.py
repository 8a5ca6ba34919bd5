"""All coders side by side: framefold's and their rivals', on the same frames, one thread each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bandwidth_parts.folded import RATIO, RATIOS, FoldedCoder, coders, entropy_bits
from bandwidth_parts.material import Counts, Material
from bandwidth_parts.rivals import Rival, Unavailable, error_in_sigma, rivals
from framefold_protocol.errors import FramefoldError

SIDE = 512
"""Rivals see the middle of each frame, at most this large, and `RATIO` frames: some take seconds for it."""
Row = dict[str, Any]


def wire_rows(material: Material) -> list[Row]:
    """Wire ratio of every coder at one dose, and the ratio that the order-0 entropy of what it codes would allow."""
    rows = []
    for ratio in RATIOS:
        for name, coder in coders(material, ratio).items():
            ratios = {
                "wire_ratio": coder.wire_ratio(material.counts),
                "entropy_ratio": coder.entropy_ratio(material.counts),
            }
            rows.append({**_labels(material, ratio), "coder": name, **ratios})
    sample = middle(material.counts)[:RATIO]
    bound = sample.itemsize * 8 / entropy_bits(sample)
    for rival in rivals():
        try:
            wire_ratio = sample.nbytes / sum(map(len, rival.encode(sample)))
        except Unavailable:
            continue
        row = {**_labels(material, 1), "coder": rival.name, "wire_ratio": wire_ratio}
        rows.append({**row, "entropy_ratio": bound if rival.lossless else None})
    return rows


def speed_rows(material: Material, rounds: int) -> list[Row]:
    """Every coder at one dose: wire ratio, speed, CPU time and what it leaves of the frames; the entropy bound as a last row.

    `lossless`: the frames come back as they were. `error_sigma` of framefold is that of its sums, `psnr_db` that of the frames.
    PSNR is of what comes out: lossless frames may be denoised afterwards, a video coder and a net have done it already.
    """
    rows = [_rival_row(rival, material, rounds) for rival in rivals()]
    rows += [_folded_row(name, coder, material, rounds) for name, coder in coders(material, RATIO).items()]
    bits = material.counts.itemsize * 8
    bound: Row = {"coder": "order-0 entropy of frames", "lossless": True}
    bound["wire_ratio"] = bits / entropy_bits(material.counts)
    return [*rows, bound]


def middle(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The middle `SIDE` x `SIDE` pixels of each frame, sides even for video coders."""
    cuts = []
    for length in frames.shape[1:]:
        size = min(length, SIDE) // 2 * 2
        cuts.append(slice((length - size) // 2, (length - size) // 2 + size))
    return np.ascontiguousarray(frames[:, cuts[0], cuts[1]])


def _labels(material: Material, ratio: int) -> Row:
    return {"dose": round(material.dose, 3), "ratio": ratio, "dtype": material.counts.dtype.name}


def _rival_row(rival: Rival, material: Material, rounds: int) -> Row:
    sample = middle(material.counts)[:RATIO]
    row: Row = {"coder": rival.name, "setting": rival.setting, "lossless": rival.lossless}
    try:
        coded, timing = _timed(lambda: rival.encode(sample), sample.nbytes, rounds)
    except Unavailable as reason:
        return {**row, "unavailable": str(reason)}
    decoded = rival.decode(coded) if rival.decode else sample
    quality = {"error_sigma": error_in_sigma(decoded, sample, material.gain), "psnr_db": _psnr(decoded, material)}
    return {**row, "wire_ratio": sample.nbytes / sum(map(len, coded)), **timing, **quality}


def _folded_row(name: str, coder: FoldedCoder, material: Material, rounds: int) -> Row:
    """Wire ratio and speed of whole frames, many groups of them; quality in the middle of the first group."""
    whole = material.counts[: len(material.counts) // RATIO * RATIO]
    _, timing = _timed(lambda: coder.encode(whole), whole.nbytes, rounds)
    cut = Material(material.dose, middle(whole[: 2 * RATIO]), material.gain)
    small = coders(cut, RATIO)
    exact, kept = (
        small[each].snapshots(small[each].encode(cut.counts)) for each in (name.replace("half-sigma", "lossless"), name)
    )
    return {
        "coder": name,
        "setting": f"B = {RATIO}",
        "lossless": False,
        "wire_ratio": coder.wire_ratio(whole),
        **timing,
        "error_sigma": error_in_sigma(kept[0], exact[0], material.gain),
        "psnr_db": _psnr_of_net(kept, small[name], material),
    }


def _timed(action: Callable[[], Any], size: int, rounds: int) -> tuple[Any, Row]:
    """The action's result, GB/s of wall-clock time and CPU seconds per GB of all its threads; medians."""
    result = action()
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        result = action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return result, {"gb_s": size / statistics.median(walls) / 1e9, "cpu_s_per_gb": statistics.median(cpus) / size * 1e9}


def _psnr(frames: npt.NDArray[Any], material: Material) -> float | None:
    """Against the truth in the middle of the frames; None where nobody knows it."""
    if material.clean is None:
        return None
    clean = np.asarray(middle(material.clean[: len(frames)]))
    return float(10 * np.log10(clean.max() ** 2 / np.mean((frames.astype(np.float32) - clean) ** 2)))


def _psnr_of_net(snapshots: list[Counts], coder: FoldedCoder, material: Material) -> float | None:
    """Of the first snapshot's frames, reconstructed as the decoder does."""
    if material.clean is None or (registry := _registry()) is None:
        return None
    from framefold_decoder.reconstruct.base import FoldedGroup
    from framefold_protocol.noise import NoiseModel

    net = registry.choose("auto", coder.coding)
    noise = NoiseModel(counts_per_electron=material.gain)
    this, *after = (FoldedGroup(snapshot, coder.coding, coder.step_sigma) for snapshot in snapshots)
    return _psnr(net.reconstruct(this, [], after, noise), material)


@cache
def _registry() -> Any:
    """The decoder's reconstructors; None where the decoder is not installed: a detector PC has no need of it."""
    try:
        from framefold_decoder.reconstruct.registry import Registry
    except ImportError:
        return None
    try:
        return Registry(None, provider="cpu", threads=1)
    except FramefoldError:
        return None
