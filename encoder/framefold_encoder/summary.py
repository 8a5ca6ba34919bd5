"""What a run did: counted while it runs, printed at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Summary:
    """Its fields are the command's JSON document."""

    stream_id: str
    frames: int = 0
    """Frames folded, or sent as they are."""
    snapshots: int = 0
    bytes_in: int = 0
    """Bytes of pixels of these frames, as the detector delivered them."""
    bytes_wire: int = 0
    """Bytes sent, all headers down to ZMTP in."""
    wire_ratio: float = 0.0
    """bytes_in / bytes_wire; 0 where not all was sent, which would make it too large."""
    gaps: int = 0
    """Frames of a live source that were lost before they could be folded, each of them on record in the stream."""
    ratios: Counter[int] = field(default_factory=Counter)
    """Snapshots of each B."""
    encoder_gb_s: float = 0.0
    """bytes_in over the time spent folding and coding, in GB/s; reading and waiting are not in it."""
    first_group_s: float = 0.0
    """From the source being open to its first group being folded, in seconds: compiling, reading and waiting are in it."""
    cpu_s_per_gigapixel: float = 0.0
    """CPU time of the whole process, all threads, for a thousand million pixels of frames."""
    complete: bool = False
    """Whether the decoder has stored every frame."""
