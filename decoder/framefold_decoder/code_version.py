"""Which code reconstructs: framefold's version, and a digest of the source files that frames depend on."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import framefold_protocol

_DECODER, _PROTOCOL = Path(__file__).parent, Path(framefold_protocol.__file__).parent
DIGITS = 12


@cache
def code_version() -> str:
    """Such as `0.1.0+3f8a12c04d7e`: two that agree make the same frames of the same snapshots with the same model, on a CPU."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    return f"{version('framefold')}+{digest.hexdigest()[:DIGITS]}"


def _sources() -> list[Path]:
    """What lies between a stored snapshot and stored frames, in a fixed order."""
    ours = [*sorted((_DECODER / "reconstruct").glob("*.py"))]
    ours += [_DECODER / name for name in ("decoding.py", "store/rounding.py")]
    names = ("counter", "masks", "mask_file", "coding", "model", "noise", "photon_transfer")
    return ours + [_PROTOCOL / f"{name}.py" for name in names]
