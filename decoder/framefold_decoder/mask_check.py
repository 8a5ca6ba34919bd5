"""Whether a stream's masks are the ones made here, without letting a peer hold the link while they are being made.

Small cells are derived at once. Large ones take seconds: a thread beside the link derives them, for one stream at a time, and
until it is done a peer is told `busy` and asks again. Digests are remembered; a bound on the bits bounds time and memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import StreamMetadata

_log = logging.getLogger(__name__)
_AT_ONCE_BITS = 2**22
"""About 0.1 s of deriving."""
_REMEMBERED = 4096

Cell = tuple[MaskSpec, tuple[int, int]]
"""What a digest derives from: the family, and the shape of the cell."""


class MaskCheck:
    """Checks the mask digests of streams. `folder` is where mask files lie, `max_bits` bounds one stream's cells together."""

    def __init__(self, folder: Path | None, max_bits: int) -> None:
        self._folder = folder
        self._max_bits = max_bits
        self._digests: dict[Cell, str] = {}
        self._lock = threading.Lock()
        self._worker = threading.Thread()

    def check(self, stream: StreamMetadata) -> None:
        """Raise `RemoteProtocolError`: `mask-hash`, `mask-size` or, for now, `busy`; `InputError` without the mask file."""
        cells = [_cell(spec, stream.shape) for spec in stream.families]
        if (bits := sum(map(_bits, cells))) > self._max_bits:
            message = f"the stream's mask cells have {bits} bits, expected at most {self._max_bits}"
            raise RemoteProtocolError(
                message, code="mask-size", hint="Use a mask period, or raise max_mask_bits of the decoder"
            )
        self._derive([cell for cell in dict.fromkeys(cells) if cell not in self._digests])
        for (spec, shape), digest in zip(cells, stream.mask_digests, strict=True):
            made = self._digests.get((spec, shape)) or derive_masks(spec, stream.shape, self._folder).digest
            if made != digest:
                message = f"masks {spec} are not the encoder's: digest {made[:16]}... expected here"
                raise RemoteProtocolError(message, code="mask-hash", hint="Use the same framefold and mask files on both sides")

    def _derive(self, cells: list[Cell]) -> None:
        if sum(map(_bits, cells)) <= _AT_ONCE_BITS:
            self._remember(cells)
            return
        if not self._worker.is_alive():
            self._worker = threading.Thread(target=self._remember, args=(cells,), name="mask-check", daemon=True)
            self._worker.start()
        raise RemoteProtocolError("large masks are being derived; ask again", code="busy", retry=True)

    def _remember(self, cells: Iterable[Cell]) -> None:
        for spec, shape in cells:
            if spec.kind != "file":  # a file may change
                digest = derive_masks(spec, shape).digest
                with self._lock:
                    self._digests[spec, shape] = digest
                    while len(self._digests) > _REMEMBERED:
                        del self._digests[next(iter(self._digests))]


def _cell(spec: MaskSpec, shape: tuple[int, int]) -> Cell:
    """Frames of all shapes share a repeated cell."""
    if spec.kind == "ones":
        return spec, (1, 1)
    return spec, (spec.period, spec.period) if spec.period and spec.kind != "file" else shape


def _bits(cell: Cell) -> int:
    """Of what has to be derived; a file is read."""
    (spec, (height, width)) = cell
    return 0 if spec.kind == "file" else spec.ratio * height * width
