"""Where the evaluation recordings are: public clips that tests read and the project does not ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]


def evaluation_file(name: str) -> Path:
    """A recording by its path within the evaluation folder, such as `sci/pnpsci_runner.mat`; skips the test without it.

    The folder is FRAMEFOLD_EVALUATION_DATA, else `shared/data` beside the repository.
    """
    named = os.environ.get("FRAMEFOLD_EVALUATION_DATA")
    path = (Path(named) if named else _REPOSITORY.parent / "shared" / "data") / name
    if not path.is_file():
        pytest.skip(f"needs the recording {path}; set FRAMEFOLD_EVALUATION_DATA to the folder of recordings")
    return path
