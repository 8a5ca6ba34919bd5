"""Data unlike all training: what the frames are worth then, and whether chi2 says so.

chi2 asks whether frames explain their snapshot. Where a net keeps to what it was taught and the data do not, they cannot, and
chi2 rises. What it cannot see are errors that no snapshot shows: noise that is different in every frame folds to a snapshot
that many movies explain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framefold_decoder.decoding import trust
from framefold_protocol.model import SNAPSHOTS
from quality_parts.adaptive import fold_adaptively, groups_of
from quality_parts.cells import NOISE, Row
from quality_parts.clips import Clip, Pixels, load
from quality_parts.folding import neighbourhood
from quality_parts.framefold import Nets

DOSE = 20.0
VIDEOS = {"runner": "pnpsci_runner.mat", "drop": "pnpsci_drop.mat", "traffic": "traffic_cacti.mat"}
"""The public clips of video compressive imaging, in the folder `sci` of the recordings."""


def unlike_rows(nets: Nets, ratio: int, size: int, recordings: Path | None) -> list[Row]:
    """A row a clip and reconstructor: PSNR, and chi2 of the middle group. The first clip is one like training's."""
    frames = SNAPSHOTS * ratio
    clips = [load("simulator-0", frames, size), _uniform_noise(frames, size), _scene_cut(ratio, size)]
    if recordings:
        clips += [_video(name, recordings / "sci" / file, size) for name, file in VIDEOS.items()]
    return [row for clip in clips for row in _rows(clip, nets, ratio)]


def _rows(clip: Clip, nets: Nets, ratio: int) -> list[Row]:
    expected, counts = clip.take(DOSE)
    groups = fold_adaptively(groups_of(counts[: SNAPSHOTS * ratio], ratio)).groups
    middle = len(groups) // 2
    seen, rows = neighbourhood(groups, middle), list[Row]()
    for reconstructor in nets.with_solver(seen[0].coding):
        frames = reconstructor.reconstruct(*seen, NOISE)
        error = float(np.mean((frames - expected[middle * ratio : (middle + 1) * ratio]) ** 2))
        psnr = float(10 * np.log10(float(expected.max()) ** 2 / error))
        explained, share = trust(seen, frames, NOISE, reconstructor)
        told = {"model": reconstructor.name, "psnr": psnr, "chi2": explained, "followed": share}
        rows.append({"clip": clip.name, "ratio": ratio, "dose": DOSE, **told})
    return rows


def _uniform_noise(frames: int, size: int) -> Clip:
    """Every pixel of every frame by chance, between nothing and twice the mean."""
    return Clip("uniform noise", np.random.default_rng(0).uniform(0, 2, (frames, size, size)).astype(np.float32))


def _scene_cut(ratio: int, size: int) -> Clip:
    """One movie, and from the middle of the middle group on another."""
    frames = SNAPSHOTS * ratio
    first, second = (load(name, frames, size).clean for name in ("simulator-0", "fast"))
    return Clip("scene cut", np.concatenate([first[: frames // 2], second[frames // 2 : frames]]))


def _video(name: str, path: Path, size: int) -> Clip:
    from scipy.io import loadmat

    frames: Pixels = np.moveaxis(loadmat(path)["orig"], 2, 0)[:, :size, :size].astype(np.float32)
    return Clip(name, frames / frames.mean())
