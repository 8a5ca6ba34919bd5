"""How many frames the next group gets so that a stream keeps to a wire ratio."""

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold_encoder.budget import FEW, WIDTHS, ByteBudget, enough
from framefold_encoder.settings import EncoderSettings, load_encoder_settings
from framefold_protocol.errors import InputError, SettingsError

FRAME = 1_000_000


def stream(budget, sizes, late=0, audits=0):
    """Groups of the B asked for, whose snapshots have these bytes, known `late` groups later; their B and all bytes."""
    ratios, under_way, sent = [], deque(), 0
    for k, size in enumerate(sizes):
        ratios.append(budget.frames())
        under_way.append((ratios[-1], size))
        sent += size
        if audits and k % audits == 0:
            budget.count(0, 5 * FRAME)
            sent += 5 * FRAME
        if len(under_way) > late:
            budget.count(*under_way.popleft(), width=1.0)
    return ratios, sent


@given(st.floats(2, 60), st.integers(FRAME // 4, 2 * FRAME), st.integers(0, 3))
def test_a_steady_stream_gets_the_fewest_frames_that_keep_to_it(wire_ratio, size, late):
    ratios, sent = stream(ByteBudget(wire_ratio, FRAME, FRAME), [size] * 300, late)
    exact = wire_ratio * size / FRAME
    assert all(exact - 1 <= ratio <= exact + 2 for ratio in ratios[100:])
    assert sum(ratios) * FRAME / sent >= 0.97 * wire_ratio
    assert sum(ratios[100:]) / 200 <= exact + 1


def test_what_comes_on_top_is_made_up_for():
    ratios, sent = stream(ByteBudget(20, FRAME, FRAME), [FRAME // 2] * 400, late=2, audits=10)
    assert sum(ratios) * FRAME / sent == pytest.approx(20, rel=0.05)
    assert min(ratios[50:]) > 10


def test_a_scene_that_calms_down_gets_fewer_frames():
    sizes = [FRAME] * 60 + [FRAME // 3] * 200
    ratios, sent = stream(ByteBudget(20, FRAME, FRAME), sizes, late=2)
    assert ratios[59] == 20
    assert set(ratios[-20:]) <= {6, 7}
    assert sum(ratios) * FRAME / sent >= 19.5


def test_what_a_long_calm_spared_is_not_spent_all_at_once():
    budget = ByteBudget(20, FRAME, FRAME)
    for _ in range(1000):
        budget.count(32, FRAME // 3, 1.0)  # more frames than were asked for
    budget.count(20, FRAME, 1.0)
    assert 10 <= budget.frames() < 20


def coded(width, noise_bits):
    """Bytes of a snapshot of `FRAME` pixels whose noise takes so many bits in bins of one sigma."""
    return round(FRAME / 8 * max(noise_bits - math.log2(width), 0.2))


def settled(wire_ratio, noise_bits, longer=0):
    """B and widths of a stream's last groups, each of `longer` frames more than asked for, and its wire ratio."""
    budget, found = ByteBudget(wire_ratio, FRAME, FRAME, WIDTHS), []
    for _ in range(300):
        frames = budget.frames() + longer
        width = budget.width(frames)
        budget.count(frames, coded(width, noise_bits), width)
        found.append((frames, width, coded(width, noise_bits)))
    ratios, widths, sizes = zip(*found[100:], strict=True)
    return ratios, widths, sum(ratios) * FRAME / sum(sizes)


@given(st.floats(8, 100), st.floats(1.5, 5))
def test_few_frames_are_summed_in_the_narrowest_bins_that_the_bytes_allow(wire_ratio, noise_bits):
    ratios, widths, reached = settled(wire_ratio, noise_bits)
    assert reached >= 0.97 * wire_ratio
    needed = [wire_ratio * coded(width, noise_bits) / FRAME for width in (WIDTHS[0], WIDTHS[-1])]
    low, high = sorted((enough(math.ceil(needed[0]), math.ceil(needed[1])), FEW))
    assert low - 2 <= min(ratios) <= max(ratios) <= high + 2
    if needed[0] < FEW - 1:
        assert set(widths[-50:]) <= {*WIDTHS[:2]}
    if needed[1] > FEW + 1:
        assert set(widths[-50:]) <= {*WIDTHS[-2:]}


def test_a_scene_that_gets_more_frames_gets_narrower_bins():
    assert set(settled(40, 2.0)[1][-50:]) <= {1.4, 2.0}
    assert set(settled(40, 2.0, longer=12)[1][-50:]) == {1.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"coder": "variance-stabilised"}, "no wire_ratio says how many bytes"),
        ({"wire_ratio": 30}, "coder lossless has no bins"),
    ],
)
def test_bins_are_free_only_where_there_are_bins_and_bytes(keys, message):
    with pytest.raises(InputError, match=message):
        _ = EncoderSettings(step_sigma="auto", **keys).widths_free


def test_what_is_no_snapshot_counts_and_tells_nothing_of_the_next():
    budget, other = ByteBudget(20, FRAME, FRAME), ByteBudget(20, FRAME, FRAME)
    for one in (budget, other):
        one.count(10, FRAME // 2, 1.0)
    budget.count(1, FRAME // 20 + 1600)
    assert other.frames() == 10
    assert budget.frames() == 11


def test_without_a_range_it_chooses_among_all_that_nets_take():
    assert str(EncoderSettings(wire_ratio=30).ratio) == "4..32"
    assert str(EncoderSettings(wire_ratio=30, ratio="10..20").ratio) == "10..20"
    assert str(EncoderSettings().ratio) == "20"


def test_a_fixed_ratio_leaves_nothing_to_choose():
    with pytest.raises(InputError, match=r"ratio is 20, which leaves wire_ratio nothing to choose.*4\.\.32"):
        _ = EncoderSettings(wire_ratio=30, ratio=20).families


@pytest.mark.parametrize("value", ["1", "0.5", "nan", "x"])
def test_a_wire_ratio_is_more_than_one(value):
    with pytest.raises(SettingsError, match=f"--wire-ratio is '{value}'"):
        load_encoder_settings(None, {"wire_ratio": value})
