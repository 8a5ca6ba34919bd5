"""How much of the noise a reconstruction follows is found by changing its snapshot; the best frames then have a chi2 of 1."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie

from framefold_decoder.decoding import trust
from framefold_decoder.followed import Change, followed
from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

RATIO = 10
NOISE = NoiseModel()


class Follower:
    """Knows the truth, and follows a share of what a snapshot deviates from it, pixel by pixel."""

    name, provider = "follower", "numpy"

    def __init__(self, expected, share):
        self.expected, self.share, self.calls = expected, share, 0

    def reconstruct(self, group, before, after, noise):
        self.calls += 1
        masks = group.coding.window()
        height, width = group.coding.shape
        wanted = np.sum(masks * np.float64(self.expected), axis=0)
        following_ = self.share * (group.snapshot - wanted) / np.maximum(masks.sum(0), 1)
        return np.broadcast_to(np.float32(self.expected), (RATIO, height, width)) + (following_ * masks).astype(np.float32)


def flat(shape, dose, *specs, seed=0):
    masks = coding(shape, *specs)
    return fold(np.random.default_rng(seed).poisson(dose, (RATIO, *shape)), masks)


@pytest.mark.parametrize("shape", [(40, 50), (192, 200), (520, 300)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("dose", [5.0, 200.0])
def test_a_known_share_is_found_and_taken_out_of_chi2(shape, share, dose):
    group = flat(shape, dose, MaskSpec(ratio=RATIO), MaskSpec("ones", RATIO))
    net = Follower(dose, share)
    frames = net.reconstruct(group, [], [], NOISE)
    found = followed((group, [], []), frames, NOISE, net)
    assert found == pytest.approx(share, abs=0.01)
    explained, same = trust((group, [], []), frames, NOISE, net)
    assert same == found
    assert explained == pytest.approx((1 - share) ** 2 / (1 - share), rel=0.1)  # too low: a known truth needs no following


@pytest.mark.parametrize("spread", [0.03, 0.1, 0.2])
def test_the_best_frames_have_a_chi2_of_1_however_much_they_follow(spread):
    """Brightness drawn from a gamma distribution: the mean of what a Poisson snapshot leaves possible is known."""
    rng, shape, mean = np.random.default_rng(5), (256, 192), 20.0
    scale = mean * spread**2
    movie = np.broadcast_to(rng.gamma(mean / scale, scale, shape), (RATIO, *shape))
    group = fold(rng.poisson(movie), coding(shape, MaskSpec("ones", RATIO)))

    class Best(Follower):
        def reconstruct(self, group, before, after, noise):
            best = (mean / scale + group.snapshot) / (1 / scale + RATIO)
            return np.broadcast_to(best.astype(np.float32), (RATIO, *group.coding.shape))

    net = Best(mean, 0.0)
    explained, share = trust((group, [], []), net.reconstruct(group, [], [], NOISE), NOISE, net)
    assert share == pytest.approx(RATIO / (RATIO + 1 / scale), abs=0.02)
    assert explained == pytest.approx(1, abs=0.05)


def test_frames_that_are_wrong_are_not_excused_by_what_they_follow():
    group = flat((192, 192), 20.0, MaskSpec(ratio=RATIO))
    net = Follower(26.0, 0.5)
    explained, _ = trust((group, [], []), net.reconstruct(group, [], [], NOISE), NOISE, net)
    bias = 3 * 6.0**2 / 20  # of three exposed frames, in units of their noise
    assert explained == pytest.approx(0.5 * (1 + bias), rel=0.15)


def test_a_large_frame_costs_a_few_small_windows_and_another_snapshot_has_others():
    group = flat((1024, 1100), 20.0, MaskSpec(ratio=RATIO))
    seen = []

    class Watched(Follower):
        def reconstruct(self, group, before, after, noise):
            seen.append((group.coding.shape, group.snapshot[:4, :4].tobytes()))
            return super().reconstruct(group, before, after, noise)

    net = Watched(20.0, 0.0)
    frames = net.reconstruct(group, [group], [], NOISE)
    seen.clear()
    for number in (0, 1):
        followed((group, [group], []), frames, NOISE, net, number)
    assert {shape for shape, _ in seen} == {(128, 128)}
    assert len(seen) == 2 * 8
    assert len({corner for _, corner in seen}) == 16
    again = list(seen)
    followed((group, [group], []), frames, NOISE, net, 1)
    assert seen[16:] == again[8:]  # the same snapshot gives the same


@pytest.mark.parametrize(
    ("shape", "windows"), [((40, 50), 1), ((256, 256), 1), ((512, 128), 1), ((260, 256), 4), ((700, 700), 7)]
)
def test_a_small_frame_is_looked_at_as_a_whole(shape, windows):
    group = flat(shape, 20.0, MaskSpec(ratio=RATIO))
    net = Follower(20.0, 0.3)
    followed((group, [], []), net.reconstruct(group, [], [], NOISE), NOISE, net)
    assert net.calls == 1 + windows


def test_frames_that_differ_in_a_window_without_any_change_do_not_count_as_following():
    """As those of a net that makes each whole frame as bright as the whole snapshot says."""
    group = flat((512, 512), 20.0, MaskSpec(ratio=RATIO))
    net = Follower(20.0, 0.3)
    frames = net.reconstruct(group, [], [], NOISE) * np.float32(1.05)
    assert followed((group, [], []), frames, NOISE, net) == pytest.approx(0.3, abs=0.02)


def test_windows_come_to_cover_a_frame_of_any_size():
    for shape in ((384, 384), (512, 512), (1024, 700)):
        seen = np.zeros(shape, int)

        class Watched(Follower):
            def reconstruct(self, group, before, after, noise):
                top, left = divmod(int(group.snapshot[0, 0]), shape[1])  # noqa: B023
                seen[top : top + group.coding.shape[0], left : left + group.coding.shape[1]] += 1  # noqa: B023
                return super().reconstruct(group, before, after, noise)

        masks = coding(shape, MaskSpec(ratio=RATIO))
        group = FoldedGroup(np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape), masks)
        net = Watched(20.0, 0.0)
        frames = net.reconstruct(group, [], [], NOISE)
        seen[:] = 0
        for number in range(24):
            followed((group, [], []), frames, NoiseModel(0.0), net, number)
        assert (seen[: shape[0] // 64 * 64, : shape[1] // 64 * 64] > 0).mean() > 0.9


def test_a_window_is_measured_by_the_brightness_of_its_frame():
    levels = set()

    class Watched(Follower):
        def reconstruct(self, group, before, after, noise):
            levels.add(round(group.level(noise), 6))
            return super().reconstruct(group, before, after, noise)

    expected = np.full((512, 512), 1.0)
    expected[:256] = 300.0
    group = fold(np.random.default_rng(0).poisson(expected, (RATIO, 512, 512)), coding((512, 512), MaskSpec(ratio=RATIO)))
    net = Watched(20.0, 0.0)
    frames = net.reconstruct(group, [], [], NOISE)
    for number in range(4):
        followed((group, [], []), frames, NOISE, net, number)
    (level,) = levels
    assert level == pytest.approx(150.5, rel=0.01)


def test_frames_of_the_neighbours_alone_follow_nothing_and_are_told_from_better_ones():
    """A reconstruction of the neighbours' mean: all of the own noise is left, and that of the neighbours is added."""

    class Neighbours:
        name, provider = "neighbours", "numpy"

        def reconstruct(self, group, before, after, noise):
            mean = (before[0].snapshot.astype(float) + after[0].snapshot) / 2 / RATIO
            return np.broadcast_to(mean.astype(np.float32), (RATIO, *group.coding.shape))

    group, before, after = (flat((192, 192), 20.0, MaskSpec("ones", RATIO), seed=seed) for seed in range(3))
    three = group, [before], [after]
    explained, share = trust(three, Neighbours().reconstruct(*three, NOISE), NOISE, Neighbours())
    assert share == 0
    assert explained == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_snapshots_of_every_type_are_changed_within_it(dtype):
    masks = coding((70, 130), MaskSpec("ones", 2))
    top = np.iinfo(dtype).max
    snapshot = np.full(masks.shape, 60, dtype)
    snapshot[:10], snapshot[10:20] = 0, top
    group = FoldedGroup(snapshot, masks)
    change = Change.of(group, NOISE, np.random.default_rng(0))
    assert (change.counts[:20] == 0).all()
    assert set(np.abs(change.counts[20:]).ravel()) == {4}
    moved = change.changed()
    assert moved.snapshot.dtype == dtype
    assert (moved.snapshot[:20] == snapshot[:20]).all()
    assert (moved.snapshot[20:].astype(int) - 60 == change.counts[20:]).all()


def test_a_snapshot_without_counts_follows_nothing():
    group = FoldedGroup(np.zeros((70, 90), np.uint16), coding((70, 90), MaskSpec(ratio=RATIO)))
    net = Follower(0.0, 0.5)
    assert followed((group, [], []), net.reconstruct(group, [], [], NOISE), NOISE, net) == 0


def test_neighbours_are_cut_like_the_group():
    movie = moving_movie(3 * RATIO, (300, 260))
    masks = coding((300, 260), MaskSpec(ratio=RATIO), MaskSpec("one-hot", RATIO))
    earlier, group, later = (fold(part, masks) for part in np.split(np.random.default_rng(0).poisson(movie), 3))

    class Checked(GapTv):
        def reconstruct(self, group, before, after, noise):
            for one in (*before, *after):
                assert np.array_equal(one.coding.window(), group.coding.window())
                assert one.coding.shape == group.coding.shape
            return super().reconstruct(group, before, after, noise)

    three, solver = (group, [earlier], [later]), Checked()
    assert 0 < followed(three, solver.reconstruct(*three, NOISE), NOISE, solver) <= 1
