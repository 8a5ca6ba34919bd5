"""What is streamed: finite sources that give the same frames every time, and what a run without any fault stores of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framefold_decoder.catalogue import Catalogue, StreamRecord
from soak_parts.daemon import Daemon, SoakFailure
from soak_parts.ports import free_port

CALM_S = 180
"""How long a stream without faults may take."""


@dataclass(frozen=True)
class Scene:
    """A source, how it is folded, and the link it goes through."""

    name: str
    source: str
    options: tuple[object, ...] = ()
    """Of `framefold-encoder run`."""
    rate: float | None = None
    """Bytes per second of the link, so that streaming takes seconds in which something can happen."""
    frames: Path | None = None
    """The source's file (.npy), where masks go by what an encoder has seen since it was started: the snapshots that a restarted
    one sends are then not those of a run without faults, but must be the fold of these frames."""


@dataclass(frozen=True)
class Reference:
    """What a run without any fault stored."""

    data: Path
    """The decoder's data folder."""
    record: StreamRecord
    """What its catalogue says of it."""


def make_scenes(folder: Path, seed: int) -> tuple[Scene, ...]:
    """Every kind of message, of pixel and of pace: folded groups, raw ones, exact and near-lossless, at a camera's pace or a
    file's. Files are written into `folder`.

    But for one scene masks and gain are told, so that a restarted encoder folds as one that was never killed.
    """
    files = {
        "wide": _counts(folder / "wide.npy", (1503, 80, 96), np.uint16, 60, seed),
        "raw": _counts(folder / "raw.npy", (240, 40, 56), np.uint8, 12, seed + 1),
        "deep": _counts(folder / "deep.npy", (610, 48, 48), np.uint32, 3000, seed + 2),
        "short": _counts(folder / "short.npy", (7, 64, 64), np.uint8, 20, seed + 3),
    }
    told, binned = ("--no-adaptive", "--counts-per-electron", 1), ("--coder", "variance-stabilised")
    return (
        Scene("camera", f"sim:?shape=64x96&frames=804&rate=300&dose=20&seed={seed}", ("--ratio", 10, "--no-adaptive")),
        Scene("simulation", f"sim:?shape=64x64&frames=1815&rate=0&dose=30&seed={seed + 1}", ("--no-adaptive",), 100e3),
        Scene("wide", files["wide"], ("--ratio", 12, *told), 300e3),
        Scene("adaptive", files["wide"], ("--ratio", 12), 300e3, folder / "wide.npy"),
        Scene("near-lossless", files["wide"], ("--ratio", 16, *binned, *told), 120e3),
        Scene("raw", files["raw"], ("--ratio", 1), 80e3),
        Scene("deep", files["deep"], ("--ratio", 8, "--mask", "random", *told[1:]), 100e3),
        Scene("short", files["short"]),
    )


def _counts(path: Path, shape: tuple[int, int, int], dtype: type, mean: float, seed: int) -> str:
    np.save(path, np.random.default_rng(seed).poisson(mean, shape).astype(dtype))
    return f"file:{path}"


def run_without_faults(scenes: Sequence[Scene], folder: Path) -> dict[Scene, Reference]:
    """Stream scenes to a decoder of their own and leave both in peace. Raises `SoakFailure` when even that fails."""
    data, link, http = folder / "data", f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    serve = ("serve", "--data", data, "--ingest", link, "--http", http, "--model", "none")
    stream_ids = {}
    with Daemon("framefold-decoder", serve, folder / "decoder.log") as decoder:
        for scene in scenes:
            run = ("run", scene.source, *scene.options, "--to", link)
            with Daemon("framefold-encoder", run, folder / "encoder.log") as encoder:
                if encoder.wait(CALM_S) != 0:
                    raise SoakFailure(f"scene {scene.name} fails without any fault: {encoder.last_words}")
                stream_ids[scene] = encoder.summary["stream_id"]
        decoder.stop()
    records = {record.metadata.stream_id: record for record in read_catalogue(data)}
    return {scene: Reference(data, records[stream_id]) for scene, stream_id in stream_ids.items()}


def read_catalogue(data: Path) -> list[StreamRecord]:
    """What a data folder's catalogue says of its streams."""
    catalogue = Catalogue(f"sqlite:///{data / 'catalogue.sqlite'}")
    try:
        return catalogue.streams()
    finally:
        catalogue.close()
