"""What a coded snapshot costs: bytes, time and quality, exactly and at half a sigma.

    python benchmarks/coders.py [--size 1024] [--groups 4] [--json PATH]

A snapshot is shot noise, and noise cannot be predicted: a sum of mean n costs 1/2 log2(2 pi e n) bits a pixel, so B frames of
8 bits fold to no less than that. Bins of half a sigma cost 3.05 bits at any dose. "entropy" is the order-0 entropy of the very
array that is coded; prediction gets below it where the image is not flat. Rates are bytes of 16-bit snapshots per second of one
core's time, the median of 7; the rivals code the same values in the same run. PSNR is as in quality.py: the shipped net, fed
with exact and with quantised snapshots of the same counts.
Prints a card and, as the last line, one JSON document.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from common_parts.document import command, publish
from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.registry import Registry
from framefold_protocol import payload, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import Coding
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Snapshot
from framefold_protocol.noise import NoiseModel
from framefold_simulator.movie import Movie, MovieSpec
from quality_parts.folding import neighbourhood

HALF_SIGMA = VarianceStabilised(step=0.5)
CODERS = {"lossless": None, "half-sigma": HALF_SIGMA}
DOSES = (1, 2, 5, 10, 20, 50, 100, 200)
PEAK = 20.0
"""e-/px of the wire ratios: 8-bit frames."""
Sums = npt.NDArray[np.uint16]
Row = dict[str, Any]


def entropy(values: Sums) -> float:
    """Order-0 entropy in bits a value."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / values.size
    return float(-(share * np.log2(share)).sum())


def rate(call: Callable[[], object], nbytes: int) -> float:
    """GB per second of CPU time (every coder runs on one thread), the median of 7."""
    seconds = []
    for _ in range(7):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return nbytes / statistics.median(seconds) / 1e9


def wire_bytes(sums: Sums, ratio: int, quantisation: VarianceStabilised | None) -> int:
    """Of the whole message, headers in."""
    packed = payload.pack(sums, quantisation)
    message = Snapshot(1000, 1000 * ratio, ratio, time.time_ns(), **vars(packed), quantisation=quantisation)
    return wire.size(wire.encode(message))


def measure(sums: Sums) -> list[Row]:
    """A row for each coder: bits a pixel against the entropy, and both rates."""
    rows = []
    for name, quantisation in CODERS.items():
        packed = payload.pack(sums, quantisation)
        bound = entropy(quantisation.quantise(sums) if quantisation else sums)
        row: Row = {"coder": name, "bits_per_pixel": 8 * len(packed.payload) / sums.size, "entropy": bound}
        row["over_entropy"] = row["bits_per_pixel"] / bound - 1
        row["encode_gb_s"] = rate(lambda q=quantisation: payload.pack(sums, q), sums.nbytes)
        row["decode_gb_s"] = rate(lambda p=packed, q=quantisation: payload.decode(p, sums.shape, q), sums.nbytes)
        rows.append(row)
    return rows


def uniform(mean: float, size: int) -> Sums:
    """Poisson counts of one mean."""
    return np.random.default_rng(0).poisson(mean, (size, size)).astype(np.uint16)


def folded_movie(ratio: int, size: int) -> Sums:
    """A snapshot of the simulated test movie, its brightest expected pixel at `PEAK`."""
    clean = Movie(MovieSpec(shape=(size, size), dose=PEAK, seed=0)).clean(0, ratio)
    counts = np.random.default_rng(0).poisson(clean * (PEAK / clean.max())).astype(np.uint8)
    return fold(counts, MaskSpec(ratio=ratio))


def fold(counts: npt.NDArray[np.unsignedinteger], spec: MaskSpec) -> Sums:
    """The exact sums of one group (B, H, W)."""
    return (counts * derive_masks(spec, counts.shape[1:]).window()).sum(axis=0, dtype=np.uint16)


def by_dose(size: int) -> list[Row]:
    """Uniform illumination, B = 20, balanced p = 0.25."""
    ones = MaskSpec(ratio=20).ones_per_pixel
    return [{"dose": dose, "ratio": 20} | row for dose in DOSES for row in measure(uniform(dose * ones, size))]


def wire_ratios(movies: dict[int, Sums], size: int) -> list[Row]:
    """Bytes of 8-bit frames over bytes on the wire, at a peak of 20 e-/px."""
    rows = []
    for ratio, movie in movies.items():
        scenes = {"uniform": uniform(PEAK * MaskSpec(ratio=ratio).ones_per_pixel, size), "movie": movie}
        for scene, sums in scenes.items():
            for name, quantisation in CODERS.items():
                found = ratio * sums.size / wire_bytes(sums, ratio, quantisation)
                rows.append({"dose": PEAK, "scene": scene, "ratio": ratio, "coder": name, "wire_ratio": found})
    return rows


# --- what else was tried


def chunk(values: Sums, **options: Any) -> int:
    """Bytes of a Blosc2 chunk with other options; its blocks large enough that zstd-1 looks for long matches only."""
    usual = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "blocksize": 2**19 * values.itemsize}
    return len(blosc2.compress2(values, typesize=values.itemsize, nthreads=1, **{**usual, **options}))


def on_a_base(values: Sums) -> int:
    """The values less a number that keeps their noise off the boundary of a byte: what versions 1 and 2 sent."""
    base = values.dtype.type(0 if values.max() < 256 else max(0, int(values.mean()) - 128))
    return chunk(values - base)


def block_means(values: Sums) -> int:
    """Less the means of 32 x 32 blocks, the residuals as they are."""
    height, width = (side // 32 for side in values.shape)
    blocks = values.reshape(height, 32, width, 32)
    means = blocks.mean(axis=(1, 3), keepdims=True).astype(values.dtype)
    residuals = (blocks - means + values.dtype.type(128)).reshape(values.shape)
    return chunk(residuals) + chunk(np.ascontiguousarray(means.reshape(height, width)))


def left_neighbour(values: Sums) -> int:
    """Residuals of the pixel to the left."""
    return chunk(np.diff(values, axis=1, prepend=values.dtype.type(0)) + values.dtype.type(128))


RIVALS: dict[str, Callable[[Sums], int]] = {
    "planes, zstd-1": lambda values: len(payload.pack(values).payload),
    "zstd-1, base": on_a_base,
    "zstd-1": chunk,
    "zstd-1, Blosc2's block size": partial(chunk, blocksize=0),
    "zstd-3": partial(chunk, clevel=3, blocksize=0),
    "bitshuffle, zstd-1": partial(chunk, filters=[blosc2.Filter.BITSHUFFLE], blocksize=0),
    "bitshuffle, LZ4": partial(chunk, filters=[blosc2.Filter.BITSHUFFLE], codec=blosc2.Codec.LZ4, blocksize=0),
    "left neighbour, zstd-1": left_neighbour,
    "block means, zstd-1": block_means,
}
"""The first is what is sent."""


def rivals(scenes: dict[str, Sums]) -> list[Row]:
    """Every rival on sums and on their bins; rates without the time to make the bins."""
    rows = []
    for scene, sums in scenes.items():
        for coded, values in {"sums": sums, "bins": HALF_SIGMA.quantise(sums)}.items():
            for name, call in RIVALS.items():
                speed = rate(lambda c=call, v=values: c(v), sums.nbytes)
                bits = 8 * call(values) / values.size
                rows.append({"scene": scene, "of": coded, "rival": name, "bits_per_pixel": bits, "encode_gb_s": speed})
    return rows


# --- quality


def _received(sums: Sums, coding: Coding, quantisation: VarianceStabilised | None) -> FoldedGroup:
    """A group as the decoder gets it."""
    if quantisation is None:
        return FoldedGroup(sums, coding)
    return FoldedGroup(quantisation.restore(quantisation.quantise(sums), sums.dtype), coding, quantisation.step)


def psnr_loss(dose: float, groups: int, size: int) -> Row:
    """PSNR of the shipped net, B = 20, from exact and from quantised snapshots of the same counts."""
    spec = MaskSpec(ratio=20)
    coding = Coding((derive_masks(spec, (size, size)),))
    net = Registry(None, provider="cpu", threads=0).choose("auto", coding)
    movie = Movie(MovieSpec(shape=(size, size), dose=dose, seed=0))
    clean, counts = movie.clean(0, 20 * groups), movie.counts(0, 20 * groups).astype(np.uint16)
    exact = [fold(group, spec) for group in np.split(counts, groups)]
    row: Row = {"dose": dose, "ratio": 20, "method": net.name}
    for name, quantisation in CODERS.items():
        seen = [_received(sums, coding, quantisation) for sums in exact]
        errors = []
        for k, truth in enumerate(np.split(clean, groups)):
            errors.append(float(np.mean((net.reconstruct(*neighbourhood(seen, k), NoiseModel()) - truth) ** 2)))
        row[f"psnr_{name.replace('-', '_')}"] = float(10 * np.log10(clean.max() ** 2 / np.mean(errors)))
    return row | {"loss_db": row["psnr_lossless"] - row["psnr_half_sigma"]}


def print_card(document: dict[str, list[Row]]) -> None:
    """The rows as tables."""
    for title, rows in document.items():
        print(f"\n{title}")
        print("".join(f"{key:>16}" if key not in ("rival", "method") else f"  {key:<32}" for key in rows[0]))
        for row in rows:
            cells = (f"{value:16.3f}" if isinstance(value, float) else f"{value:>16}" for value in row.values())
            named = (f"  {row[key]:<32}" if key in ("rival", "method") else cell for key, cell in zip(row, cells, strict=True))
            print("".join(named))
    print()


def main() -> int:
    """Run the benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(description="Bytes, time and quality of coded snapshots.")
    parser.add_argument("--size", type=int, default=1024, help="side of the coded snapshots in pixels (default 1024)")
    parser.add_argument("--groups", type=int, default=4, help="snapshots of 512 x 512 to reconstruct; 0: none (default 4)")
    parser.add_argument("--json", type=Path, help="write the JSON document here too")
    options = parser.parse_args()
    movies = {ratio: folded_movie(ratio, options.size) for ratio in (20, 30)}
    document = {"by_dose": by_dose(options.size), "wire": wire_ratios(movies, options.size)}
    document["rivals"] = rivals({"movie, 20 e-/px": movies[20], "uniform, 100 e-/px": uniform(500, options.size)})
    if options.groups:
        document["quality"] = [psnr_loss(dose, options.groups, 512) for dose in (5.0, 20.0)]
    print_card(document)
    publish({"command": command(), **document}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
