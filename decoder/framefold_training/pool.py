"""Clean training movies, rendered by processes ahead of their use and kept on the training device.

Notable: movie number n of a seed is a pure function of (seed, n), and at step s the pool holds `slots` of them beginning with
number s // life: so training resumes exactly anywhere, however many processes render. Raise `life` when training waits for
movies. Cutting, dosing and folding them is `data`'s.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty, Full

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framefold_protocol.errors import FramefoldError
from framefold_simulator import Movie, MovieSpec
from framefold_training import events, simulate
from framefold_training.textures import Image

Movies = npt.NDArray[np.float16]

HIGHEST = 2.0
"""Value of a movie."""

FIRST_SIMULATOR_SEED = 1_000_000
"""Training draws only movies from here on; the demo, tests and benchmarks use seeds below 1000."""


@dataclass(frozen=True)
class PoolSpec:
    """Which movies there are."""

    frames: int = 160
    """Of each movie: as many groups of the largest B as a net is fed."""
    side: int = 160
    """Of each movie, pixels."""
    slots: int = 96
    life: int = 8
    """Steps until one movie of the pool is replaced."""
    simulator_share: float = 0.3
    atoms: str = ""
    """File of multislice movies made by `framefold_training.atoms`; empty: none."""
    atoms_share: float = 0.1
    swing_share: float = 0.2
    """Of all movies: those whose brightness rises and falls."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("slots", "life"):
            if (found := getattr(self, name)) < 1:
                raise FramefoldError(f"{name} is {found}, expected 1 or more")


def render(spec: PoolSpec, number: int) -> Movies:
    """Movie `number`: (frames, side, side), values in [0.02, 2]."""
    rng = np.random.default_rng([spec.seed, number])
    movie = _source(spec, number, rng)
    if rng.random() < spec.swing_share:
        events.swing_brightness(rng, movie)
        np.clip(movie, simulate.LOWEST, HIGHEST, out=movie)
    return movie.astype(np.float16)


def _source(spec: PoolSpec, number: int, rng: np.random.Generator) -> Image:
    """Movie `number` but for its swings."""
    source = rng.random()
    if source < spec.simulator_share:
        return _simulated(spec, number, rng)
    if spec.atoms and source < spec.simulator_share + spec.atoms_share:
        from framefold_training.atoms import movie  # a file of movies that few have

        return movie(_atoms(spec.atoms), rng, spec.frames, spec.side).astype(np.float32)
    return simulate.movie(rng, spec.frames, spec.side)


def _simulated(spec: PoolSpec, number: int, rng: np.random.Generator) -> Image:
    seed = FIRST_SIMULATOR_SEED + 1_000_000 * spec.seed + number
    speed = float(np.exp(rng.uniform(np.log(0.25), np.log(4))))
    movie = Movie(MovieSpec(shape=(spec.side, spec.side), dose=1.0, seed=seed, loop=spec.frames, speed=speed))
    return movie.clean(0, spec.frames)


@cache
def _atoms(path: str) -> dict[str, npt.NDArray[np.generic]]:
    with np.load(Path(path)) as file:
        return dict(file)


class Pool:
    """The movies alive at a step, on a device: `at(step)` must be asked in ascending order of steps."""

    def __init__(self, spec: PoolSpec, numbered: Iterator[Movies], first_step: int, device: torch.device) -> None:
        self.spec, self._numbered = spec, numbered
        self._next = first_step // spec.life
        self._movies = torch.empty((spec.slots, spec.frames, spec.side, spec.side), dtype=torch.float16, device=device)

    def at(self, step: int) -> Tensor:
        """(slots, frames, side, side) float16; which movies they are depends on seed and step alone."""
        while self._next < step // self.spec.life + self.spec.slots:
            movie = torch.from_numpy(next(self._numbered))
            if self._movies.is_cuda:
                movie = movie.pin_memory()
            self._movies[self._next % self.spec.slots].copy_(movie, non_blocking=True)
            self._next += 1
        return self._movies


@contextmanager
def open_pool(spec: PoolSpec, first_step: int, workers: int, device: torch.device) -> Iterator[Pool]:
    """The pool from `first_step` on; movies are rendered by `workers` processes, a few ahead (0: by this one)."""
    first = first_step // spec.life
    if workers == 0:
        yield Pool(spec, (render(spec, number) for number in itertools.count(first)), first_step, device)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    queues: list[Queue[Movies]] = [context.Queue(4) for _ in range(workers)]
    processes = [
        context.Process(target=_produce, args=(spec, first + i, workers, queue), daemon=True) for i, queue in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        numbered = (_take(process, queue) for process, queue in itertools.cycle(zip(processes, queues, strict=True)))
        yield Pool(spec, numbered, first_step, device)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _take(process: BaseProcess, queue: Queue[Movies]) -> Movies:
    """The worker's next movie; a worker that ended would otherwise be waited for forever."""
    while True:
        try:
            return queue.get(timeout=5)
        except Empty:
            if not process.is_alive():
                raise FramefoldError(
                    f"a data worker ended with exit code {process.exitcode}",
                    hint="Its error is printed above; --workers 0 shows it",
                ) from None


def _produce(spec: PoolSpec, first: int, stride: int, queue: Queue[Movies]) -> None:
    """Render into the queue as long as the process that trains is there: it may be killed."""
    trainer = multiprocessing.parent_process()
    for number in itertools.count(first, stride):
        movie = render(spec, number)
        while trainer is None or trainer.is_alive():
            try:
                queue.put(movie, timeout=5)
                break
            except Full:
                pass
        else:
            queue.cancel_join_thread()
            return
