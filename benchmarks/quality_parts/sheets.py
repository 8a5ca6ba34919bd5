"""Image sheets, for the eye: one frame of each clip, as it was, as delivered, and as it came back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from framefold_decoder.quality import psnr
from framefold_protocol.model import REACH
from quality_parts.cells import NOISE, Cell
from quality_parts.codecs import codecs, tune
from quality_parts.folding import neighbourhood
from quality_parts.framefold import Nets
from quality_parts.noisy import Seen

Image = npt.NDArray[np.floating]
DIFFERENCE = 4
"""Times larger than life."""


def truth_sheet(cells: Sequence[Cell], nets: Nets, path: Path) -> None:
    """Truth, noisy, JPEG, mean, framefold, and framefold less truth: a row a cell, the group's first frame."""
    head = ("truth", "one noisy frame", "JPEG, as many bytes", "mean of B", "framefold", f"framefold - truth, x {DIFFERENCE}")
    figure = Figure(figsize=(2.1 * len(head), 2.35 * len(cells)), layout="constrained")
    for line, cell in zip(figure.subplots(len(cells), len(head), squeeze=False), cells, strict=True):
        seen = neighbourhood(cell.lossless.groups, REACH)
        frame = nets.registry.choose(nets.model, seen[0].coding).reconstruct(*seen, NOISE)[0]
        first = cell.middle.start
        truth, noisy = cell.truth[0], cell.counts[first]
        jpeg = tune(codecs()[0], cell.counts, cell.lossless.sent_bytes).frames[first]
        mean = cell.counts[cell.middle].mean(axis=0)
        low, high = np.percentile(truth, (0.5, 99.5))
        for axes, image, title in zip(line, (truth, noisy, jpeg, mean, frame), head, strict=False):
            score = "" if image is truth else f", {psnr(image[None], truth[None], cell.peak):.1f} dB"
            _show(axes, image, low, high, title + score)
        _show(line[-1], DIFFERENCE * (frame - truth), -(high - low) / 2, (high - low) / 2, head[-1])
        line[0].set_ylabel(f"{cell.clip.name}, {cell.dose:g} e⁻/px\nB = {cell.ratio}", fontsize=8)
    figure.savefig(path, dpi=110)


def noisy_sheet(seen: Sequence[Seen], path: Path) -> None:
    """One frame as delivered, the mean of its group, and framefold's frame: a row a recording without a known truth."""
    head = ("one frame, as delivered", "mean of B", "framefold", "mean of framefold's B frames")
    figure = Figure(figsize=(2.4 * len(head), 2.6 * len(seen)), layout="constrained")
    for line, one in zip(figure.subplots(len(seen), len(head), squeeze=False), seen, strict=True):
        images = one.delivered[0], one.delivered.mean(axis=0), one.frames[0], one.frames.mean(axis=0)
        low, high = np.percentile(images[1], (0.5, 99.5))
        for axes, image, title in zip(line, images, head, strict=True):
            _show(axes, image, low, high, title)
        line[0].set_ylabel(f"{one.name}, B = {len(one.frames)}", fontsize=8)
    figure.savefig(path, dpi=110)


def _show(axes: mpl.axes.Axes, image: Image, low: float, high: float, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.set(xticks=[], yticks=[])
