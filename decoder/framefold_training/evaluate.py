"""Scores on movies that no net was trained on: PSNR of the net, and of plainly averaging the B noisy frames, its honest rival.

Notable: averaging has all electrons where a coded snapshot has a quarter, so at low dose and slow motion it is hard to beat;
the clips are told apart by how fast they move. The peak is the clean clip's maximum. The last line printed is JSON.

    python -m framefold_training.evaluate training-runs/fast [--ratio 20] [--kind balanced --density 0.25]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_protocol.masks import MaskKind, MaskSpec, derive_masks
from framefold_protocol.model import SNAPSHOTS
from framefold_simulator import Movie, MovieSpec
from framefold_training import simulate
from framefold_training.checkpoint import load_net
from framefold_training.data import Batch, fold
from framefold_training.dice import Dice
from framefold_training.model import MULTIPLE
from framefold_training.tiers import AnyNet

DOSES = (5.0, 20.0, 100.0)
"""Mean e-/px of the scored clips."""

SIMULATED_SIDE = 512
"""Pixels, of the virtual microscope's frames that clips are cut from."""

PACES = {"still": 0.0, "slow": 0.1, "fast": 1.0}
"""Procedural clips by their speed in pixels per frame."""

Array = npt.NDArray[np.float32]
Reconstruct = Callable[[Batch], Tensor]
"""A batch's inputs -> frames (n, B, H, W), divided by the level."""


@dataclass(frozen=True)
class Score:
    """One row of a model card."""

    data: str
    ratio: int
    dose: float
    method: str
    psnr_db: float


def psnr(frames: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip; the peak is the truth's maximum."""
    error = float(((frames.double() - truth.double()) ** 2).mean())
    return float(10 * np.log10(float(truth.max()) ** 2 / max(error, 1e-12)))


def clips(ratio: int, size: int, simulator_seeds: int, scenes: int) -> Iterator[tuple[str, Array]]:
    """(name, clean clip (SNAPSHOTS * B, size, size) of mean about 1): the virtual microscope, and some scenes of each pace."""
    for seed in range(simulator_seeds):
        movie = Movie(MovieSpec(shape=(SIMULATED_SIDE, SIMULATED_SIDE), dose=1.0, seed=seed))
        corner = slice((SIMULATED_SIDE - size) // 2, (SIMULATED_SIDE + size) // 2)
        yield f"simulator seed {seed}", movie.clean(0, SNAPSHOTS * ratio)[:, corner, corner]
    for pace, speed in PACES.items():
        for seed in range(scenes):
            rng = np.random.default_rng([seed, len(pace), 9])  # two numbers make the pool's seeds, three these
            clip = simulate.movie(rng, SNAPSHOTS * ratio, size, speed)
            yield f"{pace} scene {seed}", clip / clip.mean()


def folded(clip: Array, spec: MaskSpec, seed: int, masks_in: Path | None = None) -> Batch:
    """A clean clip (SNAPSHOTS * B, H, W) of expected electrons as a net is fed it, without read noise: a batch of one.

    `masks_in` is the folder of a mask file."""
    masks = torch.from_numpy(derive_masks(spec, (clip.shape[1], clip.shape[2]), masks_in).window().astype(np.float32))[None]
    exposures = masks.sum(1, keepdim=True).expand(-1, SNAPSHOTS, -1, -1).contiguous()
    dice = Dice(torch.device("cpu"), seed)
    return fold(torch.from_numpy(clip)[None], masks, exposures, dice, torch.zeros(1), torch.ones(1))


def score(
    reconstruct: Reconstruct,
    name: str,
    clip: Array,
    spec: MaskSpec,
    doses: tuple[float, ...] = DOSES,
    masks_in: Path | None = None,
) -> list[Score]:
    """The net and the plain mean on one clip, folded by the masks, at each dose."""
    rows = []
    for dose in doses:
        batch = folded(clip * np.float32(dose), spec, round(dose), masks_in)
        counts = torch.poisson(batch.frames / batch.noise, generator=torch.Generator().manual_seed(0))
        mean = counts.mean(1, keepdim=True) * batch.noise
        rows.append(Score(name, spec.ratio, dose, "net", psnr(reconstruct(batch), batch.frames)))
        rows.append(Score(name, spec.ratio, dose, "mean of frames", psnr(mean, batch.frames)))
    return rows


def of_net(net: AnyNet) -> Reconstruct:
    """A torch net as a `Reconstruct`, in full precision."""
    device = next(net.parameters()).device

    def reconstruct(batch: Batch) -> Tensor:
        with torch.no_grad():
            return net(*(one.to(device) for one in batch.inputs.values())).cpu()  # type: ignore[no-any-return]

    return reconstruct


def of_file(path: Path) -> Reconstruct:
    """An ONNX file, run on the CPU."""
    import onnxruntime  # training needs none

    if not path.is_file():
        raise ModelError(f"{path}: no such model", hint="Name an exported .onnx file, or the folder of a run")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def reconstruct(batch: Batch) -> Tensor:
        return torch.from_numpy(session.run(["frames"], {name: one.numpy() for name, one in batch.inputs.items()})[0])

    return reconstruct


def summary(rows: list[Score]) -> list[Score]:
    """Mean over clips of one kind (the name's first word), per ratio, dose and method."""
    groups: dict[tuple[str, int, float, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row.data.split()[0], row.ratio, row.dose, row.method), []).append(row.psnr_db)
    return [Score(*key, round(float(np.mean(values)), 2)) for key, values in groups.items()]


@cache
def _few_clips(ratio: int) -> list[tuple[str, Array]]:
    return list(clips(ratio, 160, 2, 3))


def validate(net: AnyNet, ratio: int, spec: MaskSpec | None = None) -> dict[str, float]:
    """A few scores of a net in training, by a name that ends in `, dB`."""
    masks = replace(spec or MaskSpec(), ratio=ratio)
    rows = [row for name, clip in _few_clips(ratio) for row in score(of_net(net), name, clip, masks)]
    return {f"{row.data} {row.dose:g} e-/px, dB": row.psnr_db for row in summary(rows) if row.method == "net"}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a run, or an ONNX file")
    parser.add_argument("--ratio", type=int, default=20, help="frames per snapshot")
    parser.add_argument("--kind", choices=[kind for kind in get_args(MaskKind) if kind != "file"], default="balanced")
    parser.add_argument("--density", type=float, default=0.25, help="of the masks")
    parser.add_argument("--size", type=int, default=256, help="side of the clips in pixels, a multiple of 8")
    parser.add_argument("--simulator-seeds", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=6, help="procedural clips of each pace")
    given = parser.parse_args(arguments)
    if given.size % MULTIPLE or not 0 < given.size <= SIMULATED_SIDE:
        raise FramefoldError(f"size is {given.size}, expected a multiple of {MULTIPLE} up to {SIMULATED_SIDE}")
    reconstruct = of_file(given.model) if given.model.suffix == ".onnx" else of_net(load_net(given.model))
    spec = MaskSpec(given.kind, given.ratio, given.density)
    rows: list[Score] = []
    for name, clip in clips(given.ratio, given.size, given.simulator_seeds, given.scenes):
        rows += score(reconstruct, name, clip, spec)
    for row in summary(rows):
        print(f"{row.data:24s} B {row.ratio:2d} {row.dose:5g} e-/px  {row.method:15s} {row.psnr_db:6.2f} dB", flush=True)
    print(json.dumps([asdict(row) for row in summary(rows)]))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
