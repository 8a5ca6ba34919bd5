"""From one stored snapshot to frames and what is to be known of them: a pure function of store, position and model.

So the unfolder in the service, `framefold-decoder decode` and a worker elsewhere make the same bytes, on CPUs of one kind with
one provider and precision. What frames depend on is in their provenance, the noise model in their row: the latest audit group
up to the snapshot, never a later one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import takewhile
from weakref import WeakKeyDictionary

from framefold_decoder.audit import AuditQuality, audit
from framefold_decoder.code_version import code_version
from framefold_decoder.followed import followed
from framefold_decoder.library import Library
from framefold_decoder.quality import chi2, misfit
from framefold_decoder.reconstruct.base import FoldedGroup, Frames, Reconstructor
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.reconstruct.scenes import Neighbourhood
from framefold_decoder.store import StreamStore
from framefold_decoder.store.group_table import Kind
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_protocol.model import REACH, ModelCard
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import PhotonTransfer, measure


@dataclass(frozen=True)
class Decoded:
    """A reconstructed snapshot."""

    frames: Frames = field(repr=False)
    """(B, H, W) in detector counts."""
    quality: Quality
    provenance: Provenance
    audited: AuditQuality | None
    """Where the frames were sent too; None elsewhere."""


def decode(store: StreamStore, position: int, reconstructor: Reconstructor) -> Decoded:
    """Reconstruct the snapshot of a position. Raises `FramefoldError`; changes nothing."""
    group = folded(store, position)
    assert group is not None, "only snapshots are decoded"
    noise, noise_error, known = stream_noise(store, position)
    before, after = (_beside(store, position, step) for step in (-1, 1))

    def reconstruct(group: FoldedGroup) -> Frames:
        return reconstructor.reconstruct(group, before, after, noise)

    frames = reconstruct(group)
    raw = store.audit(position)
    audited = None if raw is None else audit(group, frames, raw, noise, noise_error, reconstruct)
    explained, share = trust((group, before, after), frames, noise, reconstructor, number=store.group(position).index)
    quality = Quality(
        explained,
        noise.counts_per_electron,
        noise.offset_counts,
        noise.read_noise_counts,
        followed=share,
        **(_trusted(audited) if audited and known else {}),
    )
    return Decoded(frames, quality, _provenance(reconstructor, len(before), len(after)), audited)


def trust(
    neighbourhood: Neighbourhood, frames: Frames, noise: NoiseModel, reconstructor: Reconstructor, *, number: int = 0
) -> tuple[float, float]:
    """chi2 of a group's frames, and the share of the snapshot's noise that they follow."""
    share = followed(neighbourhood, frames, noise, reconstructor, number)
    return chi2(misfit(neighbourhood[0], frames, noise), share), share


def stream_noise(store: StreamStore, position: int) -> tuple[NoiseModel, float, bool]:
    """The noise model of a snapshot, its relative uncertainty, and whether it is known.

    It is what the latest audit group up to it tells that can be measured, the gain the stream tells winning; else that gain, or
    what the encoder measured until then; without any, a counting detector's is assumed.
    """
    told = store.metadata.counts_per_electron
    latest = store.last_audit(position)
    while latest is not None:
        if measured := _measured(store, latest):
            return measured.noise, measured.variance_error, True
        latest = store.last_audit(latest - 1)  # too few frames, or too dark
    noise = NoiseModel(told) if told else store.group(position).noise
    return noise or NoiseModel(), 0.0, noise is not None


def positions_beside(store: StreamStore, position: int, step: int) -> list[int]:
    """The `REACH` positions after (`step` 1) or before (-1) this one, audit groups passed over; those that are there yet."""
    found, beside = list[int](), position + step
    while 0 <= beside < store.position and len(found) < REACH:
        if store.group(beside).kind is not Kind.AUDIT:
            found.append(beside)
        beside += step
    return found


def folded(store: StreamStore, position: int) -> FoldedGroup | None:
    """The snapshot at a position with its masks; None where there is none, or no snapshot."""
    if not 0 <= position < store.position or store.group(position).kind is not Kind.SNAPSHOT:
        return None
    return FoldedGroup(store.snapshot(position), store.coding(position), store.group(position).step_sigma)


class LibraryDecoder:
    """Decodes into a library: frames, quality and provenance stored, the model's card kept for good."""

    def __init__(self, library: Library, registry: Registry) -> None:
        self._library = library
        self._registry = registry
        self._cards_kept: set[str] = set()

    def decode(self, stream_id: str, position: int, model: str) -> Decoded:
        """Reconstruct one snapshot with `model`, or the best for `auto`, and store it. Raises `FramefoldError`."""
        decoded = self.reconstruct(stream_id, position, model)
        self.keep(stream_id, position, decoded)
        return decoded

    def reconstruct(self, stream_id: str, position: int, model: str) -> Decoded:
        """The first half of `decode`: nothing is stored."""
        store = self._library.store(stream_id)
        return decode(store, position, self._registry.choose(model, store.coding(position)))

    def keep(self, stream_id: str, position: int, decoded: Decoded) -> None:
        """The second half of `decode`, which may run while the next snapshot is reconstructed."""
        self._keep_card(decoded.provenance.model)
        self._library.put_frames(stream_id, position, decoded.frames, decoded.quality, decoded.provenance)

    def _keep_card(self, model: str) -> None:
        """Put a model's card into the catalogue before its first frames are, so that they can be traced to it for good."""
        if model not in self._cards_kept:
            entry = next(entry for entry in self._registry.models() if entry.name == model)
            self._library.catalogue.add_model(model, entry.card or {})
            self._cards_kept.add(model)


def _beside(store: StreamStore, position: int, step: int) -> list[FoldedGroup]:
    """The snapshots after or before it, up to the first position that holds none."""
    groups = (folded(store, one) for one in positions_beside(store, position, step))
    return list(takewhile(lambda group: group is not None, groups))  # type: ignore[arg-type]


_told: WeakKeyDictionary[StreamStore, dict[int, PhotonTransfer | None]] = WeakKeyDictionary()
"""What each audit group tells of the noise, by its position; None: nothing."""


def _measured(store: StreamStore, position: int) -> PhotonTransfer | None:
    """What an audit group tells of the noise, read once."""
    known = _told.setdefault(store, {})
    if position not in known:
        frames = store.audit(position)
        known[position] = None if frames is None else measure(frames, store.metadata.counts_per_electron)
    return known[position]


def _trusted(audited: AuditQuality) -> dict[str, float | None]:
    """Of `Quality`; none where the noise model contradicts the frames."""
    if audited.noise_is_overestimated:
        return {}
    return {name: getattr(audited, name) for name in ("psnr", "psnr_low", "psnr_high", "ssim")}


def _provenance(reconstructor: Reconstructor, before: int, after: int) -> Provenance:
    card = getattr(reconstructor, "card", None)
    library = "onnxruntime" if isinstance(card, ModelCard) else reconstructor.provider
    settings: dict[str, str | int] = {"provider": reconstructor.provider, library: _library_version(library)}
    settings |= {"snapshots_before": before, "snapshots_after": after}
    return Provenance(reconstructor.name, card.sha256 if isinstance(card, ModelCard) else None, code_version(), settings)


def _library_version(name: str) -> str:
    if name == "onnxruntime":
        from framefold_decoder.reconstruct.onnx_runtime import import_runtime

        return str(import_runtime().__version__)  # the distribution's name depends on the machine
    return version(name)
