"""Training: seeded scenes and batches, a net that is never NaN, exact resumption, an export that answers as torch does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_protocol.errors import ModelError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import ModelCard
from framefold_simulator import Movie, MovieSpec
from framefold_training import simulate
from framefold_training.checkpoint import write_checkpoint
from framefold_training.data import Array, Batch, Batches, DataSpec, Pool, fold, prefetched
from framefold_training.evaluate import of_file, of_net, psnr, score
from framefold_training.export import export
from framefold_training.model import Net, NetSpec
from framefold_training.train import Run, TrainSpec, train

RATIO = 4
DATA = DataSpec(ratio=RATIO, size=32, batch=2, procedural_movies=3, simulator_movies=1, simulator_share=0.25)
NET = NetSpec(ratio=RATIO, stages=2, width=8, deep_width=8, deep_blocks=1)
SPEC = TrainSpec(steps=4, workers=0, scored=False, net=NET, data=DATA)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.arrays(), b.arrays(), strict=True))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_scenes_are_bounded_and_seeded(seed: int) -> None:
    first, again = (simulate.movie(np.random.default_rng(seed), 6, 24) for _ in range(2))
    assert first.shape == (6, 24, 24)
    assert first.dtype == np.float32
    assert first.min() >= np.float32(simulate.LOWEST)
    assert first.max() <= np.float32(simulate.HIGHEST)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, simulate.movie(np.random.default_rng(seed + 1), 6, 24))


def test_scenes_range_from_still_to_fast() -> None:
    changes = [np.abs(np.diff(simulate.movie(np.random.default_rng(seed), 6, 24), axis=0)).mean() for seed in range(40)]
    assert min(changes) == 0
    assert max(changes) > 0.02


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    walked = Batches(DATA)
    for step in range(12):  # movies are replaced on the way
        batch = walked.batch(step)
    assert same(batch, Batches(DATA).batch(11))
    assert not same(batch, walked.batch(10))
    assert not same(batch, Batches(replace(DATA, seed=1)).batch(11))


def test_a_pool_replaces_one_movie_at_a_time_and_none_comes_back() -> None:
    rendered: list[int] = []

    def render(number: int) -> npt.NDArray[np.float16]:
        rendered.append(number)
        return np.full((1, 1, 1), number, np.float16)

    pool, per_step = Pool(3, 2, render), []
    for step in range(18):
        before = len(rendered)
        assert len({pool.movie(step, slot).item() for slot in range(3)}) == 3
        per_step.append(len(rendered) - before)
    assert sum(per_step[1:]) >= 6
    assert max(per_step[1:]) == 1
    assert len(set(rendered)) == len(rendered)


def test_workers_make_what_one_process_makes() -> None:
    with prefetched(DATA, 3, workers=2) as batches:
        made = list(islice(batches, 3))
    assert all(same(batch, Batches(DATA).batch(step)) for step, batch in enumerate(made, 3))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_sample_is_what_the_decoder_feeds(factor: float) -> None:
    clip = np.random.default_rng(1).uniform(10, 30, (3 * RATIO, 64, 64)).astype(np.float32)
    masks = derive_masks(MaskSpec(ratio=RATIO, density=0.5), (64, 64)).window()
    sample = fold(clip, masks, np.random.default_rng(2), level_factor=factor)
    level = 1 / sample.noise[0]
    assert level == pytest.approx(20 * factor, rel=0.02)
    assert np.allclose(sample.frames[0] * level, clip[RATIO : 2 * RATIO], rtol=1e-5)
    expected = (clip.reshape(3, RATIO, 64, 64) * masks).sum(1)
    counts = sample.snapshots[0] * level
    assert np.allclose(counts, np.round(counts), atol=1e-3)
    assert np.mean((counts - expected) ** 2 / expected) == pytest.approx(1, abs=0.05)
    assert np.array_equal(sample.exposures[0], np.repeat(masks.sum(0)[None], 3, axis=0))


@pytest.fixture(scope="module")
def busy_net() -> Net:
    """Weights far from their quiet start, so that every path of the net counts."""
    torch.manual_seed(3)
    net = Net(NET)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net.eval()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 10), columns=st.integers(2, 10), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    exposed=st.sampled_from([0.0, 0.1, 1.0]), noise=st.sampled_from([0.0, 1e-6, 0.2, 1e3, np.inf]), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_net_never_answers_nan(
    busy_net: Net, rows: int, columns: int, scale: float, exposed: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    masks = (rng.random((1, RATIO, 4 * rows, 4 * columns)) < exposed).astype(np.float32)
    exposures = np.repeat(masks.sum(1, keepdims=True), 3, axis=1)
    snapshots = (scale * rng.random(exposures.shape) * exposures).astype(np.float32)
    truth = np.empty_like(masks)
    frames = of_net(busy_net)(Batch(snapshots, exposures, masks, np.array([noise], np.float32), truth))
    assert frames.shape == masks.shape
    assert np.isfinite(frames).all()


def test_learning_lowers_the_loss() -> None:
    run, batch = Run(replace(SPEC, steps=60, rate=5e-3)), Batches(replace(DATA, batch=4)).batch(0)
    losses = [run.learn(batch) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_resuming_gives_what_an_unbroken_run_gives(tmp_path: Path) -> None:
    unbroken = train(SPEC, tmp_path / "unbroken")
    broken, batches = Run(SPEC), Batches(DATA)
    for step in range(2):
        broken.learn(batches.batch(step))
    (tmp_path / "broken").mkdir()
    write_checkpoint(tmp_path / "broken", broken.state())
    resumed = train(SPEC, tmp_path / "broken")
    assert resumed.step == unbroken.step == 4
    for mine, theirs in zip(resumed.net.parameters(), unbroken.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert len((tmp_path / "unbroken" / "log.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    train(replace(SPEC, steps=1), tmp_path)
    with pytest.raises(ModelError, match="width"):
        train(replace(SPEC, net=replace(NET, width=12)), tmp_path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"checkpoint\.pt"):
        export(tmp_path, tmp_path / "net")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, busy_net: Net) -> Path:
    folder = tmp_path_factory.mktemp("export")
    run = Run(SPEC)
    run.net.load_state_dict(busy_net.state_dict())
    write_checkpoint(folder, run.state())
    export(folder, folder / "models" / "small-b4", scored=False)
    return folder / "models" / "small-b4.onnx"


def test_the_card_fits_the_file(exported: Path) -> None:
    card = ModelCard.read(exported.with_suffix(".json"))
    assert card.sha256 == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert (card.name, card.ratios, card.multiple) == ("small-b4", (RATIO,), 4)
    assert card.parameters == sum(p.numel() for p in Net(NET).parameters())
    assert "--ratio 4" in card.training["command"]
    assert [path.name for path in sorted(exported.parent.iterdir())] == ["small-b4.json", "small-b4.onnx"]  # no side files


@pytest.mark.parametrize(("count", "height", "width"), [(1, 8, 8), (3, 32, 20), (2, 52, 100)])
def test_onnx_answers_as_torch_at_any_size(exported: Path, busy_net: Net, count: int, height: int, width: int) -> None:
    rng = np.random.default_rng(5)
    masks = derive_masks(MaskSpec(ratio=RATIO, density=0.5), (height, width)).window()
    clip = np.full((3 * RATIO, height, width), 20, np.float32)
    batch = Batch.stack([fold(clip * rng.uniform(0.1, 1), masks, rng) for _ in range(count)])
    assert np.allclose(of_file(exported)(batch), of_net(busy_net)(batch), atol=1e-4)


def test_onnx_is_finite_where_nothing_was_exposed(exported: Path) -> None:
    zeros = np.zeros((1, 3, 16, 16), np.float32)
    nothing = np.zeros((1, RATIO, 16, 16), np.float32)
    assert np.isfinite(of_file(exported)(Batch(zeros, zeros, nothing, np.array([1000.0], np.float32), nothing))).all()


def test_scores_tell_net_and_rival_apart() -> None:
    clip = simulate.movie(np.random.default_rng(4), 3 * RATIO, 32)
    perfect, mean = score(lambda batch: batch.frames, "scene", clip / clip.mean(), doses=(5.0,))
    assert (perfect.method, mean.method) == ("net", "mean of frames")
    assert perfect.psnr_db > 100 > mean.psnr_db


def test_psnr_takes_the_peak_of_the_truth() -> None:
    truth = np.array([[[1.0, 2.0]]], np.float32)
    assert psnr(truth + 0.2, truth) == pytest.approx(20, abs=1e-4)


SHIPPED = Path(__file__).parents[2] / "decoder" / "framefold_decoder" / "models" / "first-light-b20.onnx"


@pytest.fixture(scope="module")
def shipped_clip() -> Array:
    """Of a movie that training never draws, mean about 1, (60, 96, 96)."""
    return Movie(MovieSpec(shape=(128, 128), dose=1.0, seed=0, loop=60)).clean(0, 60)[:, :96, :96]


def test_the_shipped_net_beats_averaging(shipped_clip: Array) -> None:
    rows = score(of_file(SHIPPED), "simulator", shipped_clip, doses=(5.0, 20.0))
    gains = [net.psnr_db - mean.psnr_db for net, mean in zip(rows[::2], rows[1::2], strict=True)]
    assert min(gains) > 2


def test_the_shipped_halo_hides_seams(shipped_clip: Array) -> None:
    card = ModelCard.read(SHIPPED.with_suffix(".json"))
    masks = derive_masks(MaskSpec(), (96, 96)).window()
    whole = fold(20 * shipped_clip, masks, np.random.default_rng(0))
    tile = Batch(*(a[..., 48:] if a.ndim == 4 else a for a in whole.arrays()))
    runtime = of_file(SHIPPED)
    frames = runtime(whole)[..., 48:]
    seam = np.sqrt(np.mean((runtime(tile) - frames)[..., card.halo :] ** 2))
    assert seam < 0.01 * np.sqrt(np.mean((frames - tile.frames) ** 2))
