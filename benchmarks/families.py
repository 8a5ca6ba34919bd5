"""Which masks for the net that ships: every family alone, and content-adaptive exposure, at equal wire bytes.

    python benchmarks/families.py [--doses 5,20,100] [--size 192] [--json PATH]

More ones in the masks bring more electrons and cost bytes: their shot noise must be sent. So every contender gets the smallest
B, up to 32, at which its snapshots take at most half a per cent more bytes per frame than the reference's (balanced, density
1/4, B = 20), lossless and at half a sigma both (`bits_per_pixel` tells which do not get there); the group that is scored has
the same frame in its middle, and neighbours, as in a stream. `other tiles beside` is the reference with masks of another seed
in the neighbouring groups: a net that is told the neighbours' snapshots but not their masks should not mind.

One net reconstructs all of it, for it takes any family; a net trained for each alone is `mask_study.py`'s. Clips and scores are
those of `quality.py`. Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from common_parts.document import command, machine, publish
from common_parts.table import table
from framefold_decoder.quality import psnr
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.settings import EncoderSettings
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH, SNAPSHOTS
from quality_parts.adaptive import block_maps
from quality_parts.cells import NOISE
from quality_parts.clips import BUILT_IN, Clip, load
from quality_parts.folding import Folded, fold, neighbourhood
from quality_parts.to_bytes import fewest_frames

RATIOS = (4, 32)
REFERENCE = 20
CODERS = {"lossless": None, "half-sigma": VarianceStabilised(gain=1.0, step=0.5)}
Counts = npt.NDArray[np.unsignedinteger]
Row = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """How groups are folded."""

    name: str
    specs: tuple[MaskSpec, ...]
    """Of any B. Several: the block map chooses."""
    beside: MaskSpec | None = None
    """Of the neighbours, where it is another."""


def contenders() -> list[Contender]:
    """The reference first."""
    plain = MaskSpec()
    single = [plain, MaskSpec(density=0.5), MaskSpec("ones"), MaskSpec("one-hot"), MaskSpec("random")]
    names = ["balanced 0.25", "balanced 0.5", "ones", "one-hot", "random 0.25"]
    adaptive = EncoderSettings(adaptive=True).families
    return [
        *(Contender(name, (spec,)) for name, spec in zip(names, single, strict=True)),
        Contender("adaptive", adaptive),
        Contender("other tiles beside", (plain,), MaskSpec(seed=1)),
    ]


def folded(counts: Counts, one: Contender, coder: VarianceStabilised | None) -> Folded:
    """`SNAPSHOTS` groups; their bytes are those of the middle one."""
    ratio, shape = len(counts) // SNAPSHOTS, (counts.shape[1], counts.shape[2])
    families = [derive_masks(spec.with_ratio(ratio), shape) for spec in one.specs]
    groups = np.split(counts, SNAPSHOTS)
    maps = block_maps(groups) if len(families) > 1 else None
    around = families if one.beside is None else [derive_masks(one.beside.with_ratio(ratio), shape)]
    found = [
        fold(group, families if k == REACH else around, coder, None if maps is None else maps[k : k + 1])
        for k, group in enumerate(groups)
    ]
    return replace(found[REACH], groups=[group for one_group in found for group in one_group.groups])


def around_middle(frames: npt.NDArray[Any], ratio: int) -> npt.NDArray[Any]:
    """`SNAPSHOTS` groups, of which the middle one has the clip's middle frame in its middle."""
    first = len(frames) // 2 - (SNAPSHOTS * ratio) // 2
    return frames[first : first + SNAPSHOTS * ratio]


def measure(clip: Clip, dose: float, registry: Registry, model: str) -> list[Row]:
    """A row a coder and contender."""
    expected, counts = clip.take(dose)
    peak, rows = float(expected.max()), list[Row]()
    for coder, quantisation in CODERS.items():
        allowed = 0.0
        for one in contenders():

            def fold_at(ratio: int, one: Contender = one, quantisation: VarianceStabilised | None = quantisation) -> Folded:
                return folded(around_middle(counts, ratio), one, quantisation)

            same = one.beside is not None or not allowed
            ratio, groups = (REFERENCE, fold_at(REFERENCE)) if same else fewest_frames(fold_at, allowed, RATIOS)
            allowed = allowed or groups.bytes_per_frame * 1.005
            seen = neighbourhood(groups.groups, REACH)
            net = registry.choose(model, seen[0].coding)
            frames = net.reconstruct(*seen, NOISE)
            truth = around_middle(expected, ratio)[REACH * ratio : (REACH + 1) * ratio]
            told = {"clip": clip.name, "dose": dose, "coder": coder, "masks": one.name, "ratio": ratio, "model": net.name}
            bits = 8 * groups.bytes_per_frame / frames[0].size
            rows.append({**told, "bits_per_pixel": bits, "psnr": psnr(frames, truth, peak)})
    return rows


def gains(rows: Sequence[Row]) -> list[Row]:
    """Per clip and coder, means over doses: the single family that is best there, and what adaptive exposure adds to it."""
    found = []
    for clip, coder in dict.fromkeys((row["clip"], row["coder"]) for row in rows):
        mine = [row for row in rows if (row["clip"], row["coder"]) == (clip, coder)]
        means = {name: mean(row["psnr"] for row in mine if row["masks"] == name) for name in {row["masks"] for row in mine}}
        adaptive, plain = means.pop("adaptive"), contenders()[0].name
        beside = means.pop("other tiles beside") - means[plain]
        best = max(means, key=lambda name: means[name])
        over = {"over_best": adaptive - means[best], "over_plain": adaptive - means[plain], "other_tiles": beside}
        found.append({"clip": clip, "coder": coder, "best": best, **over})
    return found


def card(rows: Sequence[Row], gained: Sequence[Row]) -> str:
    """PSNR by clip and dose with each contender's B, then the gains."""
    names = [one.name for one in contenders()]
    lines = []
    for key in dict.fromkeys((row["clip"], row["dose"], row["coder"]) for row in rows):
        mine = {row["masks"]: row for row in rows if (row["clip"], row["dose"], row["coder"]) == key}
        cells = [f"{mine[name]['psnr']:.2f} ({mine[name]['ratio']})" for name in names]
        lines.append([key[0], key[2], f"{key[1]:g}", f"{mine[names[0]]['bits_per_pixel']:.3f}", *cells])
    summary = [
        [one["clip"], one["coder"], one["best"], *(f"{one[name]:+.2f}" for name in ("over_best", "over_plain", "other_tiles"))]
        for one in gained
    ]
    head = ["clip", "coder", "best single family", "adaptive over it", "over the default", "other tiles beside"]
    return "\n\n".join(
        [
            "PSNR in dB (B) at equal bytes\n" + table(["clip", "coder", "e-/px", "bits/px", *names], lines, left=2),
            "Means over doses, dB\n" + table(head, summary, left=3),
        ]
    )


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="Mask families and adaptive exposure at equal bytes, by the net that ships.")
    parser.add_argument("--clips", nargs="*", default=[], help=f"of {', '.join(BUILT_IN)}, and paths of clean recordings")
    parser.add_argument("--doses", default="5,20,100", help="e-/px and frame")
    parser.add_argument("--size", type=int, default=192, help="side of the clips in pixels")
    parser.add_argument("--model", default="auto", help="reconstruct with: auto, or a model's name")
    parser.add_argument("--models", type=Path, help="folder of further models, NAME.onnx with NAME.json")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    given = parser.parse_args()
    recordings = os.environ.get("FRAMEFOLD_EVALUATION_DATA")
    recorded = [str(Path(recordings) / "em" / "twip_8um.tif")] if recordings else []
    rows: list[Row] = []
    try:
        registry = Registry(given.models, provider="cpu")
        registry.check(given.model)
        for name in given.clips or [*BUILT_IN, *recorded]:
            clip = load(name, SNAPSHOTS * RATIOS[1], given.size)
            for dose in map(float, given.doses.split(",")):
                print(f"{clip.name}, {dose:g} e-/px", file=sys.stderr)
                rows += measure(clip, dose, registry, given.model)
    except FramefoldError as error:
        print(f"families: {error}", file=sys.stderr)
        return 2
    gained = gains(rows)
    print(card(rows, gained))
    publish({"command": command(), "machine": machine(), "rows": rows, "gains": gained}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
