"""Which masks: a decoder trained briefly for each, on equal terms, compared at equal wire bytes on still, slow and fast scenes.

    python benchmarks/mask_study.py --steps 1500 [--device cuda] [--runs training-runs/masks] [--json PATH]

A mask costs bytes as well as quality: the more frames it lets into a snapshot, the more shot noise must be sent, and random
bits send their own exposure too. So every mask gets the B at which its snapshots, packed as the encoder packs them, cost as
many bytes per frame as the reference (balanced, density 1/4, B = 20), at the dose of `--bytes-dose`; the wire ratios at the
other doses are printed. Two nets see one tile of the reference's density and no other: one that is learned with the net
(`framefold_training.learned_tile`), and one that stays as chance made it, which tells what knowing the tile is worth and what
learning it. All nets are of one tier, see the same movies, and train for the same number of steps from the same seed. The
period of the tile is then varied for the reference's net alone: nets see masks as an input. PSNR against the clean clip, peak
= its largest value; still, slow, fast: procedural scenes at 0, 0.1 and 1 pixel per frame; simulator: the virtual microscope at
its defaults.
Prints a card and, as the last line, one JSON document. Run again, it goes on where it was stopped; a learned tile begins anew.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common_parts.document import command, publish
from framefold_encoder.folding import Folder
from framefold_protocol import payload
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_simulator import Movie, MovieSpec
from framefold_training.checkpoint import load_net, read_checkpoint
from framefold_training.data import DataSpec
from framefold_training.evaluate import DOSES, clips, of_net, score, summary
from framefold_training.learned_tile import train_with_tile
from framefold_training.masks import Family, MaskMix
from framefold_training.pool import PoolSpec
from framefold_training.run import TrainSpec
from framefold_training.tiers import TIERS
from framefold_training.train import train

ONE_TILE = 16
"""Pixels of the tiles that a net sees no other than: every bit is seen often."""
REFERENCE = MaskSpec("balanced", 20, 0.25)
CANDIDATES = (
    REFERENCE,
    MaskSpec("balanced", 20, 0.125),
    MaskSpec("balanced", 20, 0.5),
    MaskSpec("random", 20, 0.25),
    MaskSpec("one-hot", 20),
    MaskSpec("ones", 20),
    MaskSpec("file", 20, 0.25, ONE_TILE, file="learned.npy"),
    MaskSpec("file", 20, 0.25, ONE_TILE, file="fixed.npy"),
)
PERIODS = (8, 16, 0)
"""Besides 64; 0: no repetition."""
LARGEST_RATIO = 32
Row = dict[str, Any]
Counts = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Terms:
    """What all nets of a study share."""

    steps: int
    device: str
    workers: int
    batch: int
    tier: str
    seed: int = 0


def bytes_per_frame(spec: MaskSpec, dose: float, masks_in: Path | None = None) -> float:
    """Packed bytes of one snapshot of the simulated test movie, over its frames."""
    counts = _counts(dose)[: spec.ratio]
    snapshot = Folder((derive_masks(spec, counts.shape[1:], masks_in),), counts.dtype).fold(counts)
    return len(payload.pack(snapshot).payload) / spec.ratio


@cache
def _counts(dose: float) -> Counts:
    return Movie(MovieSpec(shape=(512, 512), dose=dose, seed=0)).counts(0, LARGEST_RATIO)


def at_equal_bytes(spec: MaskSpec, dose: float) -> MaskSpec:
    """The mask with the smallest B that costs no more bytes per frame than the reference, or the largest B there is."""
    allowed = bytes_per_frame(REFERENCE, dose) * 1.005
    ratios = range(4, LARGEST_RATIO)  # bytes per frame fall with B
    place = bisect_left(ratios, True, key=lambda ratio: bytes_per_frame(spec.with_ratio(ratio), dose) <= allowed)
    return spec.with_ratio(ratios[place] if place < len(ratios) else LARGEST_RATIO)


def title(spec: MaskSpec) -> str:
    """How a mask is called in the table."""
    if spec.kind == "file":
        return f"{Path(spec.file).stem} {spec.density:g}"
    density = f" {spec.density:g}" if spec.kind in ("balanced", "random") else ""
    period = "" if spec.period == 64 else f" period {spec.period}"
    return f"{spec.kind}{density}{period}"


def train_for(spec: MaskSpec, terms: Terms, run: Path) -> None:
    """Train a net for these masks alone into the folder `run`."""
    family = Family(spec.kind, spec.density)
    mix = MaskMix((family,), (1.0,), mixed=0.0, random=float(spec.kind == "random"))
    data = DataSpec((spec.ratio,), batch=terms.batch, seed=terms.seed, masks=mix, pool=PoolSpec(seed=terms.seed))
    budget: dict[str, Any] = {"steps": terms.steps, "device": terms.device, "workers": terms.workers}
    training = TrainSpec(net=TIERS[terms.tier], data=data, scored=False, **budget)
    if spec.kind != "file":
        train(training, run)
    elif not (run / spec.file).exists() or read_checkpoint(run).progress["step"] < terms.steps:
        train_with_tile(training, run / spec.file, spec.ones_per_pixel, spec.period, learned=spec.file == "learned.npy")


def measure(spec: MaskSpec, run: Path, size: int, scenes: int) -> list[Row]:
    """Rows of the net in the folder `run` on every kind of scene and dose."""
    net = of_net(load_net(run))
    scores = [row for name, clip in clips(spec.ratio, size, 2, scenes) for row in score(net, name, clip, spec, masks_in=run)]
    wire = {dose: 512 * 512 * (1 if dose < 64 else 2) / bytes_per_frame(spec, dose, run) for dose in DOSES}
    return [
        {
            "mask": title(spec),
            "ratio": spec.ratio,
            "scene": row.data,
            "dose": row.dose,
            "wire_ratio": wire[row.dose],
            "psnr": row.psnr_db,
        }
        for row in summary(scores)
        if row.method == "net"
    ]


def print_card(rows: list[Row]) -> None:
    """The rows as a table: masks down, scenes and doses across."""
    columns = list(dict.fromkeys((row["scene"], row["dose"]) for row in rows))
    print(f"{'mask':<22}{'B':>3}{'wire at 20':>11}" + "".join(f"{scene[:9] + f' {dose:g}':>14}" for scene, dose in columns))
    for mask in dict.fromkeys(row["mask"] for row in rows):
        mine = {(row["scene"], row["dose"]): row for row in rows if row["mask"] == mask}
        first = mine[columns[0]]
        wire = next(row["wire_ratio"] for (_, dose), row in mine.items() if dose == 20)
        print(f"{mask:<22}{first['ratio']:>3}{wire:>11.1f}" + "".join(f"{mine[key]['psnr']:>14.2f}" for key in columns))


def main() -> int:
    """Run the study; returns its exit status."""
    parser = argparse.ArgumentParser(description="Masks compared at equal wire bytes, each with a decoder of its own.")
    parser.add_argument("--steps", type=int, default=1500, help="of the training of each net")
    parser.add_argument("--tier", default="fast", choices=sorted(TIERS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that render movies")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--bytes-dose", type=float, default=20.0, help="e-/px at which bytes are made equal")
    parser.add_argument("--masks", type=int, default=len(CANDIDATES), help="only the first of the masks")
    parser.add_argument("--size", type=int, default=192, help="side of the scored clips, a multiple of 8")
    parser.add_argument("--scenes", type=int, default=4, help="scored clips of each pace")
    parser.add_argument("--runs", type=Path, default=Path("training-runs/masks"), help="folder of the nets")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    given = parser.parse_args()
    terms = Terms(given.steps, given.device, given.workers, given.batch, given.tier)
    rows: list[Row] = []
    for candidate in CANDIDATES[: given.masks]:
        one_tile = candidate.kind == "file"  # it has as many ones as the reference
        spec = candidate if one_tile else at_equal_bytes(candidate, given.bytes_dose)
        run = given.runs / f"{title(spec).replace(' ', '-')}-b{spec.ratio}"
        train_for(spec, terms, run)
        rows += measure(spec, run, given.size, given.scenes)
        for period in PERIODS if candidate == REFERENCE else ():
            rows += measure(replace(spec, period=period), run, given.size, given.scenes)
    print_card(rows)
    publish({"command": command(), "terms": asdict(terms), "rows": rows}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
