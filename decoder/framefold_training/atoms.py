"""Movies of metal nanoparticles by molecular dynamics and multislice, made once and kept in a file for training.

Notable: dynamics (ASE's effective medium theory, Langevin thermostat) and multislice are the cost: every trajectory is imaged
at several defoci: the exit wave of each frame is computed once (abTEM), and the lens applied to it anew. Doses, masks and noise
come later, in `data`. Needs the extra `sim`; a minute or two per trajectory and core, then

    python -m framefold_training.atoms --trajectories 12 --processes 2 --out training-runs/atoms.npz
    python -m framefold_training.train --atoms training-runs/atoms.npz ...
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import FramefoldError, installing

Movies = npt.NDArray[np.float16]
Rng = np.random.Generator

FRAMES, SIDE = 96, 192
"""Of each movie; pixels."""

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
"""What effective medium theory knows."""

SHAPES = ("Octahedron", "Icosahedron", "Decahedron")
"""As `ase.cluster` calls them."""

DEFOCI = 4
"""Per trajectory."""

STEP_FS = 5.0
EXPOSURE = 4
"""Moments averaged into a frame: a camera is far slower than the atoms' vibrations, what it sees is where they dwell."""
SLICE_A = 2.0


def movie(cache: dict[str, npt.NDArray[Any]], rng: Rng, frames: int, side: int) -> Movies:
    """A random piece (frames, side, side) of a random movie of the file, mean about 1; walked to and fro where it is short."""
    clip = cache["movies"][rng.integers(len(cache["movies"]))]
    times = np.abs((np.arange(frames) * int(rng.integers(1, 4)) + int(rng.integers(FRAMES))) % (2 * FRAMES - 2) - (FRAMES - 1))
    y, x = rng.integers(SIDE - side + 1, size=2)
    piece: Movies = clip[times, y : y + side, x : x + side]
    return piece


def particle(metal: str, shape: int, rng: Rng) -> Any:
    """A whole particle (ase.Atoms) of one of the `SHAPES`."""
    from ase import Atoms, cluster

    make = getattr(cluster, SHAPES[shape])
    if shape == 0:
        return Atoms(make(metal, int(rng.integers(5, 9)), cutoff=int(rng.integers(1, 3))))
    if shape == 1:
        return Atoms(make(metal, int(rng.integers(4, 6))))
    return Atoms(make(metal, int(rng.integers(3, 5)), int(rng.integers(2, 4)), 0))  # a cluster with gaps cannot be copied


def trajectory(rng: Rng) -> list[Any]:
    """`FRAMES` configurations (ase.Atoms) of one hot particle, centred in a cell that is `SIDE` pixels across in the image."""
    from ase import units
    from ase.calculators.emt import EMT
    from ase.constraints import FixCom
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta

    atoms = particle(str(rng.choice(METALS)), int(rng.integers(len(SHAPES))), rng)
    atoms = atoms[rng.random(len(atoms)) > 0.01]
    if rng.random() < 0.7:  # near a zone axis, as an operator would tilt it
        atoms.rotate(float(rng.choice([0, 45, 90])), "xyz"[rng.integers(3)])
        atoms.rotate(float(rng.normal(0, 2)), "x")
    else:
        atoms.euler_rotate(*rng.uniform(0, 360, 3))
    atoms.calc = EMT()
    kelvin = float(rng.uniform(400, 1300))
    thermalize_momenta(atoms, kelvin, rng=np.random.RandomState(rng.integers(2**31)))
    atoms.set_constraint(FixCom())
    noise = np.random.RandomState(rng.integers(2**31))
    dynamics = Langevin(atoms, STEP_FS * units.fs, temperature_K=kelvin, friction=0.01 / units.fs, fixcm=False, rng=noise)
    stride, configurations = int(rng.choice([2, 6, 12])), []
    for _ in range(FRAMES):
        visited = []
        for _ in range(EXPOSURE):
            dynamics.run(stride)
            visited.append(atoms.get_positions())
        seen = atoms.copy()
        seen.positions = np.mean(visited, axis=0)
        configurations.append(seen)
    return configurations


def images(configurations: list[Any], rng: Rng) -> Movies:
    """Bright-field images (DEFOCI, FRAMES, SIDE, SIDE) of the configurations, mean about 1, blurred as by temperature."""
    import abtem

    abtem.config.set({"local_diagnostics.progress_bar": False, "device": "cpu"})
    extent = float(np.ptp(configurations[0].positions[:, :2], axis=0).max())
    width = float(np.clip(extent * rng.uniform(1.0, 1.7), 0.07 * SIDE, 0.3 * SIDE))  # Å: 0.07 to 0.3 per pixel
    energy = float(rng.choice([80e3, 200e3, 300e3]))
    lenses = [
        abtem.CTF(
            energy=energy, Cs=float(rng.choice([-5e4, 1e4, 1e6])), defocus=float(rng.uniform(-60, 150)), semiangle_cutoff=30
        )
        for _ in range(DEFOCI)
    ]
    centre = configurations[0].positions.mean(0)
    drift = np.cumsum(rng.normal(0, 0.02, (FRAMES, 2)), axis=0)
    out = np.empty((DEFOCI, FRAMES, SIDE, SIDE), np.float16)
    for t, atoms in enumerate(configurations):
        height = float(np.ptp(atoms.positions[:, 2])) + 4
        atoms.positions -= [*(centre[:2] - width / 2 - drift[t]), centre[2] - height / 2]
        atoms.set_cell([width, width, height])
        potential = abtem.Potential(
            atoms, gpts=SIDE, slice_thickness=SLICE_A, projection="infinite", parametrization="kirkland"
        )
        wave: Any = abtem.PlaneWave(energy=energy).multislice(potential, lazy=False)
        for k, lens in enumerate(lenses):
            image = np.asarray(wave.apply_ctf(lens).intensity().array, np.float32)
            out[k, t] = np.clip(image / image.mean(), 0.02, 2)
    return out


def _make(seed: int) -> Movies:
    rng = np.random.default_rng([seed, 4, 4, 4])
    return images(trajectory(rng), rng)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.atoms", description=__doc__)
    parser.add_argument("--trajectories", type=int, default=12)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first trajectory")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"the file, {DEFOCI * FRAMES * SIDE**2 * 2 >> 20} MB a trajectory"
    )
    given = parser.parse_args(arguments)
    try:
        import abtem  # noqa: F401
        import ase  # noqa: F401
    except ImportError as error:
        raise FramefoldError(f"{error.name} is missing", hint=f"Install it: {installing('sim')}") from None
    began, movies = time.monotonic(), list[Movies]()
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for made in pool.imap(_make, range(given.seed, given.seed + given.trajectories)):
            movies.append(made)
            print(f"{len(movies)} of {given.trajectories} trajectories, {time.monotonic() - began:.0f} s", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("wb") as file:
        np.savez(file, movies=np.concatenate(movies))


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
