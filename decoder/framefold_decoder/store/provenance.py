"""What is kept of a reconstruction beside its frames: what made them, and how far they can be trusted. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from framefold_protocol.noise import NoiseModel


@dataclass(frozen=True)
class Provenance:
    """What made a group's frames. The same on the same snapshots makes the same bytes, on a CPU."""

    model: str
    """The net's or solver's name."""
    sha256: str | None = None
    """Of the net's ONNX file; None for a solver, which is code."""
    code: str = ""
    """framefold's version, and the SHA-256 of its code for reconstruction, 12 digits of it: `0.1.0+3f8a...`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else they depend on: the provider, and versions of the libraries that compute; plain JSON values."""


@dataclass(frozen=True)
class Quality:
    """How well a snapshot was reconstructed, and the noise of one frame's pixel it was judged with. None: not known."""

    chi2: float | None
    """mean((Y - sum C X)^2 / var(Y)) over 1 - `followed`."""
    gain: float | None = None
    """Counts per electron."""
    offset: float | None = None
    """Counts without electrons."""
    read_noise: float | None = None
    """Standard deviation without electrons, counts."""
    psnr: float | None = None
    """dB, against the raw frames of an audit group, their noise taken out."""
    psnr_low: float | None = None
    """What it is at least, one standard error down."""
    psnr_high: float | None = None
    """What it is at most, one standard error up; None when the error is too small to be told from none."""
    ssim: float | None = None
    """Structural similarity, likewise."""
    followed: float | None = None
    """Share of the snapshot's noise that its frames follow, which the plain mean squared deviation does not show."""

    @property
    def noise(self) -> NoiseModel | None:
        """The detector's."""
        if self.gain is None:
            return None
        return NoiseModel(self.gain, self.offset or 0.0, self.read_noise or 0.0)
