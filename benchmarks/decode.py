"""How fast frames come back: frames per second of each net and of GAP-TV, as the decoder runs them.

    python benchmarks/decode.py [--sides 512] [--providers cpu,openvino] [--precisions single,half] [--models NAME ...]
        [--json PATH]

What a frame costs: a net of c thousand multiply-adds per frame-pixel needs 2 c * 10^3 operations for each pixel, so a core
that does 10^11 a second in convolutions makes 10^11 / (2 c * 10^3 * 512^2) frames of 512 x 512 a second at most: 190 / c. Large
frames go through in tiles, so frames per second fall with their pixels and little more. On a GPU ask for `--providers cuda
--sides 512,2048,4096 --precisions single,half`; the PSNR beside each speed tells what half precision costs.

Snapshots are the simulator's at 20 e-/px, each with two neighbours on both sides, folded by the default masks, or by
families that change from block to block (`mixed`). Speeds are medians of `--rounds` snapshots after one that is not counted.
Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from common_parts.document import command, machine, publish
from common_parts.table import table
from framefold_decoder.quality import psnr
from framefold_decoder.reconstruct.base import FoldedGroup, Reconstructor
from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_decoder.reconstruct.onnx_runtime import Precision, Provider
from framefold_decoder.reconstruct.registry import Registry
from framefold_encoder.folding import Folder
from framefold_protocol.coding import Coding, block_map_shape
from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_protocol.noise import NoiseModel
from framefold_simulator.movie import Movie, MovieSpec

DOSE = 20.0
NOISE = NoiseModel(counts_per_electron=1.0)
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """Groups in a row, and the truth of the middle one."""

    groups: list[FoldedGroup]
    truth: npt.NDArray[np.float32]


def case(side: int, ratio: int, *, mixed: bool) -> Case:
    """Folded frames of `side` x `side` pixels; `mixed`: three families, in turn from block to block."""
    movie = Movie(MovieSpec((side, side), DOSE, loop=SNAPSHOTS * ratio))
    specs = [MaskSpec(ratio=ratio)]
    block_map = None
    if mixed:
        specs += [MaskSpec(ratio=ratio, density=0.5), MaskSpec(ratio=ratio, density=1.0)]
        block_map = (np.add.outer(*map(np.arange, block_map_shape((side, side)))) % 3).astype(np.uint8)
    coding = Coding(tuple(derive_masks(spec, (side, side)) for spec in specs), block_map)
    folder = Folder(coding.families, movie.dtype)
    sums = [folder.fold(movie.counts(k * ratio, (k + 1) * ratio), block_map) for k in range(SNAPSHOTS)]
    return Case([FoldedGroup(one, coding) for one in sums], movie.clean(REACH * ratio, (REACH + 1) * ratio))


def measure(reconstructor: Reconstructor, one: Case, rounds: int) -> tuple[Row, npt.NDArray[np.float32]]:
    """Frames per second, and the frames."""
    seen = one.groups[REACH], one.groups[:REACH][::-1], one.groups[REACH + 1 :]
    frames = reconstructor.reconstruct(*seen, NOISE)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        reconstructor.reconstruct(*seen, NOISE)
        seconds.append(time.perf_counter() - start)
    took = statistics.median(seconds)
    return {"frames_per_s": len(frames) / took, "provider": reconstructor.provider}, frames


def rows_of(options: argparse.Namespace, provider: Provider, precision: Precision) -> list[Row]:
    """All models on one provider at one precision."""
    registry = Registry(options.folder, provider=provider, precision=precision, threads=options.threads)
    rows = []
    for side, ratio in product(options.sides, options.ratio):
        for mixed in (False, True):
            one = case(side, ratio, mixed=mixed)
            for name in options.models or ["auto"]:
                reconstructor = registry.choose(name, one.groups[1].coding)
                found, frames = measure(reconstructor, one, options.rounds)
                row = {"model": reconstructor.name, "side": side, "ratio": ratio, "mixed": mixed, **found}
                if isinstance(reconstructor, OnnxNet):
                    # a snapshot costs the same whatever its B, and the card tells of B = 20
                    row["kmac_per_frame_pixel"] = reconstructor.card.kmac_per_frame_pixel * 20 / ratio
                row |= {"precision": precision, "psnr": psnr(frames, one.truth, float(one.truth.max()))}
                rows.append(row)
                print(json.dumps(row), file=sys.stderr)
    return rows


def card(rows: list[Row], machine: Row) -> str:
    """The rows as a table."""
    head = ("model", "frame", "B", "masks", "provider", "kMAC/px", "frames/s", "Mpx/s", "PSNR dB")
    cells = [
        (
            row["model"],
            f"{row['side']}x{row['side']}",
            str(row["ratio"]),
            "mixed" if row["mixed"] else "one family",
            row["provider"],
            f"{row.get('kmac_per_frame_pixel', 0):.1f}",
            f"{row['frames_per_s']:.1f}",
            f"{row['frames_per_s'] * row['side'] ** 2 / 1e6:.1f}",
            f"{row['psnr']:.2f}",
        )
        for row in rows
    ]
    return f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} before\n{table(head, cells)}"


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="Frames per second of reconstruction.")
    parser.add_argument("--models", nargs="*", default=[], help="names of models, gap-tv among them (default: auto)")
    parser.add_argument("--folder", type=Path, help="folder of further models, NAME.onnx with NAME.json")
    parser.add_argument("--sides", type=_whole_numbers, default="512", help="of the frames, pixels (default 512)")
    parser.add_argument("--ratio", type=_whole_numbers, default="20", help="frames per snapshot (default 20)")
    parser.add_argument("--providers", type=_some_of(Provider), default="auto", help=_several(Provider))
    parser.add_argument("--precisions", type=_some_of(Precision), default="auto", help=_several(Precision))
    parser.add_argument("--threads", type=int, default=0, help="0: as ONNX Runtime likes")
    parser.add_argument("--rounds", type=int, default=7, help="snapshots timed (default 7)")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    options = parser.parse_args()
    measured_on = machine()  # before the cores are busy
    try:
        rows = [row for one in product(options.providers, options.precisions) for row in rows_of(options, *one)]
    except FramefoldError as error:
        print(f"decode: {error}", file=sys.stderr)
        return 2
    print(card(rows, measured_on))
    publish({"command": command(), "machine": measured_on, "rows": rows}, options.json)
    return 0


def _whole_numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def _some_of(choices: Any) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        if unknown := {*text.split(",")} - {*get_args(choices)}:
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(get_args(choices))}")
        return text.split(",")

    return some


def _several(choices: Any) -> str:
    return f"of {', '.join(get_args(choices))}; several with commas (default auto)"


if __name__ == "__main__":
    sys.exit(main())
