"""Groups of frames to messages: the gap before it, its snapshot, or its frames where it makes none; each with its place.

Where B is free, a group can turn out to be two scenes, or to move more than the ones before it: it is taken apart then.
Folding happens here and now, in memory that goes round; coding is left to the `Coders`. Nothing about links or journals.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from framefold_encoder.budget import WIDTHS, ByteBudget
from framefold_encoder.coders import Coders
from framefold_encoder.cutting import cut, taken_apart
from framefold_encoder.exposure import SMALLEST_RATIO, borne, is_still
from framefold_encoder.folding import FRAME_DTYPES, Folder
from framefold_encoder.motion import COUNTING
from framefold_encoder.noise_meter import NoiseMeter
from framefold_encoder.ring import Group
from framefold_encoder.settings import EncoderSettings
from framefold_encoder.sources import SourceInfo
from framefold_encoder.summary import Summary
from framefold_encoder.watch import Watch
from framefold_protocol import payload, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.coding import BLOCK, BlockMap, Coding
from framefold_protocol.errors import InputError
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Audit, Gap, RawFrames, Snapshot
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import FEWEST_FRAMES
from framefold_protocol.wire import Parts

_log = logging.getLogger(__name__)

Frames = npt.NDArray[np.unsignedinteger]
SHORTEST = 2
"""Frames of a part that is folded: the fewest that nets are trained on."""
_MAX_RAW_BYTES = 2**26
"""Of frames in one raw message."""
_LOST = "the encoder's buffers were full: the link or the decoder did not keep up"


class GroupEncoder:
    """Encodes the groups of one stream, in order."""

    def __init__(self, info: SourceInfo, settings: EncoderSettings) -> None:
        """Compiles the fold, so that no frame waits for it. Raises `InputError` when the frames or masks do not fit."""
        self._started = time.perf_counter()
        self._info = info
        self._settings = settings
        gain = info.counts_per_electron or settings.counts_per_electron
        self._noise = NoiseMeter(gain)
        if info.counts_per_electron and settings.counts_per_electron not in (None, info.counts_per_electron):
            _log.warning("the source tells its gain, %g; counts_per_electron is not used", info.counts_per_electron)
        ratios = range(SHORTEST if settings.wire_ratio else settings.ratio.smallest, settings.ratio.largest + 1)
        self._folders = {ratio: self._folder(ratio) for ratio in ratios}
        largest = self._folders[settings.ratio.largest]
        self.coding = Coding(largest.families)
        """The stream's families, at their largest ratio."""
        self.snapshot_bytes = math.prod(largest.shape) * largest.sum_dtype.itemsize
        if self.snapshot_bytes > wire.MAX_PAYLOAD_BYTES:
            found = f"frames of {info.shape[0]} x {info.shape[1]} pixels make snapshots of {self.snapshot_bytes:,} bytes"
            raise InputError(f"{found}, expected at most {wire.MAX_PAYLOAD_BYTES:,}", hint="Fold parts of the frame")
        self._watch = Watch(info.shape, settings.still_below, settings.threads) if settings.adapts else None
        for each in {one.sum_dtype: one for one in self._folders.values()}.values():
            frames = np.zeros((each.ratio, *each.shape), info.dtype)
            _compile_coders(frames[:1, :1], each.fold(frames)[:1])
            if settings.adapts:  # by another than the stream's, which is to see its frames only
                Watch(info.shape, settings.still_below).choose(frames, COUNTING)
            if settings.wire_ratio:
                cut(frames)
        self.still, self.borne = False, 0
        """Whether the last group that was read would have borne more frames in a sum, and how many it bears at most; 0: that is
        hard to tell. Only where B is free, and with `adaptive`, is it looked at."""
        settings.quantisation(self._noise.noise)  # an absurd gain is refused now
        pixels, widths = math.prod(info.shape), WIDTHS if settings.widths_free else ()
        frame_bytes = pixels * info.dtype.itemsize
        self.budget = ByteBudget(settings.wire_ratio, frame_bytes, pixels, widths) if settings.wire_ratio else None
        """Says how many frames the next group needs; None: no wire ratio is asked for."""
        self._next_audit: int | None = None
        """Snapshots before the next that is sent raw, too; None: not known yet, for a stream may be taken up."""
        self._exposures: dict[int, tuple[int, int]] = {}
        """Least and largest of the groups of a ratio."""
        self.position = self.frames = 0
        """Of the stream's next message, and frames before it. Set both to go on with a stream."""
        self._folding_s = self._coding_s = 0.0
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def gb_s(self) -> float:
        """Bytes of frames over the time spent folding and coding, in GB/s; 0 before the first message is coded."""
        return self._bytes / (self._folding_s + self._coding_s) / 1e9 if self._coding_s else 0.0

    def taken_apart(self, group: Group, least: int) -> Iterator[Group]:
        """A group, or where B is free what it is better folded as, of at least `least` frames where nothing jumps."""
        self._noise.look(group.frames)
        if self.budget is None:
            yield group
            return
        still, most = list[bool](), list[int]()

        def bears(scene: Frames) -> int:
            if self._watch is None or len(scene) < SMALLEST_RATIO:
                return 0
            seen = self._watch.look(scene, self._noise.noise or COUNTING)
            found = borne(seen, self._info.shape, len(scene))
            still.append(is_still(seen))
            most.extend([found] if found else [])
            return max(least, found) if found else 0

        first = group.first_frame
        scenes = list(taken_apart(group.frames, bears))
        self.still, self.borne = bool(still) and all(still), min(most, default=0)
        for frames in scenes:
            yield replace(group, frames=frames, first_frame=first)
            first += len(frames)

    def encode(self, group: Group, coders: Coders, summary: Summary) -> bool:
        """Hand a group to the coders, and count it; returns whether they still read its frames."""
        lost, frames = group.first_frame - self.frames, group.frames
        if lost:
            coders.submit(partial(wire.encode, Gap(*self._place(lost), _LOST)))
            summary.gaps += lost
        folded = len(frames) > 1 and len(frames) in self._folders  # a part too, or a last group, where B may be that small
        audited = folded and self._audit_due(summary.snapshots, len(frames))
        if folded:
            if audited:
                self._audit(group, coders)
            self._fold(group, coders, summary)
        else:
            for part in _parts(frames):
                header = (*self._place(len(part)), group.arrived_ns)
                coders.submit(partial(self._code_raw, header, part.copy()))
        summary.frames += len(frames)
        summary.bytes_in += frames.nbytes
        self._bytes += frames.nbytes
        return audited

    def _folder(self, ratio: int) -> Folder:
        masks = self._settings.mask_file
        specs = (spec.with_ratio(ratio) for spec in self._settings.families)
        families = [derive_masks(spec, self._info.shape, masks.parent if masks else None) for spec in specs]
        return Folder(families, self._info.dtype, self._settings.threads)

    def _audit_due(self, snapshots: int, frames: int) -> bool:
        """Whether this group is to be sent raw, too; one of too few frames to tell the noise leaves it to the next."""
        every = self._settings.audit
        if not every:
            return False
        if self._next_audit is None:
            self._next_audit = -(-snapshots // every) * every
        due = snapshots >= self._next_audit and frames >= min(FEWEST_FRAMES, self._settings.ratio.smallest)
        if due:
            self._next_audit = (snapshots // every + 1) * every
        return due

    def _place(self, frames: int) -> tuple[int, int, int]:
        """Position, first frame and number of frames of the stream's next message."""
        place = self.position, self.frames, frames
        self.position, self.frames = self.position + 1, self.frames + frames
        return place

    def _fold(self, group: Group, coders: Coders, summary: Summary) -> None:
        memory = coders.memory()
        start = time.perf_counter()
        block_map = self._watch.choose(group.frames, self._noise.noise or COUNTING) if self._watch else None
        sums = self._folders[len(group.frames)].fold(group.frames, block_map, memory)
        if not self._folding_s:
            summary.first_group_s = time.perf_counter() - self._started
            _log.info("first group after %.2f s, compiling and reading in", summary.first_group_s)
        self._folding_s += time.perf_counter() - start
        header = (*self._place(len(group.frames)), group.arrived_ns)
        quantisation = self._quantisation(len(group.frames))
        coders.submit(partial(self._code_snapshot, header, sums, block_map, quantisation, self._noise.news()), memory)
        summary.snapshots += 1
        summary.ratios[len(group.frames)] += 1

    def _quantisation(self, ratio: int) -> VarianceStabilised | None:
        """How a snapshot of so many frames is coded, by what is known of the noise now; None: exactly."""
        width = self.budget.width(ratio) if self.budget and self._settings.widths_free else None
        quantisation = self._settings.quantisation(self._noise.noise, width)
        if quantisation is None or not (quantisation.offset or quantisation.read_noise):
            return quantisation
        if ratio not in self._exposures:
            exposures = [masks.cell.sum(axis=0, dtype=np.int64) for masks in self._folders[ratio].families]
            self._exposures[ratio] = min(int(each.min()) for each in exposures), max(int(each.max()) for each in exposures)
        return quantisation.summed(*self._exposures[ratio])

    def _audit(self, group: Group, coders: Coders) -> None:
        """The group's frames as they are, beside the snapshot that follows."""
        for part in _parts(group.frames):
            position, first_frame, _ = self._place(0)
            header = position, first_frame, len(part), group.arrived_ns
            coders.submit(partial(self._code_audit, header, part))

    def _code_snapshot(
        self,
        header: tuple[int, int, int, int],
        sums: Frames,
        block_map: BlockMap | None,
        quantisation: VarianceStabilised | None,
        noise: NoiseModel | None,
    ) -> Parts:
        start = time.perf_counter()
        packed = payload.pack(sums, quantisation)
        map_bytes = block_map.tobytes() if block_map is not None and block_map.any() else None
        snapshot = Snapshot(*header, **vars(packed), block_map=map_bytes, quantisation=quantisation, noise=noise)
        parts = wire.encode(snapshot)
        return self._coded(parts, header[2], start, quantisation.step if quantisation else 1.0)

    def _code_raw(self, header: tuple[int, int, int, int], frames: Frames) -> Parts:
        start = time.perf_counter()
        packed = payload.pack(frames)
        parts = wire.encode(RawFrames(*header, **vars(packed)))
        return self._coded(parts, header[2], start)

    def _code_audit(self, header: tuple[int, int, int, int], frames: Frames) -> Parts:
        start = time.perf_counter()
        packed = payload.pack(frames)
        parts = wire.encode(Audit(*header, **vars(packed)))
        return self._coded(parts, 0, start)  # beside its snapshot

    def _coded(self, parts: Parts, frames: int, start: float, width: float | None = None) -> Parts:
        """Count a message of so many frames, begun at `start`; `width` of a snapshot's bins."""
        if self.budget:
            self.budget.count(frames, wire.size(parts), width)
        with self._lock:
            self._coding_s += time.perf_counter() - start
        return parts


def warm_up() -> None:
    """Compile all that groups go through, for every frame type, or load what was compiled before; takes seconds the first time
    on a machine."""
    for frame_dtype in FRAME_DTYPES:
        for ratio in (1, SMALLEST_RATIO):  # sums as wide as the frames, and wider
            folder = Folder([derive_masks(MaskSpec(kind="ones", ratio=ratio), (1, BLOCK))], frame_dtype)
            frames = np.zeros((ratio, 1, BLOCK), frame_dtype)
            _compile_coders(frames, folder.fold(frames))
        Watch((1, BLOCK), ()).choose(frames, COUNTING)
        cut(frames)


def _compile_coders(frames: Frames, sums: Frames) -> None:
    payload.pack(frames)
    payload.pack(sums + sums.dtype.type(2**15), VarianceStabilised())  # bins above a byte
    for quantisation in (None, VarianceStabilised()):
        payload.pack(sums, quantisation)


def _parts(frames: Frames) -> Iterator[Frames]:
    """Frames as many as a message takes: the same parts wherever a restart goes on."""
    count = max(1, _MAX_RAW_BYTES // max(frames[:1].nbytes, 1))
    return (frames[first : first + count] for first in range(0, len(frames), count))
