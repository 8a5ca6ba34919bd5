"""Known detectors, and which network links carry their frames: raw, losslessly coded, folded.

Frame size and rate are those of the stated mode at full speed; `bits` is what a pixel takes as it is handed on (12-bit counts
come in 16). Bytes on the wire are computed from what was measured at the stated dose on frames of that size and type. The dose
is the same for all, though a scanning detector at 100 kHz sees far fewer electrons a frame, which code smaller.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bandwidth_parts.encoding import CACHE_BYTES
from bandwidth_parts.folded import RATIO, FoldedCoder
from bandwidth_parts.material import Counts, fit

LINKS_GBIT = (1, 10, 100)
USABLE = 0.95
"""Of a link's nominal rate: what Ethernet, IP and TCP headers leave of 1500-byte packets."""


@dataclass(frozen=True)
class Detector:
    """One detector in one mode."""

    name: str
    shape: tuple[int, int]
    """(H, W) in pixels."""
    rate_hz: float
    """Frames per second."""
    bits: int
    """Bits a pixel as handed on: 8 or 16."""
    source: str
    """Where size and rate stand."""

    @property
    def raw_gbit_s(self) -> float:
        """What it delivers."""
        return self.shape[0] * self.shape[1] * self.bits * self.rate_hz / 1e9


DETECTORS = (
    Detector(
        "4D Camera (LBNL)",
        (576, 576),
        87_000,
        16,
        "Ercius et al., Microsc. Microanal. 2024, doi:10.1093/mam/ozae086 (480 Gbit/s)",
    ),
    Detector(
        "DECTRIS ARINA, binned 2x2",
        (96, 96),
        120_000,
        16,
        "Zambon et al., Front. Phys. 11, 1308321 (2023): 120 kHz; size in that mode: LiberTEM-live documentation, DECTRIS",
    ),
    Detector("DECTRIS QUADRO, 8 bit", (512, 512), 4_500, 8, "LiberTEM-live documentation, DECTRIS: 512x512 at 4500 Hz"),
    Detector(
        "Merlin quad (Medipix3), 12 bit",
        (512, 512),
        1_220,
        16,
        "1.64 ms readout at 24 bit (instamatic's tracker), half of it at 12: bits are shifted out one after the other",
    ),
    Detector(
        "Direct Electron Celeritas, 256x256",
        (256, 256),
        20_000,
        16,
        "metadata of a recorded data set (12 bit, 20 kHz) in the SEQ reader's tests by C. Francis, pyxem",
    ),
    Detector(
        "EMPAD-G2",
        (128, 128),
        10_000,
        16,
        "Philipp et al., Microsc. Microanal. 28, 425 (2022): 10 kHz; 16 of its more bits counted here",
    ),
    Detector("Gatan K2, sensor readout", (3710, 3838), 400, 16, "Gatan, K2 Summit User's Guide: 400 full frames/s, 5.7 Gpx/s"),
    Detector(
        "Gatan K3, sensor readout",
        (4092, 5760),
        1_500,
        16,
        "size: camera properties in C. Xu's SerialEM notes, UMass cryo-EM core; rate as commonly given, before counting; "
        "not checked against Gatan's manual (1025.40004)",
    ),
    Detector(
        "Gatan K3, counted frames",
        (4092, 5760),
        75,
        8,
        "size as above; rate as commonly given, to the computer; not checked against Gatan's manual (1025.40004)",
    ),
)


def table(counts: Counts, dose: float, lossless_bits: float) -> list[dict[str, Any]]:
    """A row for each detector. `lossless_bits`: a pixel's bits on the wire with the best lossless coder measured at `dose`."""
    return [_row(detector, counts, dose, lossless_bits) for detector in DETECTORS]


def _row(detector: Detector, counts: Counts, dose: float, lossless_bits: float) -> dict[str, Any]:
    folded_bits, core_gb_s = _measure(detector, counts)
    raw = detector.raw_gbit_s
    share = {"raw": 1.0, "lossless": min(1.0, lossless_bits / detector.bits), "folded": folded_bits / detector.bits}
    rates = {name: raw * part for name, part in share.items()}
    return {
        **asdict(detector),
        "dose": dose,
        "ratio": RATIO,
        "wire_ratio": detector.bits / folded_bits,
        "gbit_s": rates,
        "smallest_link_gbit": {name: _smallest_link(rate) for name, rate in rates.items()},
        "encoder_gb_s_per_core": core_gb_s,
        "encoder_cores": raw / 8 / core_gb_s,
    }


def _smallest_link(gbit_s: float) -> int | None:
    return next((link for link in LINKS_GBIT if gbit_s <= USABLE * link), None)


def _measure(detector: Detector, counts: Counts) -> tuple[float, float]:
    """Bits on the wire a pixel of a frame, and GB/s folding and coding on one core, the median of 7, at this frame size.

    The type is the detector's, unless the counts need a larger one: what is sent are the same sums.
    """
    dtype: np.dtype[np.unsignedinteger] = np.dtype(np.uint8 if detector.bits == 8 and counts.max() < 256 else np.uint16)
    group_bytes = RATIO * detector.shape[0] * detector.shape[1] * dtype.itemsize
    groups = max(1, CACHE_BYTES // group_bytes)
    frames = fit(counts, (groups * RATIO, *detector.shape), dtype)
    coder = FoldedCoder(frames, RATIO)
    folded_bits = dtype.itemsize * 8 / coder.wire_ratio(frames)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        coder.encode(frames)
        times.append(time.perf_counter() - start)
    return folded_bits, frames.nbytes / float(np.median(times)) / 1e9
