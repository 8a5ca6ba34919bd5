"""How good the reconstructed frames are, against a known truth: the net, GAP-TV and the plain mean of the same B frames.

    python benchmarks/quality.py [--doses 5,20] [--groups 6] [--clips movie.tif ...] [--json PATH]

A clean movie (the simulated test movie, seed 0, never used in training; and recordings given by path) takes Poisson noise at
a stated dose, is folded, and every method sees the same counts. The mean of B frames is the honest rival: same ratio, no masks,
all the electrons, where a snapshot holds a quarter of them. PSNR = 10 log10(peak^2 / mse), peak = the clip's largest clean
value, mse over all pixels of all frames of all groups. Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_decoder.quality import chi2
from framefold_decoder.reconstruct.base import FoldedGroup, NoiseModel
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.folding import Folder
from framefold_encoder.sources import open_source
from framefold_protocol import payload, wire
from framefold_protocol.coding import Coding
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Snapshot
from framefold_simulator.movie import Movie, MovieSpec

RATIO = 20
NOISE = NoiseModel(counts_per_electron=1.0)
Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A clean movie and one noisy take of it at a dose: (T, H, W) each, expected and drawn electrons."""

    name: str
    dose: float
    clean: Pixels
    counts: npt.NDArray[np.uint16]


def simulated(dose: float, groups: int, size: int) -> Clip:
    """The simulated test movie."""
    movie = Movie(MovieSpec(shape=(size, size), dose=dose, seed=0))
    return Clip("simulator", dose, movie.clean(0, groups * RATIO), movie.counts(0, groups * RATIO).astype(np.uint16))


def recorded(path: Path, dose: float, groups: int) -> Clip:
    """A clean recording, scaled to a mean of `dose`, with Poisson noise drawn about it."""
    with open_source(f"file:{path}") as source:
        frames = np.empty((min(groups * RATIO, source.info.frame_count or 0), *source.info.shape), source.info.dtype)
        filled = 0
        while filled < len(frames):
            filled += source.read_into(frames[filled:])
    clean = frames[: len(frames) // RATIO * RATIO].astype(np.float32)
    clean *= dose / clean.mean()
    return Clip(path.stem, dose, clean, np.random.default_rng(0).poisson(clean).astype(np.uint16))


def measure(clip: Clip, registry: Registry) -> list[dict[str, Any]]:
    """A row for every method."""
    coding = Coding((derive_masks(MaskSpec(ratio=RATIO), clip.clean.shape[1:]),))
    folder = Folder(coding.families, clip.counts.dtype)
    groups = [FoldedGroup(folder.fold(counts), coding) for counts in np.split(clip.counts, len(clip.counts) // RATIO)]
    truth = np.split(clip.clean, len(groups))
    # Frames of up to 255 counts leave the detector as bytes.
    pixel_bytes = 1 if clip.counts.max() < 256 else 2
    sent = sum(wire.size(wire.encode(_message(k, group))) for k, group in enumerate(groups))
    common = {"clip": clip.name, "dose": clip.dose, "ratio": RATIO, "wire_ratio": clip.counts.size * pixel_bytes / sent}
    rows = []
    net = registry.choose("auto", coding)
    for reconstructor in (net, registry.choose("gap-tv", coding)):
        errors, misfits, start = [], [], time.perf_counter()
        for k, group in enumerate(groups):
            neighbours = groups[k - 1] if k else None, groups[k + 1] if k + 1 < len(groups) else None
            frames = reconstructor.reconstruct(group, *neighbours, NOISE)
            errors.append(float(np.mean((frames - truth[k]) ** 2)))
            misfits.append(chi2(group, frames, NOISE))
        rate = len(clip.clean) / (time.perf_counter() - start)
        method = {"method": reconstructor.name, "chi2": float(np.mean(misfits)), "frames_per_s": rate}
        rows.append({**common, **method, "psnr": _psnr(errors, clip)})
    means = [counts.mean(axis=0, dtype=np.float64) for counts in np.split(clip.counts, len(groups))]
    errors = [float(np.mean((mean - clean) ** 2)) for mean, clean in zip(means, truth, strict=True)]
    rows.append({**common, "method": f"mean of {RATIO}", "wire_ratio": None, "psnr": _psnr(errors, clip)})
    return rows


def _message(position: int, group: FoldedGroup) -> Snapshot:
    return Snapshot(position, position * RATIO, RATIO, time.time_ns(), **vars(payload.pack(group.snapshot)))


def _psnr(errors: list[float], clip: Clip) -> float:
    return float(10 * np.log10(clip.clean.max() ** 2 / np.mean(errors)))


def print_card(rows: list[dict[str, Any]]) -> None:
    """The rows as a table."""
    print(f"{'clip':<12}{'dose e-/px':>11}{'wire ratio':>12}  {'method':<18}{'PSNR dB':>8}{'chi2':>7}{'frames/s':>10}")
    for row in rows:
        ratio = f"{row['wire_ratio']:.1f}" if row["wire_ratio"] else "-"
        rest = f"{row['chi2']:7.2f}{row['frames_per_s']:10.0f}" if "chi2" in row else ""
        print(f"{row['clip']:<12}{row['dose']:>11g}{ratio:>12}  {row['method']:<18}{row['psnr']:>8.2f}{rest}")


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="Quality of reconstructed frames against a known truth.")
    parser.add_argument("--clips", nargs="*", type=Path, default=[], help="clean recordings, besides the simulated movie")
    parser.add_argument("--doses", default="5,20", help="e-/px and frame, comma-separated (default 5,20)")
    parser.add_argument("--groups", type=int, default=6, help="snapshots of each clip (default 6)")
    parser.add_argument("--size", type=int, default=512, help="side of the simulated movie in pixels (default 512)")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    options = parser.parse_args()
    registry = Registry(None, provider="cpu", threads=0)
    rows: list[dict[str, Any]] = []
    for dose in map(float, options.doses.split(",")):
        clips = [simulated(dose, options.groups, options.size)]
        for clip in clips + [recorded(path, dose, options.groups) for path in options.clips]:
            rows += measure(clip, registry)
    print_card(rows)
    document = json.dumps({"command": " ".join(["python", *sys.argv]), "rows": rows})
    if options.json:
        options.json.write_text(json.dumps(json.loads(document), indent=1) + "\n")
    print(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
