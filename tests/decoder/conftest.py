"""What many tests of the decoder begin with."""

import pytest

from framefold_decoder.library import Library


@pytest.fixture
def library(tmp_path):
    library = Library.open(tmp_path / "data")
    yield library
    library.close()
