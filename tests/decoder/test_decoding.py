"""Decoding a stored snapshot: the noise it is judged with, the audit beside it, what is recorded, the same bytes again."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace

import numpy as np
import pytest
from tiny_net import write_net

from framefold_decoder.code_version import code_version
from framefold_decoder.decoding import LibraryDecoder, decode, stream_noise
from framefold_decoder.library import Library
from framefold_decoder.quality import misfit
from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.gap_tv import GapTv
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.store import StreamStore
from framefold_protocol import payload
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import Audit, Gap, Snapshot, StreamMetadata
from framefold_protocol.noise import NoiseModel
from framefold_protocol.photon_transfer import measure
from framefold_simulator.movie import Movie, MovieSpec

SHAPE = (64, 72)
SPEC = MaskSpec(ratio=4, period=16)
MASKS = derive_masks(SPEC, SHAPE)
MOVIE = Movie(MovieSpec(SHAPE, dose=30, seed=5, loop=40))
GAIN, OFFSET, READ_NOISE = 12.0, 100.0, 20.0


def counts(group: int, integrating: bool) -> np.ndarray:
    electrons = MOVIE.counts(4 * group, 4 * group + 4)
    if not integrating:
        return electrons.astype(np.uint16)
    noise = np.random.default_rng(group).normal(0, READ_NOISE, electrons.shape)
    return np.rint(GAIN * electrons + OFFSET + noise).astype(np.uint16)


def stream(groups: int, every: int = 0, *, integrating=False, parts: int = 1, gain=None) -> tuple[StreamMetadata, list]:
    """A stream of groups, every so many-th audited in `parts` messages."""
    metadata = StreamMetadata(
        uuid.uuid4().hex, "test", SHAPE, "uint16", (SPEC,), (MASKS.digest,), 1, counts_per_electron=gain, audit=every
    )
    messages: list = []
    for k in range(groups):
        frames = counts(k, integrating)
        if every and k % every == 0:
            for part in np.array_split(frames, parts):
                packed = payload.pack(part)
                messages.append(Audit(len(messages), 4 * k, len(part), 1000 + k, **vars(packed)))
        sums = np.sum(MASKS.window() * frames.astype(np.uint32), axis=0, dtype=np.uint32)
        messages.append(Snapshot(len(messages), 4 * k, 4, 1000 + k, **vars(payload.pack(sums))))
    return metadata, messages


@pytest.fixture
def library(tmp_path):
    library = Library.open(tmp_path / "data")
    yield library
    library.close()


def stored(library: Library, metadata: StreamMetadata, messages: list) -> StreamStore:
    library.add_stream(metadata)
    library.put(metadata.stream_id, messages, 100)
    return library.store(metadata.stream_id)


def frames_digest(store: StreamStore) -> dict[str, str]:
    files = (store.path / "frames" / "c").rglob("*")
    return {str(p.relative_to(store.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


def test_an_audited_snapshot_is_compared_with_its_frames(library):
    store = stored(library, *stream(3, every=2, parts=3))
    found = [decode(store, position, GapTv()) for position in (3, 4, 8)]
    assert [one.quality.psnr is not None for one in found] == [True, False, True]
    truth = MOVIE.clean(0, 4)
    peak = np.percentile(found[0].frames, 99.9)
    psnr = 10 * np.log10(peak**2 / np.mean((found[0].frames - truth) ** 2))
    assert found[0].quality.psnr_low - 1 < psnr < (found[0].quality.psnr_high or np.inf) + 1
    assert 0.3 < found[0].quality.ssim <= 1


def test_the_noise_model_is_that_of_the_latest_audit_group_and_never_of_a_later_one(library):
    metadata, messages = stream(4, every=2, integrating=True)
    store = stored(library, metadata, messages)
    first, second = (measure(counts(k, True)).noise for k in (0, 2))
    assert first != second
    assert [stream_noise(store, position)[0] for position in (1, 2, 4, 5)] == [first, first, second, second]
    quality = decode(store, 2, GapTv()).quality
    assert (quality.gain, quality.offset, quality.read_noise) == (
        first.counts_per_electron, first.offset_counts, first.read_noise_counts,
    )  # fmt: skip


def test_an_audit_group_that_tells_nothing_leaves_it_to_the_one_before(library):
    metadata, messages = stream(4, every=2, integrating=True)
    dark = payload.pack(np.zeros((4, *SHAPE), metadata.dtype))
    told = vars(dark)
    last = max(k for k, message in enumerate(messages) if isinstance(message, Audit))
    messages[last] = replace(messages[last], **told)
    store = stored(library, metadata, messages)
    assert {stream_noise(store, position)[0] for position in (1, 2, 4, 5)} == {measure(counts(0, True)).noise}


def test_chi2_of_an_integrating_detector_is_right_once_it_was_audited(library):
    """The truth as the reconstruction: chi2 must be 1, without anybody having told gain, offset or read noise."""
    store = stored(library, *stream(1, every=1, integrating=True))
    group = FoldedGroup(store.snapshot(1), store.coding(1))
    truth = (GAIN * MOVIE.clean(0, 4) + OFFSET).astype(np.float32)
    noise, error, known = stream_noise(store, 1)
    assert known
    assert misfit(group, truth, noise) == pytest.approx(1, abs=0.05)
    assert 0 < error < 0.05
    assert misfit(group, truth, NoiseModel()) > 5


@pytest.mark.parametrize(("gain", "every", "expected"), [(3.5, 0, NoiseModel(3.5)), (None, 0, NoiseModel(1.0))])
def test_without_audit_groups_the_streams_gain_counts(library, gain, every, expected):
    store = stored(library, *stream(1, every, gain=gain))
    assert stream_noise(store, 0) == (expected, 0.0, gain is not None)


def test_what_the_encoder_measured_holds_from_its_snapshot_on(library):
    first, second = NoiseModel(12.5, 90.0, 21.0), NoiseModel(12.0, 100.0, 20.0)
    metadata, messages = stream(6, integrating=True)
    messages[1], messages[4] = replace(messages[1], noise=first), replace(messages[4], noise=second)
    store = stored(library, metadata, messages)
    expected = [(NoiseModel(), 0.0, False)] + 3 * [(first, 0.0, True)] + 2 * [(second, 0.0, True)]
    assert [stream_noise(store, position) for position in range(6)] == expected
    store.put(*messages[4:])  # again, as after a crash
    again = StreamStore(store.path)
    assert [stream_noise(again, position) for position in range(6)] == expected
    quality = decode(again, 5, GapTv()).quality
    assert (quality.gain, quality.offset, quality.read_noise) == (12.0, 100.0, 20.0)


def test_the_gain_the_stream_tells_and_audit_groups_win_over_what_the_encoder_measured(library):
    measured = NoiseModel(12.5, 90.0, 21.0)
    for gain, every in ((3.5, 0), (None, 1)):
        metadata, messages = stream(1, every, integrating=True, gain=gain)
        store = stored(library, metadata, [*messages[:-1], replace(messages[-1], noise=measured)])
        expected = measure(counts(0, True)).noise if every else NoiseModel(gain)
        assert stream_noise(store, len(messages) - 1)[0] == expected != measured


@pytest.mark.parametrize("gain", [None, 1.0])
def test_where_the_noise_is_assumed_nothing_is_said_of_the_error(library, monkeypatch, gain):
    monkeypatch.setattr("framefold_decoder.decoding.measure", lambda frames, told: None)  # as of too few frames, or dark ones
    quality = decode(stored(library, *stream(1, every=1, gain=gain)), 1, GapTv()).quality
    assert (quality.psnr is None, quality.ssim is None) == (gain is None, gain is None)


def test_a_gain_the_stream_tells_wins_over_the_measured_one(library):
    store = stored(library, *stream(1, every=1, gain=1.0))
    assert stream_noise(store, 1)[0].counts_per_electron == 1.0


def test_frames_that_another_group_was_folded_from_are_no_audit(library):
    """What an encoder that was killed leaves behind: audit frames without their snapshot, then a gap, then other groups."""
    metadata, messages = stream(1, every=1)
    (audit, snapshot) = messages
    others = [audit, Gap(1, 0, 4, "killed"), Snapshot(2, 4, 4, 2000, **_pixels(snapshot))]
    store = stored(library, metadata, others)
    assert store.audit(2) is None
    metadata, messages = stream(1, every=1)
    late = Snapshot(1, 0, 4, 2000, **_pixels(snapshot))
    store = stored(library, metadata, [messages[0], late])
    assert store.audit(1) is None
    assert decode(store, 1, GapTv()).quality.psnr is None


def _pixels(snapshot: Snapshot) -> dict:
    return {name: getattr(snapshot, name) for name in ("dtype", "codec", "payload", "base", "shift", "quantisation")}


@pytest.mark.parametrize("model", ["gap-tv", "tiny"])
def test_decoding_again_with_the_same_model_gives_the_same_bytes(library, tmp_path, model):
    (tmp_path / "models").mkdir()
    card = write_net(tmp_path / "models")
    metadata, messages = stream(4, every=2)
    store = stored(library, metadata, messages)
    decoders = [LibraryDecoder(library, Registry(tmp_path / "models", provider="cpu")) for _ in range(2)]
    snapshots = [group.position for group in store.groups() if group.kind == "snapshot"]
    for position in snapshots:
        decoders[0].decode(metadata.stream_id, position, model)
    first, told = frames_digest(store), store.groups()
    for position in reversed(snapshots):  # in whatever order
        decoders[1].decode(metadata.stream_id, position, model)
    assert first == frames_digest(store) != {}
    assert store.groups() == told
    provenance = store.group(snapshots[0]).provenance
    assert (provenance.model, provenance.code) == (model, code_version())
    assert provenance.sha256 == (card.sha256 if model == "tiny" else None)
    assert provenance.settings["provider"] == ("CPUExecutionProvider" if model == "tiny" else "numba")
    fed = [(one["snapshots_before"], one["snapshots_after"]) for one in (store.group(k).provenance.settings for k in snapshots)]
    assert fed == [(0, 2), (1, 2), (2, 1), (2, 0)]
    assert library.catalogue.models()[model].get("sha256") == provenance.sha256


def test_provenance_and_quality_outlive_the_process(library, tmp_path):
    metadata, messages = stream(2, every=1)
    store = stored(library, metadata, messages)
    for position in (1, 3):
        LibraryDecoder(library, Registry(provider="cpu")).decode(metadata.stream_id, position, "gap-tv")
    library.finish(metadata.stream_id, 4, 8)
    reopened = StreamStore(store.path)
    assert reopened.groups() == store.groups()
    np.testing.assert_array_equal(reopened.audit(3), counts(1, False))
    assert np.isfinite(reopened.measures("psnr")).tolist() == [False, True, False, True]


def test_neighbours_are_found_behind_audit_groups(library):
    seen = {}

    class Spy:
        name, provider = "spy", "numba"

        def reconstruct(self, group, before, after, noise):
            for name, beside in (("before", before), ("after", after)):
                seen.setdefault(name, beside)  # at first; then come windows of them
            return np.zeros((4, *SHAPE), np.float32)

    store = stored(library, *stream(6, every=1, parts=2))
    decode(store, 8, Spy())
    for name, positions in {"before": (5, 2), "after": (11, 14)}.items():
        assert len(seen[name]) == len(positions)
        for group, position in zip(seen[name], positions, strict=True):
            np.testing.assert_array_equal(group.snapshot, store.snapshot(position))


def test_code_version_is_the_version_and_a_digest():
    version, digest = code_version().split("+")
    assert version
    assert len(digest) == 12


@pytest.mark.parametrize("step", [0.0, 2.0])
def test_how_a_snapshot_was_coded_is_kept_and_its_error_is_not_the_reconstructions(library, step):
    metadata, messages = stream(3)
    if step:
        sums = [payload.decode(m, SHAPE, m.quantisation) for m in messages]
        coded = [payload.pack(one.copy(), VarianceStabilised(step=step)) for one in sums]
        messages = [
            replace(m, **vars(one), quantisation=VarianceStabilised(step=step)) for m, one in zip(messages, coded, strict=True)
        ]
    store = stored(library, metadata, messages)
    for each in (store, StreamStore(store.path)):
        assert [each.group(k).step_sigma for k in range(3)] == [step] * 3
    found = decode(store, 1, GapTv())
    plain = misfit(FoldedGroup(store.snapshot(1), store.coding(1), step), found.frames, NoiseModel())
    assert found.quality.followed < 1
    assert found.quality.chi2 == pytest.approx(plain / max(1 - found.quality.followed, 0.05))


def test_a_detector_of_32_bits_is_decoded(library):
    metadata = replace(stream(0)[0], dtype="uint32")
    sums = np.sum(MASKS.window() * counts(0, False).astype(np.uint64), axis=0)
    store = stored(library, metadata, [Snapshot(0, 0, 4, 1000, **vars(payload.pack(sums)))])
    assert store.snapshot(0).dtype == np.uint64
    assert np.isfinite(decode(store, 0, GapTv()).frames).all()
