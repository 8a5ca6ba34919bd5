"""What blocks are taken to move by: their own motion, that of the groups before, and of the blocks around."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold_encoder.motion import motion
from framefold_encoder.watch import Watch
from framefold_protocol.coding import block_map_shape

BELOW = (4.0, 0.3)


def moved(shape, value=0.0, at=None):
    found = np.zeros(block_map_shape(shape), np.float32)
    found[at if at is not None else slice(None)] = value
    return found


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.floats(-0.5, 16, width=32),
    st.integers(1, 6),
)
@settings(deadline=None)
def test_what_moves_alike_everywhere_and_always_moves_by_that_much(shape, value, groups):
    watch = Watch(shape, BELOW)
    for _ in range(groups):
        assert watch.add(moved(shape, value), 20) == pytest.approx(value, abs=1e-4)


def test_what_moves_counts_at_once_and_fades():
    watch = Watch((64, 64), BELOW)
    watch.add(moved((64, 64), 0.0), 20)
    found = [float(watch.add(moved((64, 64), value), 20)[0, 0]) for value in (12.0, 0.0, 0.0, 0.0)]
    assert found[0] == pytest.approx(12 / 1.5)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1


def test_a_block_that_moves_is_no_secret_to_those_around_it_and_to_no_others():
    shape = 320, 320
    found = Watch(shape, BELOW).add(moved(shape, 1e6, (2, 2)), 20)
    assert found[2, 2] > BELOW[0]
    around = found[1:4, 1:4][np.arange(9).reshape(3, 3) != 4]
    assert (around > BELOW[1]).all()
    assert (around < BELOW[0]).all()  # however far it moves
    assert np.count_nonzero(found) == 9


def test_a_strip_that_is_cut_off_counts_as_little_as_it_is():
    shape = 70, 64  # the second block has six rows
    found = Watch(shape, BELOW).add(moved(shape, 4.0, (1, 0)), 20)
    assert found[0, 0] == pytest.approx(0.6 * 4 * 6 / 70, rel=1e-3)


def test_motion_of_other_sums_is_told_in_those_of_now_and_of_far_others_forgotten():
    shape = 64, 64
    watch = Watch(shape, BELOW)
    watch.add(moved(shape, 1.0), 16)
    assert watch.add(moved(shape, 0.0), 20)[0, 0] == pytest.approx(0.5 * 1.25**3 / 1.5, rel=1e-3)
    watch = Watch(shape, BELOW)
    watch.add(moved(shape, 1.0), 8)
    assert watch.add(moved(shape, 0.0), 20)[0, 0] == 0


def test_a_column_that_hops_between_the_rows_is_found_before_long():
    """A disc of 40 pixels in a block of 4096, seen only when its rows are looked at."""
    shape = 1024, 512
    y, x = np.ogrid[:1024, :512]
    column = 60.0 * (((y - 70) ** 2 + (x - 100) ** 2) < 12)  # in block (1, 1), far from its middle
    watch, rng, found = Watch(shape, BELOW), np.random.default_rng(2), []
    for _ in range(12):
        expected = np.repeat(np.stack([20 + column, np.full(shape, 20.0)]), 10, axis=0)
        seen = watch.add(motion(rng.poisson(expected).astype(np.uint8), row=watch.row), 20)
        found.append(seen[1, 1] > 2)
        assert np.mean(seen > BELOW[1]) < 0.2  # all others are still
    assert not found[0]
    assert any(found)


def test_rows_come_closer_and_closer_until_all_have_been_looked_at():
    watch, rows = Watch((64, 64), BELOW), []
    for _ in range(64):
        rows.append(watch.row)
        watch.add(moved((64, 64)), 20)
    assert sorted(rows) == list(range(64))
    early = np.sort(rows[:8])
    assert max(np.diff([*early, early[0] + 64])) <= 14
