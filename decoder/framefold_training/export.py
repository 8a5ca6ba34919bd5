"""From a checkpoint to what ships: `NAME.onnx` with its weights inside, checked against torch, and its card `NAME.json`.

The card says how the net was made (command, minutes, git revision, versions) and how it scores on movies it was not trained on.

    python -m framefold_training.export training-runs/b20 decoder/framefold_decoder/models/first-light-b20
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import platform
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_protocol.model import ModelCard
from framefold_training.checkpoint import load_net, read_checkpoint
from framefold_training.data import DOSE_RANGE, MASK_CHOICES, Batches, DataSpec
from framefold_training.evaluate import Reconstruct, Score, clips, of_file, of_net, score, summary
from framefold_training.model import MULTIPLE, Net

INPUTS = ("snapshots", "exposures", "masks", "noise")

HALO = 16
"""Pixels at a tile's edge to throw away. As measured, the edge changes what is left by less than 1 % of the
frames' own error (root mean square), by 2 % right at the cut."""

TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime and torch, in units of the level, that still exports."""


def export(run: Path, target: Path, *, scored: bool = True) -> ModelCard:
    """Write `target`.onnx and `target`.json from the checkpoint in the folder `run`.

    Raises `ModelError` when the checkpoint cannot be used or ONNX Runtime does not answer as torch does.
    """
    net, path = load_net(run), target.with_name(target.name + ".onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(net, path)
    runtime = of_file(path)
    difference = largest_difference(net, runtime)
    if not difference < TOLERANCE:
        path.unlink()
        raise ModelError(
            f"{path} differs from torch by {difference}, expected below {TOLERANCE}", hint="Check the library versions"
        )
    scores = measure(runtime, net.spec.ratio) if scored else []
    card = ModelCard(
        name=target.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        ratios=(net.spec.ratio,),
        mask_kinds=tuple(dict.fromkeys(kind for kind, _, _ in MASK_CHOICES)),
        densities=tuple(sorted({density for _, density, _ in MASK_CHOICES})),
        dose_range=DOSE_RANGE,
        multiple=MULTIPLE,
        halo=HALO,
        parameters=sum(p.numel() for p in net.parameters()),
        kmac_per_frame_pixel=round(kmac_per_frame_pixel(net), 2),
        training={**_provenance(run), "onnx_against_torch": difference},
        scores=[asdict(row) for row in scores],
    )
    card.write(target.with_name(target.name + ".json"))
    return card


def write_onnx(net: Net, path: Path) -> None:
    """The net as one ONNX file; batch and size dynamic, the size in multiples of `MULTIPLE`."""
    n = torch.export.Dim("n", min=1, max=256)
    height, width = (MULTIPLE * torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    image = {0: n, 2: height, 3: width}
    example = (torch.rand(2, 3, 32, 48), torch.ones(2, 3, 32, 48), torch.ones(2, net.spec.ratio, 32, 48), torch.full((2,), 0.1))
    with _quiet_exporter():
        torch.onnx.export(
            net,
            example,
            str(path),
            dynamo=True,
            external_data=False,
            input_names=list(INPUTS),
            output_names=["frames"],
            dynamic_shapes=(image, image, image, {0: n}),
            verbose=False,
        )


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without torch's progress lines, its note that torchvision is missing, and its warnings about its own internals."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*The axis name.*", category=UserWarning)
            yield
    finally:
        log.setLevel(before)


def largest_difference(net: Net, runtime: Reconstruct) -> float:
    """Between torch and the file over sizes, batches and doses, in units of the level."""
    largest = 0.0
    for size, count in ((64, 2), (72, 1), (96, 3)):
        spec = DataSpec(ratio=net.spec.ratio, size=size, batch=count, procedural_movies=2, simulator_share=0)
        batch = Batches(spec).batch(0)
        largest = max(largest, float(np.abs(runtime(batch) - of_net(net)(batch)).max()))
    return largest


def measure(runtime: Reconstruct, ratio: int) -> list[Score]:
    """The card's scores: the file itself on 256 x 256 clips, means per kind of movie."""
    return summary([row for name, clip in clips(ratio, 256, 2, 8) for row in score(runtime, name, clip)])


def kmac_per_frame_pixel(net: Net) -> float:
    """Thousand multiply-adds of the convolutions per pixel of one frame."""
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel() * cast(nn.Conv2d, layer).weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    of_net(net)(Batches(DataSpec(ratio=net.spec.ratio, size=64, batch=1, procedural_movies=1, simulator_share=0)).batch(0))
    for hook in hooks:
        hook.remove()
    return total / (64 * 64 * net.spec.ratio) / 1000


def _provenance(run: Path) -> dict[str, Any]:
    """How the net was made, from its checkpoint and this machine."""
    state = read_checkpoint(run)
    spec, data = state["spec"], state["spec"]["data"]
    command = (
        f"python -m framefold_training.train --ratio {data['ratio']} --minutes {spec['minutes']:g} --device {spec['device']}"
        f" --batch {data['batch']} --workers {spec['workers']} --seed {data['seed']} --out {run}"
    )
    return {
        "command": command,
        "minutes": round(state["minutes"], 1),
        "steps": state["step"],
        "seed": data["seed"],
        "git_revision": _git_revision(),
        "data": {**data, "sources": "framefold_training.simulate, framefold_simulator from seed 1000000"},
        "net": spec["net"],
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }


def _git_revision() -> str:
    """The commit of the exporting checkout, with `+` when files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],  # noqa: S607 whichever git the user has
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("target", type=Path, help="the model's path without a suffix")
    given = parser.parse_args(arguments)
    card = export(given.run, given.target)
    for row in card.scores:
        print(f"{row['data']:12s} {row['dose']:5g} e-/px  {row['method']:15s} {row['psnr_db']:6.2f} dB")
    print(json.dumps(asdict(card)))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
