"""Training movies: bounded, seeded, from still to fast, the same from any number of processes, of no seed that is tested on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_examples import CPU, POOL

from framefold_protocol.model import SNAPSHOTS
from framefold_simulator import Movie, MovieSpec
from framefold_training import atoms, events, samples, simulate
from framefold_training.pool import FIRST_SIMULATOR_SEED, Pool, open_pool, render


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_scenes_are_bounded_and_seeded(seed):
    first, again = (simulate.movie(np.random.default_rng(seed), 6, 24) for _ in range(2))
    assert first.shape == (6, 24, 24)
    assert first.dtype == np.float32
    assert first.min() >= np.float32(simulate.LOWEST)
    assert first.max() <= np.float32(simulate.HIGHEST)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, simulate.movie(np.random.default_rng(seed + 1), 6, 24))


def test_scenes_range_from_still_to_fast():
    changes = [np.abs(np.diff(simulate.movie(np.random.default_rng(seed), 6, 24), axis=0)).mean() for seed in range(40)]
    assert min(changes) == 0
    assert max(changes) > 0.02


def test_a_scene_moves_as_fast_as_it_is_told():
    def change(seed, speed):
        return np.abs(np.diff(simulate.movie(np.random.default_rng(seed), 6, 48, speed), axis=0)).mean()

    still, slow, fast = (np.median([change(seed, speed) for seed in range(12)]) for speed in (0.0, 0.1, 1.0))
    assert still == 0
    assert 0 < slow < fast


def test_a_cut_is_one_frame_to_the_next():
    movie, other = np.zeros((9, 16, 16), np.float32), np.ones((9, 16, 16), np.float32)
    events.replace_suddenly(np.random.default_rng(3), movie, other)
    changes = np.abs(np.diff(movie, axis=0)).max((1, 2))
    assert np.count_nonzero(changes) == 1
    assert set(np.unique(movie)) == {0, 1}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_brightness_swings_smoothly_and_keeps_what_is_seen(seed):
    rng = np.random.default_rng(seed)
    still = np.broadcast_to(rng.uniform(0.2, 1, (24, 24)).astype(np.float32), (60, 24, 24))
    movie = still.copy()
    events.swing_brightness(rng, movie)
    factor = movie / still
    assert movie.dtype == np.float32
    assert factor.max() - factor.min() > 0.03 / 4
    assert factor.min() > 0.0999
    assert factor.max() < 3
    assert np.abs(np.diff(factor, axis=0)).max() < (factor.max() - factor.min()) / 2


def test_some_movies_of_every_source_swing():
    for share in (0.0, 1.0):
        steady, swinging = (render(replace(POOL, simulator_share=share, swing_share=swings), 3) for swings in (0.0, 1.0))
        assert not np.array_equal(steady, swinging)


def test_a_pool_movie_depends_on_seed_and_number_alone():
    first = render(POOL, 3)
    assert first.dtype == np.float16
    assert first.shape == (POOL.frames, POOL.side, POOL.side)
    assert np.array_equal(first, render(POOL, 3))
    assert not np.array_equal(first, render(POOL, 4))
    assert not np.array_equal(first, render(replace(POOL, seed=1), 3))


def test_the_microscope_is_never_trained_on_below_the_first_seed():
    spec = replace(POOL, simulator_share=1.0)
    speed = float(np.exp(np.random.default_rng([0, 5]).uniform(0, 1, 2)[1] * np.log(16) + np.log(0.25)))
    shape = (POOL.side, POOL.side)
    movie = Movie(MovieSpec(shape=shape, dose=1.0, seed=FIRST_SIMULATOR_SEED + 5, loop=POOL.frames, speed=speed))
    assert np.allclose(render(spec, 5), movie.clean(0, POOL.frames), atol=2e-3)


def test_a_pool_replaces_one_movie_at_a_time_and_none_comes_back():
    numbers = (np.full((1, 1, 1), number, np.float16) for number in itertools.count())
    pool = Pool(replace(POOL, frames=1, side=1), numbers, 0, CPU)
    held = [set(pool.at(step).flatten().tolist()) for step in range(13)]
    assert held[0] == {0, 1, 2}
    for step, (before, after) in enumerate(itertools.pairwise(held), 1):
        assert after - before == ({max(before) + 1} if step % POOL.life == 0 else set())
        assert before - after == ({min(before)} if step % POOL.life == 0 else set())


def test_processes_make_what_one_process_makes_from_any_step():
    with open_pool(POOL, 0, 0, CPU) as walked:
        for step in range(6):
            expected = walked.at(step).clone()
    with open_pool(POOL, 5, 2, CPU) as joined:
        found = joined.at(5)
        assert sorted(map(float, found.sum((1, 2, 3)))) == sorted(map(float, expected.sum((1, 2, 3))))
        assert torch.equal(found, expected)


def test_a_short_atom_movie_is_walked_to_and_fro():
    moments = np.arange(atoms.FRAMES, dtype=np.float16)[None, :, None, None]
    cache = {"movies": np.broadcast_to(moments, (1, atoms.FRAMES, atoms.SIDE, atoms.SIDE))}
    for seed in range(20):
        piece = atoms.movie(cache, np.random.default_rng(seed), 96, 160)
        assert piece.shape == (96, 160, 160)
        steps = np.abs(np.diff(piece[:, 0, 0].astype(int)))
        assert steps.max() == np.median(steps)  # one pace, turning round at the ends
        assert 1 <= steps.max() <= 3


def test_a_hot_particle_is_seen_by_multislice(monkeypatch):
    monkeypatch.setattr(atoms, "FRAMES", 2)
    monkeypatch.setattr(atoms, "SIDE", 48)
    monkeypatch.setattr(atoms, "DEFOCI", 2)
    monkeypatch.setattr(atoms, "EXPOSURE", 1)
    rng = np.random.default_rng(1)
    movies = atoms.images(atoms.trajectory(rng), rng)
    assert movies.shape == (2, 2, 48, 48)
    assert movies.astype(np.float32).mean() == pytest.approx(1, abs=0.02)
    assert movies.std(axis=(2, 3)).min() > 0.01  # columns are seen, in every frame and at every defocus
    assert np.abs(np.diff(movies.astype(np.float32), axis=1)).max() > 1e-3  # and move


@pytest.mark.parametrize("shape", range(len(atoms.SHAPES)))
def test_a_particle_that_lost_atoms_can_be_copied(shape):
    whole = atoms.particle("Au", shape, np.random.default_rng(0))
    left = whole[np.arange(len(whole)) % 10 > 0]
    assert len(left.copy()) == len(left) < len(whole)


def test_the_contact_sheet_shows_every_movie():
    sheet = samples.sheet(replace(POOL, frames=SNAPSHOTS * samples.RATIO, side=128), 1, 2)
    assert sheet.shape == (128 + samples.GAP, 10 * (128 + samples.GAP))
    assert 0 <= sheet.min() < sheet.max() <= 1
