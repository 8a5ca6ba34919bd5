"""Scores on movies that no net was trained on: PSNR of the net, and of plainly averaging the B noisy frames, its honest rival.

Notable: averaging has all electrons where a coded snapshot has a quarter, so at low dose and slow motion it is hard to beat.
The peak is the clean clip's maximum. The last line printed is JSON.

    python -m framefold_training.evaluate training-runs/b20
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_simulator import Movie, MovieSpec
from framefold_training import simulate
from framefold_training.checkpoint import load_net
from framefold_training.data import Array, Batch, fold
from framefold_training.model import Net

DOSES = (5.0, 20.0, 100.0)
"""Mean e-/px of the scored clips."""

Reconstruct = Callable[[Batch], Array]
"""A batch's inputs -> frames (n, B, H, W), divided by the level."""


@dataclass(frozen=True)
class Score:
    """One row of a model card."""

    data: str
    dose: float
    method: str
    psnr_db: float


def psnr(frames: Array, truth: Array) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip; the peak is the truth's maximum."""
    error = float(np.mean((frames.astype(np.float64) - truth) ** 2))
    return float(10 * np.log10(float(truth.max()) ** 2 / max(error, 1e-12)))


def clips(ratio: int, size: int, simulator_seeds: int, scenes: int) -> Iterator[tuple[str, Array]]:
    """(name, clean clip (3 B, size, size) of mean about 1): the virtual microscope at its defaults, and procedural scenes."""
    for seed in range(simulator_seeds):
        movie = Movie(MovieSpec(shape=(512, 512), dose=1.0, seed=seed))
        corner = slice((512 - size) // 2, (512 + size) // 2)
        yield f"simulator seed {seed}", movie.clean(0, 3 * ratio)[:, corner, corner]
    for seed in range(scenes):
        clip = simulate.movie(np.random.default_rng([seed, 9]), 3 * ratio, size)  # 9: not a series that `data` draws from
        yield f"procedural scene {seed}", clip / clip.mean()


def score(reconstruct: Reconstruct, name: str, clip: Array, doses: tuple[float, ...] = DOSES) -> list[Score]:
    """The net and the plain mean on one clip, folded by the shipping masks, at each dose."""
    rows, ratio = [], len(clip) // 3
    masks = derive_masks(MaskSpec(ratio=ratio), (clip.shape[1], clip.shape[2])).window()
    for dose in doses:
        rng = np.random.default_rng(round(dose))
        batch = fold(clip * np.float32(dose), masks, rng)
        truth = batch.frames[0]
        mean = rng.poisson(truth / batch.noise).mean(0, keepdims=True) * batch.noise
        rows.append(Score(name, dose, "net", psnr(reconstruct(batch)[0], truth)))
        rows.append(Score(name, dose, "mean of frames", psnr(mean, truth)))
    return rows


def of_net(net: Net) -> Reconstruct:
    """A torch net as a `Reconstruct`, in full precision."""
    device = next(net.parameters()).device

    def reconstruct(batch: Batch) -> Array:
        with torch.no_grad():
            frames = net(*(torch.from_numpy(a).to(device) for a in batch.inputs().values()))
        result: Array = frames.cpu().numpy()
        return result

    return reconstruct


def of_file(path: Path) -> Reconstruct:
    """An ONNX file, run on the CPU."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def reconstruct(batch: Batch) -> Array:
        result: Array = session.run(["frames"], batch.inputs())[0]
        return result

    return reconstruct


def summary(rows: list[Score]) -> list[Score]:
    """Mean over clips of one kind (the name's first word), per dose and method."""
    groups: dict[tuple[str, float, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row.data.split()[0], row.dose, row.method), []).append(row.psnr_db)
    return [Score(*key, round(float(np.mean(values)), 2)) for key, values in groups.items()]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a run, or an ONNX file")
    parser.add_argument("--ratio", type=int, default=20, help="frames per snapshot")
    parser.add_argument("--size", type=int, default=256, help="side of the clips in pixels, a multiple of 4")
    parser.add_argument("--simulator-seeds", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=8, help="procedural clips")
    given = parser.parse_args(arguments)
    reconstruct = of_file(given.model) if given.model.suffix == ".onnx" else of_net(load_net(given.model))
    rows: list[Score] = []
    for name, clip in clips(given.ratio, given.size, given.simulator_seeds, given.scenes):
        for row in score(reconstruct, name, clip):
            print(f"{row.data:24s} {row.dose:5g} e-/px  {row.method:15s} {row.psnr_db:6.2f} dB", flush=True)
            rows.append(row)
    print(json.dumps([asdict(row) for row in summary(rows)]))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
