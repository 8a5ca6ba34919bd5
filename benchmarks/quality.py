"""How good the frames are that come back, against everything that takes as many bytes: averaging, skipping, JPEG, HEVC, AV1.

    python benchmarks/quality.py [--clips ...] [--doses 5,20,100] [--ratios 10,20,30] [--json PATH] [--plots DIR]

A clean clip takes Poisson noise at a stated dose; every method sees the same counts and is scored against the clean truth. At a
dose of n electrons a pixel says little more than log2 sqrt(n) bits of the scene, however many bits a frame has. So at the same
bytes the rivals split into two: coders keep frames apart and must spend their bytes on the noise of each; averaging B frames
spends none on it and loses what moves. framefold is to beat both. Which bytes: those of framefold's lossless snapshots by its
default settings, and each rival is tuned to take no fewer (`quality_parts/codecs.py`). Methods: `quality_parts/framefold.py`,
`quality_parts/rivals.py`; scores: `quality_parts/scores.py`. PSNR = 10 log10(peak^2 / mse), peak = the clip's largest clean
value, over all frames of the middle one of five groups.

Clips are the simulated test set (`quality_parts/clips.py`) and clean recordings given by path. FRAMEFOLD_EVALUATION_DATA names
a folder of recordings: its `em/twip_8um.tif` is then one of the default clips, and tables of noisy recordings and of videos
unlike any training are added. BM3D and the video coders take most of the time; `--reuse` takes the rivals' rows from earlier
documents, for they do not change when a net does, and those of the reference net unless `--reference` names one. Needs the
extra `benchmarks`; a rival whose library is missing is left out with the reason. Prints a card and, as the last line, one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from common_parts.document import command, publish
from framefold_decoder.reconstruct.registry import Registry
from framefold_protocol.errors import FramefoldError
from quality_parts.card import card
from quality_parts.cells import GROUPS, Cell, Row, cell
from quality_parts.clips import BUILT_IN, load
from quality_parts.framefold import REFERENCES, Nets, framefold_rows
from quality_parts.noisy import noisy_rows
from quality_parts.rivals import OUTER_MARKS, SAME_BYTES, mark_rows, rival_rows
from quality_parts.unlike import unlike_rows
from quality_parts.verdict import verdicts

SHOWN = ("simulator-0", "fast", "twip_8um")
"""Clips on the image sheet."""


def measure(options: argparse.Namespace, nets: Nets, recordings: Path | None) -> dict[str, Any]:
    """All sections, one after the other."""
    names = options.clips or [*BUILT_IN, *([str(recordings / "em" / "twip_8um.tif")] if recordings else [])]
    reused = (*SAME_BYTES, *OUTER_MARKS, *([] if options.reference else REFERENCES))
    earlier = _earlier(options.reuse, reused)
    middle = sorted(options.ratios)[len(options.ratios) // 2]
    rows: list[Row] = []
    for name in names:
        clip = load(name, GROUPS * max(options.ratios), options.size)
        for dose in options.doses:
            for ratio in options.ratios:
                print(f"{clip.name}, {dose:g} e-/px, B = {ratio}", file=sys.stderr)
                rows += _cell_rows(cell(clip, dose, ratio), nets, earlier, marked=ratio == middle)
    seen = noisy_rows(nets, options.size, recordings) if recordings else ([], [])
    results = {
        "rows": rows,
        "verdicts": verdicts(rows),
        "unlike": unlike_rows(nets, middle, options.size, recordings),
        "noisy": seen[0],
    }
    if options.plots:
        from quality_parts import plots, sheets

        options.plots.mkdir(parents=True, exist_ok=True)
        plots.draw(rows, options.plots)
        dose = sorted(options.doses)[len(options.doses) // 2]
        shown = [name for name in names if Path(name).stem in SHOWN]
        cells = [cell(load(name, GROUPS * max(options.ratios), options.size), dose, middle) for name in shown or names[:1]]
        sheets.truth_sheet(cells, nets, options.plots / "quality-sheet.png")
        if seen[1]:
            sheets.noisy_sheet(seen[1], options.plots / "quality-noisy.png")
    return results


def _cell_rows(one: Cell, nets: Nets, earlier: dict[tuple[Any, ...], list[Row]], *, marked: bool) -> list[Row]:
    """Rows of framefold, of its rivals and, if `marked`, of the outer marks."""
    allowed = one.lossless.sent_bytes
    others = earlier.get((*one.key.values(), allowed)) or rival_rows(one)
    marks = earlier.get((one.clip.name, one.dose, 1, allowed)) or mark_rows(one) if marked else []
    return [{**row, "allowed_bytes": allowed} for row in (*framefold_rows(one, nets), *others, *marks)]


def _earlier(paths: list[Path], methods: tuple[str, ...]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of these methods in earlier documents, by cell and bytes; the last of each method."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in (row for path in paths for row in json.loads(path.read_text())["rows"]):
        if row["method"] in methods:
            cell_rows = found.setdefault((row["clip"], row["dose"], row["ratio"], row["allowed_bytes"]), {})
            cell_rows[row["method"]] = row
    return {key: list(cell_rows.values()) for key, cell_rows in found.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Quality of reconstructed frames, against rivals that take as many bytes.")
    parser.add_argument("--clips", nargs="*", default=[], help=f"of {', '.join(BUILT_IN)}, and paths of clean recordings")
    parser.add_argument("--doses", type=_numbers, default="5,20,100", help="e-/px and frame (default 5,20,100)")
    parser.add_argument("--ratios", type=_whole_numbers, default="10,20,30", help="frames per snapshot (default 10,20,30)")
    parser.add_argument("--size", type=int, default=160, help="side of the clips in pixels (default 160)")
    parser.add_argument("--model", default="auto", help="reconstruct with: auto, or a model's name (default auto)")
    parser.add_argument("--models", type=Path, help="folder of further models, NAME.onnx with NAME.json")
    parser.add_argument("--reference", help="name of a model to hold framefold's against, such as a BIRNAT-type net")
    parser.add_argument("--reuse", nargs="*", type=Path, default=[], help="documents of earlier runs: take the rivals' rows")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    parser.add_argument("--plots", type=Path, help="write plots and image sheets (PNG) into this folder")
    return parser.parse_args()


def _numbers(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


def _whole_numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> int:
    """Run the benchmark; returns its exit status."""
    options = _options()
    named = os.environ.get("FRAMEFOLD_EVALUATION_DATA")
    try:
        nets = Nets(Registry(options.models, provider="cpu"), options.model, options.reference)
        nets.registry.check(options.model)
        results = measure(options, nets, Path(named) if named else None)
    except FramefoldError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 2
    results = {"command": command(), "size": options.size, **results}
    print(card(results))
    publish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
