"""From a checkpoint to what ships: `NAME.onnx` with its weights inside, checked against torch, and its card `NAME.json`.

The card says how the net was made (minutes, steps, data, git revision, versions), and how it scores on movies that it was
not trained on.

    python -m framefold_training.export training-runs/fast decoder/framefold_decoder/models/fast-1
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
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import SNAPSHOTS, ModelCard
from framefold_training.birnat import Birnat
from framefold_training.checkpoint import load_net, read_checkpoint
from framefold_training.data import DOSE_RANGE, Batch
from framefold_training.evaluate import Reconstruct, Score, clips, folded, of_file, of_net, score, summary
from framefold_training.exported import ANCESTRY, LEARNED
from framefold_training.model import MULTIPLE
from framefold_training.tiers import AnyNet, multiply_adds

COST_RATIO = 20
"""B of which a card tells the cost, or the nearest it takes: a net of any B costs the same for every snapshot."""
INPUTS = ("snapshots", "exposures", "masks", "noise")

TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime and torch, in units of the level, that still exports."""


def export(run: Path, target: Path, *, scored: bool = True) -> ModelCard:
    """Write `target`.onnx and `target`.json from the checkpoint in the folder `run`.

    Raises `ModelError` when the checkpoint cannot be used or ONNX Runtime does not answer as torch does.
    """
    net, path = load_net(run), target.with_name(target.name + ".onnx")
    progress = read_checkpoint(run).progress
    data = progress["spec"]["data"]
    ratios = (net.spec.ratio,) if isinstance(net, Birnat) else tuple(sorted(data["ratios"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(net, path, ratios)
    runtime = of_file(path)
    difference = largest_difference(net, runtime, ratios)
    if not difference < TOLERANCE:
        path.unlink()
        raise ModelError(
            f"{path} differs from torch by {difference}, expected below {TOLERANCE}", hint="Check the library versions"
        )
    families = data["masks"]["families"]
    card = ModelCard(
        name=target.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        ratios=ratios,
        mask_kinds=tuple(dict.fromkeys(["random"] * (data["masks"]["random"] > 0) + [one["kind"] for one in families])),
        densities=tuple(sorted({one["density"] for one in families})),
        dose_range=DOSE_RANGE,
        multiple=MULTIPLE,
        halo=net.spec.halo,
        parameters=sum(p.numel() for p in net.parameters()),
        kmac_per_frame_pixel=round(kmac_per_frame_pixel(net, min(ratios, key=lambda ratio: abs(ratio - COST_RATIO))), 2),
        training={**_provenance(run, progress), "onnx_against_torch": difference},
        scores=[asdict(row) for row in measure(runtime, ratios)] if scored else [],
    )
    card.write(target.with_name(target.name + ".json"))
    return card


def write_onnx(net: AnyNet, path: Path, ratios: tuple[int, ...]) -> None:
    """The net as one ONNX file; batch, size (in multiples of `MULTIPLE`) and, where there are several, B are dynamic."""
    n = torch.export.Dim("n", min=1, max=256)
    height, width = (MULTIPLE * torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    image = {0: n, 2: height, 3: width}
    coded = image if len(ratios) == 1 else {**image, 1: torch.export.Dim("ratio", min=2, max=256)}
    example = folded_example(ratios[-1], 32, 48, 2)
    with _quiet_exporter():
        torch.onnx.export(
            net,
            tuple(example.inputs.values()),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=list(INPUTS),
            output_names=["frames"],
            dynamic_shapes=(image, image, coded, {0: n}),
            verbose=False,
        )
    _forget_where(path)


def _forget_where(path: Path) -> None:
    """Take out where in whose source each operation came from: the exporter's notes name folders of this machine."""
    model = onnx.load(path)
    parts = (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output)
    for part in (*parts, *model.graph.initializer, *model.functions, *(node for f in model.functions for node in f.node)):
        del part.metadata_props[:]
    onnx.save(model, path)


def folded_example(ratio: int, height: int, width: int, count: int = 1) -> Batch:
    """Some noisy samples of a scene without much in it."""
    rng = np.random.default_rng(ratio)
    clip = (5 + rng.random((SNAPSHOTS * ratio, height, width)) * 20).astype(np.float32)
    batch = folded(clip, MaskSpec(ratio=ratio), 0)
    return Batch(*(one.expand(count, *one.shape[1:]).clone() for one in (*batch.inputs.values(), batch.frames)))


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


def largest_difference(net: AnyNet, runtime: Reconstruct, ratios: tuple[int, ...]) -> float:
    """Between torch and the file over sizes, batches and B, in units of the level."""
    largest = 0.0
    for ratio, (height, width, count) in zip(ratios[:1] + ratios[-1:], ((64, 64, 2), (72, 96, 1)), strict=False):
        batch = folded_example(ratio, height, width, count)
        largest = max(largest, float((runtime(batch) - of_net(net)(batch)).abs().max()))
    return largest


def measure(runtime: Reconstruct, ratios: tuple[int, ...]) -> list[Score]:
    """The card's scores: the file itself on 256 x 256 clips folded by the default masks, means per kind of movie."""
    chosen = [ratio for ratio in ratios if ratio in (10, 20, 30)] or [ratios[-1]]
    rows = [
        row
        for ratio in chosen
        for name, clip in clips(ratio, 256, 2, 4)
        for row in score(runtime, name, clip, MaskSpec(ratio=ratio))
    ]
    return summary(rows)


def kmac_per_frame_pixel(net: AnyNet, ratio: int) -> float:
    """Thousand multiply-adds of the convolutions per pixel of one of B frames."""
    with torch.no_grad():
        return multiply_adds(net, *folded_example(ratio, 64, 64).inputs.values()) / (64 * 64 * ratio) / 1000


def _provenance(run: Path, progress: dict[str, Any]) -> dict[str, Any]:
    """How the net was made, from its checkpoint and this machine."""
    spec = progress["spec"]
    atoms = spec["data"]["pool"]["atoms"]
    pool = spec["data"]["pool"] | {"atoms": Path(atoms).name if atoms else atoms}
    sources = "framefold_training.simulate, framefold_simulator from seed 1000000"
    return {
        "run": run.name,
        "minutes": round(progress["minutes"], 1),
        "steps": progress["step"],
        "device": spec["device"],
        "git_revision": _git_revision(),
        "data": {**spec["data"], "pool": pool, "sources": sources},
        "net": spec["net"],
        **{key: spec[key] for key in LEARNED if key in spec},
        **{key: progress[key] for key in ANCESTRY if key in progress},
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
        print(f"{row['data']:12s} B {row['ratio']:2d} {row['dose']:5g} e-/px  {row['method']:15s} {row['psnr_db']:6.2f} dB")
    print(json.dumps(asdict(card)))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
