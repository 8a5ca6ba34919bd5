"""How many frames the next group gets: fixed, or following the link within its bounds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold_encoder.ratio import RatioRange
from framefold_encoder.settings import EncoderSettings, load_encoder_settings
from framefold_protocol.errors import InputError, SettingsError

BACKLOG = st.floats(0, 1.5)


@pytest.mark.parametrize(
    ("text", "smallest", "largest"),
    [("20", 20, 20), (20, 20, 20), ("10..30", 10, 30), ("auto", 10, 30), (1, 1, 1), ("7..7", 7, 7)],
)
def test_what_may_be_written(text, smallest, largest):
    found = EncoderSettings(ratio=text).ratio
    assert (found.smallest, found.largest) == (smallest, largest)
    assert RatioRange.parse(str(found)) == found


@pytest.mark.parametrize("text", ["0", "257", "30..10", "1..20", "10..257", "10-30", "x", "", "10..", 2.5, "-3"])
def test_what_may_not(text):
    expected = f"--ratio is {text!r}, expected: a number of frames from 1 to 256, a range such as 10..30, or auto"
    with pytest.raises(SettingsError, match=re.escape(expected)):
        load_encoder_settings(None, {"ratio": text})


def test_masks_of_a_file_have_one_ratio(tmp_path):
    settings = EncoderSettings(ratio="10..30", mask="file", mask_file=tmp_path / "masks.npy")
    with pytest.raises(InputError, match=r"ratio is 10\.\.30, but the masks of file masks\.npy have one only"):
        _ = settings.families


@given(st.integers(2, 100), st.integers(0, 100), st.lists(BACKLOG, max_size=50))
def test_it_never_leaves_its_bounds_and_moves_towards_what_the_backlog_asks(smallest, more, backlogs):
    bounds = RatioRange(smallest, smallest + more)
    ratio = smallest
    for backlog in backlogs:
        after = bounds.next(ratio, backlog)
        assert bounds.smallest <= after <= bounds.largest
        assert after >= ratio if backlog > 0.5 else after <= ratio
        ratio = after


@given(st.integers(2, 100), st.integers(0, 100))
def test_a_full_link_reaches_the_largest_and_an_idle_one_the_smallest(smallest, more):
    bounds = RatioRange(smallest, smallest + more)
    ratio = bounds.smallest
    for _ in range(more):
        ratio = bounds.next(ratio, 1.0)
    assert ratio == bounds.largest
    for _ in range(more):
        ratio = bounds.next(ratio, 0.0)
    assert ratio == bounds.smallest
