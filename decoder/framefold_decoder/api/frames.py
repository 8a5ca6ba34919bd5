"""Routes that send pixels: a frame, a range of frames, a snapshot."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse

from framefold_decoder.api.context import Context, ContextOf, RecordOf, StoreOf
from framefold_decoder.api.errors import ApiError, error_responses
from framefold_decoder.api.images import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    MEDIA_TYPES,
    Format,
    encode_image,
    npy_header,
    npy_parts,
)
from framefold_decoder.catalogue import StreamRecord
from framefold_decoder.store import StreamStore
from framefold_decoder.store.group_table import Group, Kind

router = APIRouter(prefix="/streams/{stream_id}", tags=["pixels"])

RETRY_AFTER_S = 2
"""When to ask again for a frame that is not decoded yet."""
BLOCK_BYTES = 16 * 2**20
"""What of a range is read at a time."""

FormatOf = Annotated[
    Format, Query(description="png: 8 bits, contrast stretched from `low` to `high`, to look at. npy, tiff: the values.")
]
Low = Annotated[
    float | None, Query(allow_inf_nan=False, description=f"PNG: value shown black; {LOW_PERCENTILE} % quantile if absent.")
]
High = Annotated[
    float | None, Query(allow_inf_nan=False, description=f"PNG: value shown white; {HIGH_PERCENTILE} % quantile if absent.")
]

NOT_DECODED = {
    "headers": {"Retry-After": {"description": "Seconds until it is worth asking again.", "schema": {"type": "integer"}}}
}
FRAME_ERRORS = error_responses(
    s404="No such stream, or no such frame; the message names the valid range.",
    s409="A frame is stored but not decoded yet.",
    s410="The frame was lost before it could be sent.",
    s413="The range is too large for one answer; the message names the largest.",
    s422="A parameter is out of bounds.",
)
FRAME_ERRORS[409] |= NOT_DECODED


def _pick(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: FRAME_ERRORS[status] for status in statuses}


def _content(description: str, *formats: Format) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": description, "content": {MEDIA_TYPES[format]: binary for format in formats}}}


@router.get(
    "/frames/{n}",
    response_class=Response,
    responses=_content("The frame, (H, W) float32 in detector counts; 8 bits as PNG.", *Format) | _pick(404, 409, 410, 422),
)
def get_frame(
    record: RecordOf,
    store: StoreOf,
    context: ContextOf,
    n: Annotated[int, Path(ge=0, description="Frame number, from 0.")],
    format: FormatOf = Format.PNG,
    low: Low = None,
    high: High = None,
) -> Response:
    """One frame, reconstructed or sent raw."""
    _check_range("frame", n, store.frame_count, record)
    group = store.group(store.find(n))
    if group.kind is Kind.GAP:
        span = f"frames {group.first_frame} to {group.end - 1}"
        raise ApiError(410, f"frame {n} was lost with {span}", "GET the stream for the gaps and their reasons")
    _check_decoded(store, group, n, context)
    return _image(store.frames(n, n + 1)[0], format, low, high, f"{store.metadata.stream_id}-frame-{n:07}")


@router.get(
    "/frames",
    response_class=StreamingResponse,
    responses=_content("The frames, (stop - start, H, W) float32 in detector counts, lost frames NaN.", Format.NPY)
    | _pick(404, 409, 413, 422),
)
def get_frames(
    record: RecordOf,
    store: StoreOf,
    context: ContextOf,
    start: Annotated[int, Query(ge=0, description="The first frame.")],
    stop: Annotated[int, Query(ge=1, description="The frame after the last.")],
) -> StreamingResponse:
    """A range of frames as one NPY array."""
    if stop <= start:
        raise ApiError(422, f"stop is {stop}, expected more than start, {start}", "stop is the frame after the last")
    _check_range("frame", stop - 1, store.frame_count, record)
    height, width = store.metadata.shape
    frame_bytes = 4 * height * width
    if (stop - start) * frame_bytes > context.max_bytes:
        message = f"{stop - start} frames are {(stop - start) * frame_bytes} bytes, expected at most {context.max_bytes}"
        raise ApiError(
            413, message, f"Ask for at most {context.max_bytes // frame_bytes} frames at a time, or open the Zarr store"
        )
    for position in range(store.find(start), store.find(stop - 1) + 1):
        group = store.group(position)
        _check_decoded(store, group, max(group.first_frame, start), context)
    header = npy_header((stop - start, height, width), "<f4")
    step = max(1, BLOCK_BYTES // frame_bytes)
    blocks = (store.frames(first, min(first + step, stop)) for first in range(start, stop, step))
    headers = {"Content-Length": str(len(header) + (stop - start) * frame_bytes)}
    return StreamingResponse(npy_parts(header, blocks), media_type=MEDIA_TYPES[Format.NPY], headers=headers)


@router.get(
    "/snapshots/{k}",
    response_class=Response,
    responses=_content("The snapshot, (H, W) unsigned integers: sum_t C_t * X_t, exact; 8 bits as PNG.", *Format)
    | _pick(404, 422),
)
def get_snapshot(
    record: RecordOf,
    store: StoreOf,
    k: Annotated[int, Path(ge=0, description="Snapshot number, from 0; gaps and raw groups are not counted.")],
    format: FormatOf = Format.PNG,
    low: Low = None,
    high: High = None,
) -> Response:
    """One snapshot as it was received."""
    _check_range("snapshot", k, store.snapshot_count, record)
    return _image(store.snapshot_at(k), format, low, high, f"{store.metadata.stream_id}-snapshot-{k:07}")


def _check_range(what: str, number: int, count: int, record: StreamRecord) -> None:
    if number >= count:
        valid = f"expected 0 to {count - 1}" if count else "the stream holds none yet"
        hint = "The stream is still receiving: ask again later" if record.state == "receiving" else "The stream is complete"
        raise ApiError(404, f"{what} {number} is not stored, {valid}", hint)


def _check_decoded(store: StreamStore, group: Group, frame: int, context: Context) -> None:
    if group.kind is Kind.SNAPSHOT and not group.readable:
        if context.decode is None:
            hint = "Start it with a model other than none; GET the snapshot for what is there"
            raise ApiError(409, f"frame {frame} is not decoded, and this decoder does not reconstruct", hint)
        if problem := context.undecodable(store.metadata.stream_id, group.position):
            hint = "POST decode with another model; GET models for those there are"
            raise ApiError(409, f"frame {frame} cannot be reconstructed: {problem}", hint)
        hint = "Ask again after the seconds in Retry-After"
        raise ApiError(409, f"frame {frame} is not decoded yet", hint, {"Retry-After": str(RETRY_AFTER_S)})


def _image(image: Any, format: Format, low: float | None, high: float | None, name: str) -> Response:
    if low is not None and high is not None and high <= low:
        raise ApiError(422, f"high is {high}, expected more than low, {low}", "Correct the two, or leave both out")
    headers = {"Content-Disposition": f'inline; filename="{name}.{format}"'}
    return Response(encode_image(image, format, low, high), media_type=MEDIA_TYPES[format], headers=headers)
