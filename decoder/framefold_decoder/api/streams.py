"""Routes that tell of streams: the list, one in full, its quality table; one to decode it again, one to delete it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query

from framefold_decoder.api.context import ContextOf, RecordOf, StoreOf, StreamId
from framefold_decoder.api.errors import ApiError, error_responses
from framefold_decoder.api.schemas import (
    AuditSummary,
    Chi2Summary,
    DecodeAccepted,
    DecodeRequest,
    GroupQuality,
    LostFrames,
    MadeBy,
    MaskFamily,
    Quality,
    StreamDetail,
    StreamNoise,
    StreamSummary,
)
from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.store import StreamStore
from framefold_decoder.store import provenance as store_quality
from framefold_decoder.store.group_table import Group, Kind
from framefold_protocol.errors import InputError, ModelError
from framefold_protocol.noise import NoiseModel

router = APIRouter(prefix="/streams", tags=["streams"])
UNKNOWN = error_responses(s404="No such stream.", s422="A parameter is out of bounds.")
MAX_GROUPS = 10_000


@router.get("")
def list_streams(context: ContextOf) -> list[StreamSummary]:
    """All streams, the newest first."""
    return [StreamSummary(**_summary(record)) for record in context.library.catalogue.streams()]


@router.get("/{stream_id}", responses=UNKNOWN)
def get_stream(record: RecordOf, store: StoreOf, context: ContextOf) -> StreamDetail:
    """One stream in full: metadata, counts, gaps, wire ratio, chi2, and where its Zarr group lies."""
    stream = record.metadata
    gaps = context.library.catalogue.gaps(stream.stream_id)
    families = [
        MaskFamily(kind=m.kind, density=m.density, period=m.period, seed=m.seed, file=m.file, digest=digest)
        for m, digest in zip(stream.families, stream.mask_digests, strict=True)
    ]
    return StreamDetail(
        **_summary(record),
        created=_time(stream.created_unix_ns),
        frame_count=stream.frame_count,
        frame_time_s=stream.frame_time_s,
        pixel_size_nm=stream.pixel_size_nm,
        counts_per_electron=stream.counts_per_electron,
        families=families,
        gaps=[LostFrames(position=g.position, first_frame=g.first_frame, frames=g.frames, reason=g.reason) for g in gaps],
        frames_lost=sum(gap.frames for gap in gaps),
        chi2=_chi2(store),
        audit=_audit(store),
        noise=_noise(store),
        store=str(store.path.absolute()),
    )


@router.get("/{stream_id}/quality", responses=UNKNOWN)
def get_quality(
    store: StoreOf,
    start: Annotated[int, Query(ge=0, description="The first position to tell of.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_GROUPS, description="How many positions to tell of at most.")] = 1000,
) -> Quality:
    """How well each position was reconstructed, and by what."""
    return Quality(positions=store.position, groups=[_quality(group) for group in store.groups(start, start + limit)])


@router.post(
    "/{stream_id}/decode",
    status_code=202,
    responses=error_responses(
        s404="No such stream.", s409="This decoder does not reconstruct.", s422="No snapshot there, or the model does not fit."
    ),
)
def decode_stream(record: RecordOf, context: ContextOf, wanted: DecodeRequest) -> DecodeAccepted:
    """Make frames anew from stored snapshots, in the background; the old ones are served until each is replaced."""
    if context.decode is None:
        raise ApiError(409, "this decoder does not reconstruct", "Start it with a model other than none")
    try:
        return DecodeAccepted(snapshots=context.decode(record.metadata.stream_id, wanted.model, wanted.start, wanted.stop))
    except ModelError as error:
        raise ApiError(422, error.message, error.hint) from error


@router.delete(
    "/{stream_id}",
    status_code=204,
    responses=error_responses(s404="No such stream.", s409="It is being sent or stored.", s422="A parameter is out of bounds."),
)
def delete_stream(stream_id: StreamId, context: ContextOf) -> None:
    """Delete a stream for good: snapshots, frames and what is known of it. Its encoder cannot go on with it."""
    try:
        deleted = context.library.delete(stream_id, context.sending)
    except InputError as error:
        raise ApiError(404, error.message, error.hint) from error
    if not deleted:
        hint = "Stop its encoder and wait until all is stored (one that vanished is given up after ten minutes)"
        hint += ", or stop the decoder and run framefold-decoder delete"
        raise ApiError(409, f"stream {stream_id} is being sent or stored", hint)


def _summary(record: StreamRecord) -> dict[str, Any]:
    return {
        "id": record.metadata.stream_id,
        "name": record.metadata.name,
        "state": record.state,
        "shape": record.metadata.shape,
        "dtype": record.metadata.dtype,
        "ratio": record.metadata.ratio,
        "positions": record.position,
        "frames": record.frames,
        "frames_received": record.frames_received,
        "snapshots": record.snapshots,
        "decoded": record.decoded,
        "bytes_delivered": record.bytes_delivered,
        "bytes_received": record.bytes_received,
        "wire_ratio": record.wire_ratio,
        "added": _time(record.added_unix_ns),
        "updated": _time(record.updated_unix_ns),
    }


def _time(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC)


def _chi2(store: StreamStore) -> Chi2Summary | None:
    chi2 = store.measures("chi2")
    chi2 = chi2[np.isfinite(chi2)]
    if not chi2.size:
        return None
    median, p95 = np.percentile(chi2, (50, 95))
    return Chi2Summary(count=chi2.size, mean=chi2.mean(dtype=float), median=median, p95=p95, largest=chi2.max())


def _audit(store: StreamStore) -> AuditSummary | None:
    psnr, ssim = (values[np.isfinite(values)] for values in map(store.measures, ("psnr", "ssim")))
    if not psnr.size:
        return None
    median = {"psnr_median": np.median(psnr), "ssim_median": np.median(ssim)}
    return AuditSummary(every=store.metadata.audit, count=psnr.size, psnr_lowest=psnr.min(), **median)


def _noise(store: StreamStore) -> StreamNoise | None:
    decoded = np.flatnonzero(np.isfinite(store.measures("gain")))
    if not decoded.size:
        return None
    latest, told = int(decoded[-1]), store.metadata.counts_per_electron
    values = {name: float(store.measures(name)[latest]) for name in ("gain", "offset", "read_noise")}
    measured = store.group(latest).noise
    without_audits = tuple(vars(measured or NoiseModel()).values())
    if store.last_audit(latest) is not None and (told or tuple(values.values()) != without_audits):
        return StreamNoise(source="audit", **values)
    return StreamNoise(source="stream" if told else "encoder" if measured else "assumed", **values)


def _quality(group: Group) -> GroupQuality:
    measures = asdict(group.quality or store_quality.Quality(None))
    return GroupQuality(
        position=group.position,
        kind=group.kind.value,
        first_frame=group.first_frame,
        frames=group.frames,
        timestamp_ns=None if group.kind is Kind.GAP else group.timestamp_ns,
        snapshot=group.index if group.kind is Kind.SNAPSHOT else None,
        step_sigma=group.step_sigma,
        model=group.provenance.model if group.provenance else None,
        made_by=MadeBy.model_validate(group.provenance) if group.provenance else None,
        **measures,
    )
