"""From how much motion on a block is folded with which family: thresholds for `still_below`, tuned on training scenes alone.

    python benchmarks/policy.py [--movies 200] [--json PATH]

Training's own movies (of numbers that no training reaches, so that the net has not seen them either) are folded at random
doses and B by every family in turn; the net reconstructs each, and every block of 64x64 pixels tells its motion, as the encoder
sees it, and each family's error there; bytes are those of the family's whole snapshots. What a block costs is
10 log10(error) + 10 log10(bytes): one per cent more bytes must buy one per cent less error. The thresholds are those for which
the blocks cost least on average, every family by turns; half of the movies choose them, the other half say what they are worth.
No clip that quality is measured on is used.
Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common_parts.document import command, machine, publish
from common_parts.table import table
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.exposure import choose_families
from framefold_encoder.motion import motion
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.watch import Watch
from framefold_protocol.coding import BLOCK
from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_training.pool import PoolSpec, render
from quality_parts.adaptive import groups_of
from quality_parts.cells import NOISE
from quality_parts.folding import fold, neighbourhood

FAMILIES = (MaskSpec("one-hot"), MaskSpec(), MaskSpec(density=0.5), MaskSpec("ones"))
"""Sparse to dense: the order a policy goes through as motion falls."""
NAMES = ("one-hot", "balanced 0.25", "balanced 0.5", "ones")
FIRST_MOVIE = 10_000_000
SIDE = 3 * BLOCK
RATIOS = (10, 20, 30)
DOSES = (3.0, 200.0)
GRID = np.concatenate([[-1e6], np.geomspace(0.1, 3000, 91), [1e6]])
"""Thresholds that are tried; the first is under all motion, the last above all."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """What many blocks of many groups tell."""

    motion: Floats
    """(n,), with what the groups before and the blocks around tell."""
    alone: Floats
    """(n,), told by the group and the block alone."""
    cost: Floats
    """(n, families) in dB."""
    dose: Floats
    """(n,) e-/px and frame."""

    def part(self, chosen: npt.NDArray[np.bool_]) -> Blocks:
        """Some of them."""
        return Blocks(self.motion[chosen], self.alone[chosen], self.cost[chosen], self.dose[chosen])

    def worth(self, below: tuple[float, ...], families: tuple[int, ...]) -> float:
        """Mean cost in dB when motion chooses among some of the families, sparse to dense, by thresholds."""
        chosen = choose_families(self.motion.astype(np.float32), below)
        return float(np.take_along_axis(self.cost[:, families], chosen[:, None].astype(int), 1).mean())


def look(number: int, registry: Registry, model: str) -> Blocks:
    """The blocks of one movie's group, with its neighbours, at a dose and B of its own."""
    rng = np.random.default_rng([number, 5])
    ratio, dose = int(rng.choice(RATIOS)), float(np.exp(rng.uniform(*np.log(DOSES))))
    whole = render(PoolSpec(frames=SNAPSHOTS * max(RATIOS), side=SIDE), FIRST_MOVIE + number)
    clean, scored = whole[: SNAPSHOTS * ratio].astype(np.float32), slice(REACH * ratio, (REACH + 1) * ratio)
    expected = clean * np.float32(dose / clean.mean())
    counts = rng.poisson(expected).astype(np.uint16)
    costs = []
    for spec in FAMILIES:
        folded = fold(counts, [derive_masks(spec.with_ratio(ratio), (SIDE, SIDE))])
        seen = neighbourhood(folded.groups, REACH)
        error = (registry.choose(model, seen[0].coding).reconstruct(*seen, NOISE) - expected[scored]) ** 2
        costs.append(10 * np.log10(_blocks(error).mean(axis=(0, 2, 4)) + 1e-9) + 10 * np.log10(folded.sent_bytes))
    watch = Watch((SIDE, SIDE), EncoderSettings().still_below)
    for group in groups_of(counts[: scored.stop], ratio):
        alone = motion(group, row=watch.row)
        moved = watch.add(alone, ratio)
    told = (one.ravel().astype(float) for one in (moved, alone))
    return Blocks(*told, np.stack([one.ravel() for one in costs], 1), np.full(moved.size, dose))


def tune(blocks: Blocks, families: tuple[int, ...]) -> tuple[float, ...]:
    """Falling thresholds of least cost, by turns until none changes."""
    below = [float(GRID[len(GRID) // 2])] * (len(families) - 1)
    while True:
        before = list(below)
        for k in range(len(below)):
            high = below[k - 1] if k else np.inf
            low = below[k + 1] if k + 1 < len(below) else -np.inf
            tried = [float(one) for one in GRID if low <= one <= high]
            below[k] = min(tried, key=lambda one: blocks.worth((*below[:k], one, *below[k + 1 :]), families))
        if below == before:
            return tuple(below)


def _blocks(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(B, rows, 64, columns, 64)."""
    return images.reshape(len(images), SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK)


def report(blocks: Blocks, halves: tuple[Blocks, Blocks]) -> list[dict[str, Any]]:
    """What each choice of families is worth on the half that did not choose its thresholds, dB below the default family."""
    learned, kept = halves
    default = kept.cost[:, NAMES.index("balanced 0.25")].mean()
    rows: list[dict[str, Any]] = [
        {"policy": name, "below": [], "gain": default - kept.cost[:, k].mean()} for k, name in enumerate(NAMES)
    ]
    for families in ((1, 2, 3), (0, 1, 2, 3), (0, 2, 3), (1, 3)):
        below = tune(learned, families)
        gain = default - kept.worth(below, families)
        rows.append({"policy": ", ".join(NAMES[k] for k in families), "below": below, "gain": gain})
    by_itself, shipped = [replace(half, motion=half.alone) for half in halves], EncoderSettings().still_below
    below = tune(by_itself[0], (1, 2, 3))
    gain = default - by_itself[1].worth(below, (1, 2, 3))
    rows.append({"policy": "the same, told by each block of each group alone", "below": below, "gain": gain})
    rows.append({"policy": "as shipped", "below": shipped, "gain": default - kept.worth(shipped, (1, 2, 3))})
    rows.append({"policy": "the best for every block", "below": [], "gain": default - kept.cost.min(axis=1).mean()})
    return rows


def main() -> int:
    """Run the study; returns its exit status."""
    parser = argparse.ArgumentParser(description="Thresholds of content-adaptive exposure, tuned on training scenes.")
    parser.add_argument("--movies", type=int, default=200)
    parser.add_argument("--model", default="auto", help="reconstruct with: auto, or a model's name")
    parser.add_argument("--models", type=Path, help="folder of further models, NAME.onnx with NAME.json")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    given = parser.parse_args()
    try:
        registry = Registry(given.models, provider="cpu")
        registry.check(given.model)
        seen = []
        for number in range(given.movies):
            seen.append(look(number, registry, given.model))
            print(f"\r{number + 1} of {given.movies} movies", end="", file=sys.stderr)
    except FramefoldError as error:
        print(f"policy: {error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    movie = np.repeat(np.arange(len(seen)), [len(one.motion) for one in seen])
    blocks = Blocks(*(np.concatenate([getattr(one, name) for one in seen]) for name in ("motion", "alone", "cost", "dose")))
    rows = report(blocks, (blocks.part(movie % 2 == 0), blocks.part(movie % 2 == 1)))
    lines = [[row["policy"], ", ".join(f"{one:.3g}" for one in row["below"]), f"{row['gain']:+.2f}"] for row in rows]
    print(
        f"{len(blocks.motion)} blocks\n"
        + table(["policy", "motion below", "dB over balanced 0.25, bytes counted"], lines, left=2)
    )
    publish({"command": command(), "machine": machine(), "rows": rows}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
