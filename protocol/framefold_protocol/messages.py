"""The messages of the link as frozen nouns; their bytes are in `wire.py`, their order in `session.py`.

A stream's *positions* count its data messages from 0. `Snapshot`, `RawFrames`, `Audit` and `Gap` each take one position;
together they cover every frame of the stream exactly once, in order; `Audit` covers none. Fields added later have defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

PROTOCOL_VERSION = 3
"""The version of SPEC.md these messages are. Version 1 lacks `Audit`, and 2 payloads in planes."""
VERSIONS = (1, 3)
"""Lowest and highest version this package reads and writes."""
PLANES, BINS = "planes", "bins"
"""The payload codecs that are written, of exact values and of their bins; `payload.py` knows the others that are read."""


@dataclass(frozen=True)
class StreamMetadata:
    """What the encoder says of a stream when it opens it; constant for the stream's life."""

    stream_id: str
    """32 lower-case hex digits, made by the encoder, never used again."""
    name: str
    """For people: where the frames come from."""
    shape: tuple[int, int]
    """(H, W) of the frames in pixels."""
    dtype: str
    """Of the frames: uint8, uint16 or uint32, in detector counts."""
    families: tuple[MaskSpec, ...]
    """The mask families a group may be folded with; family 0 where there is no block map."""
    mask_digests: tuple[str, ...]
    """`Masks.digest` of each family: both ends must have made the same bits."""
    created_unix_ns: int
    """When the encoder opened the stream, nanoseconds since 1970, encoder's clock."""
    frame_count: int | None = None
    """Frames the source will deliver; None for a live source."""
    frame_time_s: float | None = None
    """Seconds per frame; None when unknown."""
    pixel_size_nm: float | None = None
    """Nanometres at the specimen per pixel; None when unknown."""
    counts_per_electron: float | None = None
    """Detector gain; None when unknown (it is then measured, see `Snapshot.noise` and `Audit`, or 1 is assumed)."""
    audit: int = 0
    """Every so many-th group is sent raw as well as folded; 0: none. Only then may there be `Audit` messages."""

    @property
    def ratio(self) -> int:
        """B, frames per snapshot."""
        return self.families[0].ratio


@dataclass(frozen=True)
class Hello:
    """Encoder: I have this stream. Sent first, and again after every silence; it changes nothing when the stream is known."""

    stream: StreamMetadata
    run: int = 0
    """Counts the encoder's starts on this stream: of two hellos with different runs the higher is the newer."""
    attempt: int = 0
    """Counts the hellos of this run; the welcome repeats it. Tells late hellos and late answers from current ones."""


@dataclass(frozen=True)
class Welcome:
    """Decoder: send from this position on."""

    position: int
    """The first position that is not stored yet."""
    credit: int
    """How many positions may be under way beyond the acknowledged one."""
    attempt: int = 0
    """Of the hello that this answers."""


@dataclass(frozen=True)
class Snapshot:
    """One folded group: `sum_t C_t * X_t`."""

    position: int
    first_frame: int
    frames: int
    """B of this group."""
    timestamp_ns: int
    """When its first frame, or that of the group it was cut from, reached the encoder, ns since 1970, encoder's clock."""
    dtype: str
    """Of the sums: uint16, uint32 or uint64, the smallest that no sum can overflow."""
    codec: str
    payload: bytes = field(repr=False)
    block_map: bytes | None = field(default=None, repr=False)
    """Family of each 64x64 block, a byte each, row by row; None: family 0 everywhere."""
    base: int = 0
    """What was subtracted from every exact value, modulo the dtype's range, before coding; 0 since version 3."""
    shift: int = 0
    """How many of the lowest bits of every value are apart from the others; since version 3."""
    quantisation: VarianceStabilised | None = None
    """How the sums were turned into bins before coding; None: they are exact."""
    noise: NoiseModel | None = None
    """The detector's, as the encoder measured it on this stream's frames; it holds from here on. None: no news."""


@dataclass(frozen=True)
class RawFrames:
    """Frames sent as they are: the last, incomplete group of a stream."""

    position: int
    first_frame: int
    frames: int
    timestamp_ns: int
    dtype: str
    codec: str
    payload: bytes = field(repr=False)
    base: int = 0
    """As of `Snapshot`."""
    shift: int = 0
    """As of `Snapshot`."""


@dataclass(frozen=True)
class Audit:
    """Frames of the snapshot that follows, as the detector delivered them, beside the sum they were folded into.

    Large groups come in several of these, one after the other, directly before their snapshot. Since version 2.
    """

    position: int
    first_frame: int
    """That snapshot's."""
    count: int
    """How many of its frames this holds; the audit messages before a snapshot hold all of them, in order."""
    timestamp_ns: int
    """That snapshot's."""
    dtype: str
    codec: str
    payload: bytes = field(repr=False)
    base: int = 0
    """As of `Snapshot`."""
    shift: int = 0
    """As of `Snapshot`."""

    @property
    def frames(self) -> int:
        """What it adds to the stream: nothing, the snapshot does."""
        return 0


@dataclass(frozen=True)
class Gap:
    """Frames that were lost before they could be sent, on record."""

    position: int
    first_frame: int
    frames: int
    reason: str


@dataclass(frozen=True)
class Ack:
    """Decoder: everything before this position is stored."""

    position: int
    credit: int


@dataclass(frozen=True)
class End:
    """Encoder: the stream has this many positions and frames, no more will come."""

    position: int
    frames: int


@dataclass(frozen=True)
class Done:
    """Decoder: the whole stream is stored and closed."""

    position: int


@dataclass(frozen=True)
class Error:
    """Either side: why it gives this session up."""

    code: str
    message: str
    retry: bool = False
    """True when a fresh hello may help (the decoder forgot the session); False when a person must act."""
    versions: tuple[int, int] | None = None
    """Lowest and highest protocol version the sender speaks; with code `version`."""


Data = Snapshot | RawFrames | Audit | Gap
Message = Hello | Welcome | Snapshot | RawFrames | Audit | Gap | Ack | End | Done | Error
