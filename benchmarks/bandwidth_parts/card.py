"""The results as tables for people."""

from __future__ import annotations

from typing import Any

from common_parts.table import table

Row = dict[str, Any]


def card(results: dict[str, Any]) -> str:
    """Everything measured, a table a question."""
    machine = results["machine"]
    return "\n\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} before; "
            f"memory read {results['read_gb_s']:.1f} GB/s, memcpy {results['memcpy_gb_s']:.1f} GB/s",
            _title(
                "Folding: whole groups, as they come (live), one by one (single); block map, motion, with map: of the fold",
                _encode(results["encode_cases"]),
            ),
            _title("The whole encoder, from memory to acknowledged", _pipeline(results["pipeline"]["cases"])),
            _title(f"Coders at {results['dose']:g} e-/px and frame, one thread", _coders(results["coders"])),
            _title("Wire ratio of B frames (in brackets: what order-0 entropy allows)", _wire(results["wire"])),
            _title(f"Links (Gbit/s) that carry a detector, at {results['dose']:g} e-/px", _detectors(results["detectors"])),
            _link(results["link"]),
        ]
    )


def _title(title: str, table: str) -> str:
    return f"{title}\n{table}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _encode(cases: list[Row]) -> str:
    head = (
        "frames",
        "B",
        "threads",
        "GB/s",
        "of read",
        "bound",
        "live",
        "single",
        "block map",
        "motion",
        "with map",
        "x memcpy",
        "x JPEG",
        "x bitshuffle-LZ4",
    )
    rows = [
        (
            f"{case['side']}x{case['side']} {case['dtype']}",
            str(case["ratio"]),
            str(case["threads"]),
            _number(case["gb_s"], 1),
            _number(case["fraction_of_read"]),
            _number(case["bound"]),
            _number(case["live_fraction_of_read"]),
            _number(case["single_fraction_of_read"]),
            _number(case["map_fraction_of_fold"]),
            _number(case["motion_cost_of_fold"]),
            _number(case["map_cost_of_fold"]),
            _number(case["times_memcpy"]),
            _number(case["times_jpeg"], 0),
            _number(case["times_bitshuffle_lz4"], 1),
        )
        for case in cases
    ]
    return table(head, rows)


def _pipeline(cases: list[Row]) -> str:
    head = (
        "frames",
        "B",
        "masks",
        "threads",
        "GB/s",
        "kernel alone",
        "fraction",
        "cores' bound",
        "bare stages",
        "fraction",
        "CPU s/Gpx",
        "far side",
        "wire ratio",
    )
    rows = [
        (
            f"{case['side']}x{case['side']} {case['dtype']}",
            str(case["ratio"]),
            "adaptive" if case["adaptive"] else "plain",
            str(case["threads"]),
            _number(case["gb_s"], 1),
            _number(case["kernel_gb_s"], 1),
            _number(case["fraction_of_kernel"]),
            _number(case["bound"]),
            _number(case["stages_gb_s"], 1),
            _number(case["fraction_of_stages"]),
            _number(case["cpu_s_per_gigapixel"], 3),
            _number(case["far_cpu_s_per_gigapixel"], 3),
            _number(case["wire_ratio"], 1),
        )
        for case in cases
    ]
    return table(head, rows)


def _coders(rows: list[Row]) -> str:
    head = ("coder", "setting", "wire ratio", "GB/s", "CPU s/GB", "error/sigma", "PSNR dB")
    cells = []
    for row in rows:
        if "unavailable" in row:
            cells.append((row["coder"], f"left out: {row['unavailable']}", "-", "-", "-", "-", "-"))
            continue
        numbers = [_number(row.get(key), digits) for key, digits in (("gb_s", 3), ("cpu_s_per_gb", 2), ("error_sigma", 2))]
        cells.append(
            (row["coder"], row.get("setting", ""), _number(row["wire_ratio"]), *numbers, _number(row.get("psnr_db"), 1))
        )
    return table(head, cells, left=2)


def _wire(rows: list[Row]) -> str:
    doses = list(dict.fromkeys(row["dose"] for row in rows))
    lines = list(dict.fromkeys((row["coder"], row["ratio"]) for row in rows))
    found = {(row["coder"], row["ratio"], row["dose"]): row for row in rows}
    types = {row["dose"]: row["dtype"] for row in rows}
    head = ("coder", "B", *(f"{dose:g} e-/px ({types[dose]})" for dose in doses))
    cells = [(coder, str(ratio), *(_ratio(found.get((coder, ratio, dose))) for dose in doses)) for coder, ratio in lines]
    return table(head, cells)


def _ratio(row: Row | None) -> str:
    if row is None:
        return "-"
    bound = "" if row["entropy_ratio"] is None else f" ({row['entropy_ratio']:.1f})"
    return f"{row['wire_ratio']:.1f}{bound}"


def _detectors(rows: list[Row]) -> str:
    head = (
        "detector",
        "frame",
        "frames/s",
        "bits",
        "raw Gbit/s",
        "link",
        "lossless",
        "link",
        "folded",
        "link",
        "encoder cores",
    )
    cells = []
    for row in rows:
        size = f"{row['shape'][1]}x{row['shape'][0]}"
        rates = []
        for kind in ("raw", "lossless", "folded"):
            link = row["smallest_link_gbit"][kind]
            rates += [_number(row["gbit_s"][kind], 1), "none" if link is None else str(link)]
        cells.append((row["name"], size, f"{row['rate_hz']:g}", str(row["bits"]), *rates, _number(row["encoder_cores"], 1)))
    return table(head, cells)


def _link(link: Row) -> str:
    size = f"{link['shape'][1]}x{link['shape'][0]} {link['dtype']}"
    return (
        f"Through a link of {link['gbit_s']:g} Gbit/s, {size}: {link['raw_frames_s']:.0f} frames/s as they are, "
        f"{link['folded_frames_s']:.0f} frames/s folded, {link['times_raw']:.1f} times as many; "
        f"{link['auto_frames_s']:.0f} frames/s with --ratio auto, which chose {link['auto_mean_ratio']:.1f} frames on average"
    )
