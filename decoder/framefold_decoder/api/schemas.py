"""The JSON the service answers with. Field descriptions are the API's documentation; no field ever carries NaN."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class StreamSummary(BaseModel):
    """A stream in brief."""

    id: str = Field(description="32 hex digits, made by the encoder.")
    name: str = Field(description="Where the frames come from, for people.")
    state: Literal["receiving", "complete"] = Field(description="complete: the stream has ended and all of it is stored.")
    shape: tuple[int, int] = Field(description="(H, W) of the frames in pixels.")
    dtype: str = Field(description="Of the detector's frames.")
    ratio: int = Field(description="B, frames per snapshot. Not the wire ratio.")
    positions: int = Field(description="Stored positions: snapshots, raw and audit groups, and gaps.")
    frames: int = Field(description="Frames the stored positions cover, lost ones among them; valid frame numbers lie below.")
    frames_received: int = Field(description="Frames that arrived, folded or raw.")
    snapshots: int = Field(description="Stored snapshots; valid snapshot numbers lie below.")
    decoded: int = Field(description="Snapshots that are reconstructed.")
    bytes_delivered: int = Field(description="Bytes of the frames that arrived, as the detector delivered them.")
    bytes_received: int = Field(description="Bytes that crossed the wire for them, all headers in.")
    wire_ratio: float | None = Field(description="bytes_delivered / bytes_received; null before anything arrived.")
    added: datetime = Field(description="When the decoder first heard of the stream, decoder's clock, UTC.")
    updated: datetime = Field(description="When its last position was stored or it was completed, decoder's clock, UTC.")


class MaskFamily(BaseModel):
    """A family of coding masks."""

    kind: str = Field(description="balanced, random, one-hot, ones or file.")
    density: float = Field(description="Fraction of ones; one-hot, ones and file do not use it.")
    period: int = Field(description="Side of the repeated cell in pixels; 0: no repetition.")
    seed: int = Field(description="What its bits derive from, 0 to 2^64 - 1.")
    file: str = Field(description="Kind file: the file's name; empty otherwise.")
    digest: str = Field(description="SHA-256 of the bits, the same at encoder and decoder.")


class LostFrames(BaseModel):
    """Frames that never arrived."""

    position: int = Field(description="The gap's position in the stream.")
    first_frame: int = Field(description="The first frame that is lost.")
    frames: int = Field(description="How many are lost.")
    reason: str = Field(description="Why, as the encoder says.")


class Chi2Summary(BaseModel):
    """chi2 of the reconstructed snapshots, see the quality table: 1 when the frames explain the data."""

    count: int = Field(description="Snapshots with a chi2.")
    mean: float = Field(description="Mean of their chi2.")
    median: float = Field(description="Median of their chi2.")
    p95: float = Field(description="95th percentile of their chi2.")
    largest: float = Field(description="The worst snapshot's chi2.")


class AuditSummary(BaseModel):
    """Reconstructions against frames that were sent raw as well, at pixels their snapshot did not see, noise taken out."""

    every: int = Field(description="Every so many-th group is sent raw as well as folded.")
    count: int = Field(description="Snapshots that were compared with their frames.")
    psnr_median: float = Field(description="Median of their PSNR, dB.")
    psnr_lowest: float = Field(description="The worst snapshot's PSNR, dB.")
    ssim_median: float = Field(description="Median of their SSIM, at most 1.")


class StreamNoise(BaseModel):
    """Variance of one frame's pixel: gain * (counts - offset) + read_noise^2."""

    source: Literal["audit", "stream", "encoder", "assumed"] = Field(
        description="audit: measured on the latest audit group, the gain only where the stream does not tell it; "
        "stream: the gain it tells; encoder: measured there, on frames it folded; assumed: a counting detector's."
    )
    gain: float = Field(description="Counts per electron.")
    offset: float = Field(description="Counts without electrons.")
    read_noise: float = Field(description="Standard deviation without electrons, counts.")


class StreamDetail(StreamSummary):
    """All that is known of a stream."""

    created: datetime = Field(description="When the encoder opened it, encoder's clock, UTC.")
    frame_count: int | None = Field(description="Frames the source will deliver; null for a live source.")
    frame_time_s: float | None = Field(description="Seconds per frame; null when unknown.")
    pixel_size_nm: float | None = Field(description="Nanometres at the specimen per pixel; null when unknown.")
    counts_per_electron: float | None = Field(description="Detector gain; null when unknown.")
    families: list[MaskFamily] = Field(description="The mask families that may fold a block; the first where there is no map.")
    gaps: list[LostFrames] = Field(description="Frames that never arrived.")
    frames_lost: int = Field(description="Sum of the gaps' frames.")
    chi2: Chi2Summary | None = Field(description="How well the frames explain the snapshots; null before anything is decoded.")
    audit: AuditSummary | None = Field(description="How near they come to the truth; null before an audit group is decoded.")
    noise: StreamNoise | None = Field(description="Of the last decoded snapshot; null before anything is decoded.")
    store: str = Field(description="The stream's Zarr group on the decoder's machine.")


class MadeBy(BaseModel):
    """What made a snapshot's frames: the same makes the same bytes, on a CPU."""

    model_config = ConfigDict(from_attributes=True)

    model: str = Field(description="The net's or solver's name.")
    sha256: str | None = Field(description="Of the net's ONNX file; null for a solver.")
    code: str = Field(description="framefold's version and 12 digits of the SHA-256 of its code for reconstruction.")
    settings: dict[str, Any] = Field(description="What else they depend on: provider, library versions, neighbours seen.")


class GroupQuality(BaseModel):
    """One position: what it holds and how well it was reconstructed."""

    position: int = Field(description="Its number in the stream, from 0.")
    kind: Literal["snapshot", "raw", "gap", "audit"] = Field(
        description="raw: frames sent as they are; gap: frames that were lost; audit: frames of the snapshot after it."
    )
    first_frame: int = Field(description="The first frame it covers.")
    frames: int = Field(description="How many frames it covers; audit: how many it holds, the snapshot after it covers them.")
    timestamp_ns: int | None = Field(
        description="When its first frame, or that of the longer group it was cut from, reached the encoder, "
        "ns since 1970; null for a gap."
    )
    snapshot: int | None = Field(description="Its snapshot number; null when it holds none.")
    step_sigma: float = Field(description="Width of the bins its snapshot was coded in, over its noise; 0: exact.")
    chi2: float | None = Field(
        description="mean((Y - sum C X)^2 / var(Y)) over 1 - followed: 1 is ideal, above 1 the frames do not explain the "
        "snapshot, below they follow its noise too far; null when not decoded."
    )
    followed: float | None = Field(description="Share of the snapshot's noise that the frames follow; null when not decoded.")
    model: str | None = Field(description="What reconstructed it; null when not decoded.")
    psnr: float | None = Field(
        description="dB, against its audit frames, noise taken out: 10 log10(peak^2 / error) at pixels its masks hid, the peak "
        "being the frames' 99.9 % quantile above the offset. Null without them, or when the noise model contradicts them."
    )
    psnr_low: float | None = Field(description="dB: psnr one standard error down.")
    psnr_high: float | None = Field(description="dB: psnr one standard error up; null when psnr is a lower bound.")
    ssim: float | None = Field(description="SSIM with the noise-free frames, likewise; null where psnr is.")
    gain: float | None = Field(description="Counts per electron that chi2, psnr and ssim go by; null when not decoded.")
    offset: float | None = Field(description="Counts without electrons, likewise.")
    read_noise: float | None = Field(description="Standard deviation without electrons in counts, likewise.")
    made_by: MadeBy | None = Field(description="What made its frames; null when not decoded.")


class Quality(BaseModel):
    """A page of a stream's positions."""

    positions: int = Field(description="Stored positions of the stream.")
    groups: list[GroupQuality] = Field(description="Positions start to start + limit - 1, as far as they are stored.")


class DecodeRequest(BaseModel):
    """Which snapshots to decode again, and with what."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("auto", description="A name of GET /models; auto: the net that fits, else gap-tv.")
    start: int = Field(0, ge=0, description="The first position.")
    stop: int | None = Field(None, ge=1, description="The position after the last; null: all that are stored now.")


class DecodeAccepted(BaseModel):
    """What will be decoded, after all that is new."""

    snapshots: int = Field(description="How many snapshots. A restart of the decoder forgets those that are left.")


class ModelInfo(BaseModel):
    """A way to reconstruct frames."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="As in the quality table's `model`.")
    kind: str = Field(description="onnx: a net run by ONNX Runtime; gap-tv: the classic solver.")
    provider: str | None = Field(default=None, description="What runs it, as reported at run time; null before it was loaded.")
    ratios: list[int] = Field(description="The B it reconstructs; empty: any.")
    mask_kinds: list[str] = Field(description="The mask kinds it was made for; empty: any.")
    problem: str | None = Field(default=None, description="Why it cannot be used; null when it can.")
    card: dict[str, Any] | None = Field(default=None, description="All that its model card says; null when it has none.")


class Health(BaseModel):
    """The process answers."""

    version: str = Field(description="framefold's version.")
    problems: list[str] = Field(description="What keeps it from its work, as in `/readyz`; empty when all is well.")


class Readiness(BaseModel):
    """Whether the service can do its work."""

    ready: bool = Field(description="Whether there are no problems.")
    problems: list[str] = Field(description="What is in the way.")
