"""The results as tables for people."""

from __future__ import annotations

from typing import Any

from common_parts.table import table

Row = dict[str, Any]
NAMES = ("p50", "p99", "max")


def card(results: dict[str, Any]) -> str:
    """Everything measured, a table a question."""
    machine, cases = results["machine"], results["cases"]
    return "\n\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} before; "
            f"disk, written and fsynced in blocks: {results['disk_gb_s']:.2f} GB/s",
            f"From memory to the decoder's disk, B = 20, both journals, every ack after an fsync\n{_speed(cases)}",
            f"What it costs\n{_cost(cases)}",
            f"At a camera's pace: ms from a group's last frame to its ack, and to its frames on the disk\n{_latency(cases)}",
        ]
    )


def _speed(cases: list[Row]) -> str:
    head = (
        "frames",
        "frames/s stored",
        "GB/s",
        "without journals",
        "fraction",
        "messages GB/s",
        "fraction of the lower",
        "frames/s reconstructed",
        "GB/s",
    )
    rows = [
        (
            _size(case),
            f"{case['stored']['frames_s']:.0f}",
            f"{case['stored']['gb_s']:.2f}",
            f"{case['stored_without_journals']['frames_s']:.0f}",
            f"{case['fraction_of_without_journals']:.2f}",
            f"{case['written_gb_s']:.3f}",
            f"{case['fraction_of_the_lower']:.2f}",
            f"{case['reconstructed']['frames_s']:.1f}",
            f"{case['reconstructed']['gb_s']:.4f}",
        )
        for case in cases
    ]
    return table(head, rows)


def _cost(cases: list[Row]) -> str:
    head = (
        "frames",
        "encoder CPU ms/frame",
        "decoder storing",
        "and reconstructing",
        "encoder peak MB",
        "decoder peak MB",
        "wire ratio",
    )
    rows = [
        (
            _size(case),
            *(f"{case['cpu_ms_per_frame'][key]:.2f}" for key in ("encoder", "decoder", "decoder_reconstructing")),
            *(f"{case['peak_mb'][side]:.0f}" for side in ("encoder", "decoder")),
            f"{case['wire_ratio']:.1f}",
        )
        for case in cases
    ]
    return table(head, rows)


def _latency(cases: list[Row]) -> str:
    head = ("frames", "what is done", "frames/s", "groups", "ack p50", "p99", "max", "reconstruction p50", "p99", "max")
    rows = []
    for case in cases:
        for key, done in (("live_stored", "stored"), ("live_reconstructed", "reconstructed too")):
            live = case[key]
            found = [live["latency_ms"].get(kind, {}).get(name) for kind in ("ack", "reconstruction") for name in NAMES]
            cells = ("-" if value is None else f"{value:.0f}" for value in found)
            rows.append((_size(case), done, f"{live['frames_s']:.1f}", str(live["groups"]), *cells))
    return table(head, rows, left=2)


def _size(case: Row) -> str:
    return f"{case['side']}x{case['side']} {case['dtype']}"
