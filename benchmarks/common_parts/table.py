"""Figures as a table of text."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as what is in them; the first `left` of them left-aligned."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    aligned = [
        [cell.ljust(width) if k < left else cell.rjust(width) for k, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in cells
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)
