"""How much of the noise a reconstruction follows is found by changing its snapshot; chi2 is then 1 whatever it follows."""

from __future__ import annotations

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie

from framefold_decoder.decoding import trust
from framefold_decoder.followed import followed
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

    def reconstruct(self, group, previous, following, noise):
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
    found = followed((group, None, None), NOISE, net)
    assert found == pytest.approx(1 - (1 - share) ** 2, abs=0.01)
    explained, same = trust((group, None, None), net.reconstruct(group, None, None, NOISE), NOISE, net)
    assert same == found
    assert explained == pytest.approx(1, abs=0.1)


def test_frames_that_are_wrong_are_not_excused_by_what_they_follow():
    group = flat((192, 192), 20.0, MaskSpec(ratio=RATIO))
    net = Follower(22.0, 0.5)
    explained, _ = trust((group, None, None), net.reconstruct(group, None, None, NOISE), NOISE, net)
    bias = (
        3 * 2.0**2 / 20
    )  # of three exposed frames, in units of their noise: what is followed of it is followed of the noise too
    assert explained == pytest.approx(1 + bias, rel=0.15)


def test_a_large_frame_costs_a_few_small_windows_and_another_snapshot_has_others():
    group = flat((1024, 1100), 20.0, MaskSpec(ratio=RATIO))
    seen = []

    class Watched(Follower):
        def reconstruct(self, group, previous, following, noise):
            seen.append((group.coding.shape, group.snapshot[:4, :4].tobytes()))
            return super().reconstruct(group, previous, following, noise)

    net = Watched(20.0, 0.0)
    for number in (0, 1):
        followed((group, group, None), NOISE, net, number)
    assert {shape for shape, _ in seen} == {(128, 128)}
    assert len(seen) == 2 * 8
    assert len({corner for _, corner in seen}) == 16
    again = list(seen)
    followed((group, group, None), NOISE, net, 1)
    assert seen[16:] == again[8:]  # the same snapshot gives the same


def test_a_snapshot_without_counts_follows_nothing():
    group = FoldedGroup(np.zeros((70, 90), np.uint16), coding((70, 90), MaskSpec(ratio=RATIO)))
    assert followed((group, None, None), NOISE, Follower(0.0, 0.5)) == 0


def test_neighbours_are_cut_like_the_group():
    movie = moving_movie(3 * RATIO, (300, 260))
    masks = coding((300, 260), MaskSpec(ratio=RATIO), MaskSpec("one-hot", RATIO))
    before, group, after = (fold(part, masks) for part in np.split(np.random.default_rng(0).poisson(movie), 3))

    class Checked(GapTv):
        def reconstruct(self, group, previous, following, noise):
            for one in (previous, following):
                assert np.array_equal(one.coding.window(), group.coding.window())
                assert one.coding.shape == group.coding.shape
            return super().reconstruct(group, previous, following, noise)

    assert 0 < followed((group, before, after), NOISE, Checked()) <= 1
