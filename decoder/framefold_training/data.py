"""Training batches: clean movies -> crops at a random dose -> three folded groups, as `framefold_protocol.model` feeds a net.

Notable: batch k of a seed is a pure function of (seed, k), so that training resumes exactly anywhere and several workers make
what one would. Movies are dear and crops are cheap: two pools (procedural scenes, the virtual microscope) keep rendered movies
for some hundred steps each, and replace them one at a time. A sum of Poisson counts is Poisson: snapshots are drawn directly.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from queue import Empty

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import FramefoldError
from framefold_protocol.masks import Bits, MaskKind, MaskSpec, derive_masks
from framefold_protocol.model import level, relative_noise
from framefold_simulator import Movie, MovieSpec
from framefold_training import simulate

Array = npt.NDArray[np.float32]
Movies = npt.NDArray[np.float16]

FIRST_SIMULATOR_SEED = 1_000_000
"""Training draws only movies from here on; the demo, tests and benchmarks use seeds below 1000."""

MASK_CHOICES: tuple[tuple[MaskKind, float, float], ...] = (
    ("balanced", 0.25, 0.80),
    ("balanced", 0.50, 0.06),
    ("random", 0.25, 0.05),
    ("one-hot", 0.25, 0.05),
    ("ones", 1.00, 0.04),
)
"""(kind, density, share of the samples): mostly what ships, and some of each other kind so that the net is not brittle."""

PERIOD = 64
"""Side of the mask cell in pixels."""

DOSE_RANGE = (3.0, 300.0)
"""Mean e-/px of the training clips."""

STREAM_END_SHARE = 0.05
"""Share of samples whose previous (and of those whose next) snapshot is missing and replaced by this one."""


@dataclass(frozen=True)
class DataSpec:
    """What a run trains on."""

    ratio: int = 20
    size: int = 96
    """Side of the crops in pixels."""
    batch: int = 8
    seed: int = 0
    simulator_share: float = 0.4
    """Share of crops from the virtual microscope; the others are procedural."""
    procedural_movies: int = 128
    simulator_movies: int = 24


@dataclass(frozen=True)
class Batch:
    """What a net is fed, and what it should answer; float32, scaled by each sample's level."""

    snapshots: Array  # (n, 3, H, W)
    exposures: Array  # (n, 3, H, W)
    masks: Array  # (n, B, H, W)
    noise: Array  # (n,)
    frames: Array  # (n, B, H, W) the truth

    def __len__(self) -> int:
        return len(self.noise)

    def arrays(self) -> tuple[Array, ...]:
        """All fields, the net's inputs first."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def inputs(self) -> dict[str, Array]:
        """What the net is fed, by name and in order."""
        return {f.name: getattr(self, f.name) for f in fields(self)[:-1]}

    @classmethod
    def stack(cls, samples: list[Batch]) -> Batch:
        """One batch of several."""
        return cls(*(np.concatenate(parts) for parts in zip(*(s.arrays() for s in samples), strict=True)))


def fold(clip: Array, masks: Bits, rng: np.random.Generator, *, level_factor: float = 1.0) -> Batch:
    """One sample of a clean clip (3 B, H, W) of expected counts: three Poisson snapshots, all folded by `masks` (B, H, W).

    `level_factor` multiplies the level, which at run time is that of a larger field than a training crop.
    """
    groups = clip.reshape(3, *masks.shape)
    snapshots = rng.poisson(np.einsum("gthw,thw->ghw", groups, masks, dtype=np.float32))
    exposure = np.repeat(masks.sum(0, dtype=np.float32)[None], 3, axis=0)
    counts = np.float32(level(snapshots[1], exposure[1]) * level_factor)
    return Batch(
        snapshots=(snapshots / counts).astype(np.float32)[None],
        exposures=exposure[None],
        masks=masks.astype(np.float32)[None],
        noise=np.array([relative_noise(float(counts))], np.float32),
        frames=(groups[1] / counts)[None],
    )


class Pool:
    """Clean movies; one of the `slots` is replaced every `life` steps, so each serves `slots * life` of them."""

    def __init__(self, slots: int, life: int, render: Callable[[int], Movies]) -> None:
        self.slots, self.life, self._render = slots, life, render
        self._held: dict[int, tuple[int, Movies]] = {}

    def movie(self, step: int, slot: int) -> Movies:
        """The movie (T, H, W) in a slot at a step; which one that is depends on nothing else."""
        number = slot + self.slots * ((step + slot * self.life) // (self.slots * self.life))
        if self._held.get(slot, (-1, None))[0] != number:
            self._held[slot] = number, self._render(number)
        return self._held[slot][1]


class Batches:
    """The endless series of batches of one `DataSpec`."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self._procedural = Pool(spec.procedural_movies, 3, self._render_procedural)
        self._simulator = Pool(spec.simulator_movies, 20, self._render_simulator)

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        rng = np.random.default_rng([self.spec.seed, 0, step])
        return Batch.stack([self._sample(rng, step) for _ in range(self.spec.batch)])

    def _sample(self, rng: np.random.Generator, step: int) -> Batch:
        pool = self._simulator if rng.random() < self.spec.simulator_share else self._procedural
        clip = _crop(rng, pool.movie(step, int(rng.integers(pool.slots))), 3 * self.spec.ratio, self.spec.size)
        lowest, highest = np.log(DOSE_RANGE)
        dose = np.exp(lowest + (highest - lowest) * rng.random() ** 1.4)  # low doses are hard and common: half lie below 17
        clip *= np.float32(dose / clip.mean())
        sample = fold(clip, _masks(rng, self.spec), rng, level_factor=float(np.exp(rng.uniform(-0.7, 0.7))))
        for neighbour in (0, 2):
            if rng.random() < STREAM_END_SHARE:
                sample.snapshots[:, neighbour] = sample.snapshots[:, 1]
        return sample

    def _render_procedural(self, number: int) -> Movies:
        rng = np.random.default_rng([self.spec.seed, 1, number])
        return simulate.movie(rng, 3 * self.spec.ratio, self.spec.size * 5 // 3).astype(np.float16)

    def _render_simulator(self, number: int) -> Movies:
        rng = np.random.default_rng([self.spec.seed, 2, number])
        seed = FIRST_SIMULATOR_SEED + 1_000_000 * self.spec.seed + number
        speed, loop = float(np.exp(rng.uniform(np.log(0.25), np.log(4)))), 6 * self.spec.ratio
        side = max(64, self.spec.size * 8 // 3)
        movie = Movie(MovieSpec(shape=(side, side), dose=1.0, seed=seed, loop=loop, speed=speed))
        return movie.clean(0, loop).astype(np.float16)


@contextmanager
def prefetched(spec: DataSpec, first_step: int, workers: int) -> Iterator[Iterator[Batch]]:
    """The batches from `first_step` on, made by `workers` processes (0: by this one), never more than a few ahead."""
    if workers == 0:
        batches = Batches(spec)
        yield (batches.batch(step) for step in itertools.count(first_step))
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    queues: list[Queue[Batch]] = [context.Queue(4) for _ in range(workers)]
    processes = [
        context.Process(target=_produce, args=(spec, first_step + i, workers, queue), daemon=True)
        for i, queue in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        yield (_take(process, queue) for process, queue in itertools.cycle(zip(processes, queues, strict=True)))
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _take(process: BaseProcess, queue: Queue[Batch]) -> Batch:
    """The worker's next batch; a worker that ended would otherwise be waited for forever."""
    while True:
        try:
            return queue.get(timeout=5)
        except Empty:
            if not process.is_alive():
                raise FramefoldError(
                    f"a data worker ended with exit code {process.exitcode}",
                    hint="Its error is printed above; --workers 0 shows it",
                ) from None


def _produce(spec: DataSpec, first_step: int, stride: int, queue: Queue[Batch]) -> None:
    batches = Batches(spec)
    for step in itertools.count(first_step, stride):
        queue.put(batches.batch(step))


def _crop(rng: np.random.Generator, movie: Movies, frames: int, size: int) -> Array:
    """A random piece (frames, size, size) of a movie, turned, mirrored or reversed at random."""
    t, y, x = (int(rng.integers(have - want + 1)) for have, want in zip(movie.shape, (frames, size, size), strict=True))
    clip = movie[t : t + frames, y : y + size, x : x + size]
    for axis in range(3):
        if rng.random() < 0.5:
            clip = np.flip(clip, axis)
    if rng.random() < 0.5:
        clip = clip.swapaxes(1, 2)
    return clip.astype(np.float32, order="C")


def _masks(rng: np.random.Generator, spec: DataSpec) -> Bits:
    """Masks (B, size, size) of a random kind and seed, at a random place in the cell."""
    kind, density, _ = MASK_CHOICES[rng.choice(len(MASK_CHOICES), p=[share for *_, share in MASK_CHOICES])]
    chosen = MaskSpec(kind=kind, ratio=spec.ratio, density=density, period=PERIOD, seed=int(rng.integers(2**63)))
    y, x = rng.integers(PERIOD, size=2)
    masks = derive_masks(chosen, (PERIOD + spec.size, PERIOD + spec.size))
    return masks.window(slice(y, y + spec.size), slice(x, x + spec.size))
