"""Which connection feeds a stream: the newest claim, and of equal ones the first."""

import pytest
from test_session import STREAM

from framefold_protocol.claims import Claims
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.session import Opened


def opened(run, attempt):
    return Opened(STREAM, run=run, attempt=attempt)


@pytest.mark.parametrize("newer", [(2, 2), (3, 1)])
def test_a_newer_hello_takes_the_stream_and_a_late_one_does_not_take_it_back(newer):
    claims: Claims[str] = Claims()
    assert claims.take(opened(2, 1), "old") is None
    assert claims.take(opened(*newer), "new") == "old"
    with pytest.raises(RemoteProtocolError, match="newer connection"):
        claims.take(opened(2, 1), "old")
    assert claims.take(opened(*newer), "new") is None


def test_of_two_copies_of_one_encoder_the_first_keeps_the_stream_until_it_drops_it():
    claims: Claims[str] = Claims()
    claims.take(opened(2, 1), "first")
    with pytest.raises(RemoteProtocolError, match="newer connection"):
        claims.take(opened(2, 1), "copy")
    assert claims.take(opened(2, 1), "first") is None
    claims.drop(STREAM.stream_id, "first")
    assert claims.take(opened(2, 1), "copy") is None


def test_an_encoder_that_does_not_count_its_hellos_reconnects():
    claims: Claims[str] = Claims()
    claims.take(opened(0, 0), "before the cut")
    assert claims.take(opened(0, 0), "after it") == "before the cut"
