from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from stream_examples import TWO_FAMILIES, Example, make_metadata

from framefold_decoder.store import StreamStore
from framefold_decoder.store.group_table import Kind
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_protocol import payload
from framefold_protocol.errors import RemoteProtocolError, StoreError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.messages import Gap


def stored(tmp_path: Path, example: Example) -> StreamStore:
    store = StreamStore.create(tmp_path / "stream.zarr", example.metadata)
    if example.messages:
        store.put(*example.messages)
    return store


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def file_size_limit(limit: int):
    """The operating system refuses to write files larger than this: a real failing disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("shape", "dtype"), [((1, 1), "uint8"), ((37, 70), "uint16"), ((130, 65), "uint32")])
def test_snapshots_and_raw_frames_come_back_exactly(tmp_path, shape, dtype):
    example = Example(make_metadata(shape, dtype)).fold(3).raw(2)
    store = stored(tmp_path, example)
    for position in range(3):
        expected = payload.decode(example.messages[position], shape)
        np.testing.assert_array_equal(store.snapshot(position), expected)
        np.testing.assert_array_equal(store.snapshot_at(position), expected)
    np.testing.assert_array_equal(store.raw(3), example.truth[12:])
    np.testing.assert_array_equal(store.frames(12, 14), example.truth[12:])
    assert store.raw(3).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "ratio", "sums"),
    [("uint8", 1, "uint16"), ("uint8", 256, "uint16"), ("uint16", 2, "uint32"), ("uint32", 2, "uint64")],
)
def test_snapshot_type_holds_the_largest_possible_sum(tmp_path, dtype, ratio, sums):
    stored(tmp_path, Example(make_metadata((3, 3), dtype, (MaskSpec("ones", ratio=ratio),))))
    assert zarr.open_array(tmp_path / "stream.zarr/snapshots", mode="r").dtype == sums


def test_coding_folds_the_true_frames_to_the_snapshot(tmp_path):
    example = Example(make_metadata((130, 70), families=TWO_FAMILIES)).fold(3)
    store = stored(tmp_path, example)
    for position in range(3):
        folded = np.sum(store.coding(position).window() * example.group(position), axis=0)
        np.testing.assert_array_equal(folded, store.snapshot(position))
    assert len({store.coding(p).block_map.tobytes() for p in range(3)}) > 1


def test_a_shorter_group_has_the_masks_of_its_own_ratio(tmp_path):
    example = Example(make_metadata()).fold()
    store = stored(tmp_path, example)
    store.put(replace(example.messages[0], position=1, first_frame=4, frames=3))
    assert store.coding(0).ratio == 4
    assert store.coding(1).ratio == 3


def test_frames_are_nan_until_decoded_then_close_to_what_was_put(tmp_path):
    example = Example(make_metadata()).fold(2)
    store = stored(tmp_path, example)
    assert np.isnan(store.frames(0, 8)).all()
    assert not store.group(1).readable
    reconstruction = example.group(1) + np.float32(0.3)
    store.put_frames(1, reconstruction, Quality(1.25), Provenance("gap-tv"))
    assert np.isnan(store.frames(0, 4)).all()
    np.testing.assert_allclose(store.frames(4, 8), reconstruction, rtol=0, atol=16 / 32)
    assert (store.group(1).quality, store.group(1).provenance) == (Quality(1.25), Provenance("gap-tv"))
    assert store.group(1).readable
    assert np.isnan(store.measures("chi2")).tolist() == [True, False]


def test_a_better_model_replaces_frames(tmp_path):
    example = Example(make_metadata()).fold()
    store = stored(tmp_path, example)
    store.put_frames(0, example.group(0) * 0, Quality(9.0), Provenance("gap-tv"))
    store.put_frames(0, example.group(0), Quality(1.0), Provenance("net"))
    np.testing.assert_allclose(store.frames(0, 4), example.truth, atol=0.5)
    assert StreamStore(store.path).group(0).provenance == Provenance("net")


def test_gaps_are_nan_and_shift_the_groups_after_them(tmp_path):
    """Groups behind a gap of 3 frames share their shards with their neighbours."""
    example = Example(make_metadata()).fold().gap(3).fold(2).raw(2)
    store = stored(tmp_path, example)
    for position in (0, 2, 3):
        store.put_frames(position, example.group(position), Quality(1.0), Provenance("gap-tv"))
    frames = store.frames(0, store.frame_count)
    assert np.isnan(frames[4:7]).all()
    for position in (0, 2, 3):
        group = store.group(position)
        np.testing.assert_allclose(frames[group.first_frame : group.end], example.group(position), atol=0.5)
    np.testing.assert_array_equal(frames[15:], example.truth[15:])
    assert [store.group(p).kind for p in range(5)] == [Kind.SNAPSHOT, Kind.GAP, Kind.SNAPSHOT, Kind.SNAPSHOT, Kind.RAW]
    assert [store.find(n) for n in (0, 3, 4, 6, 7, 14, 15, 16)] == [0, 0, 1, 1, 2, 3, 4, 4]


def test_putting_a_position_again_writes_the_same_bytes(tmp_path):
    example = Example(make_metadata(families=TWO_FAMILIES)).fold(2).gap(5).fold().raw(3)
    store = stored(tmp_path, example)
    store.put_frames(1, example.group(1), Quality(1.0), Provenance("gap-tv"))
    before = contents(store.path)
    store.put(*example.messages[1:])
    store.put(example.messages[2])
    assert contents(store.path) == before
    assert store.position == 5
    assert store.group(1).provenance == Provenance("gap-tv")


@pytest.mark.parametrize("catalogue_position", [None, 2, 3])
def test_opened_after_a_crash_it_goes_on_where_the_catalogue_stands(tmp_path, catalogue_position):
    example = Example(make_metadata(families=TWO_FAMILIES)).fold(2).gap(5).fold(2).gap(1).raw(3)
    stored(tmp_path, Example(example.metadata)).put(*example.messages[:3])
    store = StreamStore(tmp_path / "stream.zarr", position=catalogue_position)
    assert store.position == (3 if catalogue_position is None else catalogue_position)
    store.put(*example.messages[store.position :])
    store.finish(example.positions, example.frames)

    whole = stored(tmp_path / "whole", example)
    whole.finish(example.positions, example.frames)
    assert contents(store.path) == contents(whole.path)


def test_a_catalogue_ahead_of_the_store_is_refused(tmp_path):
    store = stored(tmp_path, Example(make_metadata()).fold(2))
    with pytest.raises(StoreError, match="holds 2 positions, expected 3"):
        StreamStore(store.path, position=3)


def test_finished_it_opens_in_plain_zarr_and_dask_with_its_true_size(tmp_path):
    example = Example(make_metadata(families=TWO_FAMILIES)).fold(3).gap(2).raw(1)
    store = stored(tmp_path, example)
    for position in range(3):
        store.put_frames(position, example.group(position), Quality(1.0 + position), Provenance("gap-tv"))
    store.finish(example.positions, example.frames)

    group = zarr.open_group(store.path, mode="r")
    assert {name: array.shape for name, array in group.arrays()} == {
        "snapshots": (3, 37, 70), "frames": (15, 37, 70), "raw": (1, 37, 70), "block_maps": (3, 1, 2),
    }  # fmt: skip
    assert group["groups/first_frame"][:].tolist() == [0, 4, 8, 12, 14]
    assert group["groups/kind"][:].tolist() == [0, 0, 0, 2, 1]
    assert group["groups/index"][:].tolist() == [0, 1, 2, -1, 0]
    assert group["groups/timestamp_ns"][:].tolist() == [1000, 1001, 1002, 0, 1004]
    np.testing.assert_array_equal(group["groups/chi2"][:], [1, 2, 3, np.nan, np.nan])
    assert (group["frames"].chunks, group["frames"].shards) == ((1, 37, 70), (4, 37, 70))

    lazy = dask.array.from_zarr(str(store.path), component="frames")
    np.testing.assert_array_equal(lazy.compute(), store.frames(0, 15))


def test_audit_groups_lie_beside_their_snapshots(tmp_path):
    example = Example(make_metadata(families=TWO_FAMILIES, audit=2)).fold(1, audited_in=3).fold().gap(3).fold(1, audited_in=1)
    example.raw(2)
    store = stored(tmp_path, example)
    kinds = [Kind.AUDIT] * 3 + [Kind.SNAPSHOT] * 2 + [Kind.GAP, Kind.AUDIT, Kind.SNAPSHOT, Kind.RAW]
    assert [group.kind for group in store.groups()] == kinds
    np.testing.assert_array_equal(store.audit(3), example.truth[:4])
    assert store.audit(4) is None
    np.testing.assert_array_equal(store.audit(7), example.truth[11:15])
    assert [store.last_audit(position) for position in (2, 3, 4, 6, 8)] == [None, 3, 3, 3, 7]
    assert [store.find(n) for n in (0, 3, 4, 8, 11, 14, 15)] == [3, 3, 4, 5, 7, 7, 8]
    assert [store.snapshot_count, store.frame_count] == [3, 17]
    np.testing.assert_array_equal(store.raw(8), example.truth[15:])
    before = contents(store.path)
    store.put(*example.messages[2:])
    assert contents(store.path) == before
    store.finish(example.positions, example.frames)
    group = zarr.open_group(store.path, mode="r")
    np.testing.assert_array_equal(group["audit"][:], np.concatenate([example.truth[:4], example.truth[11:15]]))
    assert (group["audit"].dtype, group["raw"].shape) == (np.uint8, (2, 37, 70))
    assert group["groups/kind"][:].tolist() == [3, 3, 3, 0, 0, 2, 3, 0, 1]
    assert group["groups/index"][:].tolist() == [0, 2, 3, 0, 1, -1, 4, 2, 0]
    reopened = StreamStore(store.path)
    np.testing.assert_array_equal(reopened.audit(7), example.truth[11:15])


def test_a_crash_between_audit_frames_and_their_snapshot_goes_on(tmp_path):
    example = Example(make_metadata(audit=1)).fold(2, audited_in=2)
    stored(tmp_path, Example(example.metadata)).put(*example.messages[:4])
    store = StreamStore(tmp_path / "stream.zarr", position=4)
    assert store.frame_count == 4
    store.put(*example.messages[4:])
    np.testing.assert_array_equal(store.audit(5), example.truth[4:])


def test_attributes_describe_the_stream(tmp_path):
    example = Example(make_metadata(frame_time_s=0.002, pixel_size_nm=0.05)).fold().gap(2, "link down")
    store = stored(tmp_path, example)
    store.finish(2, 6)
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]
    (image,) = attributes["ome"]["multiscales"]
    assert attributes["ome"]["version"] == "0.5"
    assert image["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "nanometer"},
    ]
    scale = [{"type": "scale", "scale": [0.002, 0.05, 0.05]}]
    assert image["datasets"] == [{"path": "frames", "coordinateTransformations": scale}]
    assert json.loads((store.path / "frames/zarr.json").read_text())["dimension_names"] == ["t", "y", "x"]
    ours = attributes["framefold"]
    assert (ours["version"], ours["complete"], ours["positions"], ours["frames"]) == (3, True, 2, 6)
    assert ours["gaps"] == [{"position": 1, "first_frame": 4, "frames": 2, "reason": "link down"}]
    assert StreamStore(store.path).metadata == example.metadata


def test_axes_of_unknown_scale_have_no_unit(tmp_path):
    store = stored(tmp_path, Example(make_metadata()))
    (image,) = zarr.open_group(store.path, mode="r").attrs["ome"]["multiscales"]
    assert all("unit" not in axis for axis in image["axes"])


def test_finishing_needs_all_positions_and_ends_the_stream(tmp_path):
    example = Example(make_metadata()).fold(3)
    store = stored(tmp_path, Example(example.metadata))
    store.put(*example.messages[:2])
    with pytest.raises(StoreError, match="holds 2 positions and 8 frames, expected 3 and 12"):
        store.finish(3, 12)
    store.finish(2, 8)
    before = contents(store.path)
    store.finish(2, 8)
    assert contents(store.path) == before
    with pytest.raises(StoreError, match="complete"):
        store.put(example.messages[2])


def test_an_empty_stream_finishes(tmp_path):
    store = stored(tmp_path, Example(make_metadata()))
    store.finish(0, 0)
    assert zarr.open_array(store.path / "frames", mode="r").shape == (0, 37, 70)


def test_arrays_grow_past_their_first_size(tmp_path):
    example = Example(make_metadata((2, 3))).gap(1).fold(1030)
    store = stored(tmp_path, example)
    store.put_frames(1030, example.group(1030), Quality(1.0), Provenance("gap-tv"))
    store.finish(example.positions, example.frames)
    reopened = StreamStore(store.path)
    assert reopened.position == 1031
    assert reopened.group(1030) == store.group(1030)
    assert reopened.find(4 * 1030) == 1030
    sums = np.sum(example.codings[1030].window() * example.group(1030), axis=0)
    np.testing.assert_array_equal(reopened.snapshot_at(1029), sums)
    np.testing.assert_allclose(reopened.frames(4117, 4121), example.group(1030), atol=0.5)


def test_a_gap_of_a_trillion_frames_costs_nothing(tmp_path):
    store = stored(tmp_path, Example(make_metadata()))
    store.put(Gap(0, 0, 10**12, "asleep"))
    store.put(Gap(1, 10**12, 1, "still asleep"))
    store.finish(2, 10**12 + 1)
    assert np.isnan(store.frames(10**12 - 1, 10**12)).all()


def _bad_messages(example: Example):
    snapshot, raw = example.messages
    yield "payload", replace(snapshot, payload=snapshot.payload[:-1])
    yield "codec", replace(snapshot, codec="zip")
    yield "type", replace(raw, **vars(payload.pack(np.ones((2, 37, 70), np.uint16))))
    yield "more raw frames than sent", replace(raw, frames=3)
    yield "number of frames", replace(snapshot, frames=5)
    yield "number of blocks", replace(snapshot, block_map=b"\0")
    yield "largest family", replace(snapshot, block_map=b"\0\2")
    yield "first frame", replace(snapshot, first_frame=1)
    yield "no frames", replace(snapshot, frames=0)
    yield "timestamp", replace(snapshot, timestamp_ns=2**63)
    yield "sum", replace(snapshot, **vars(payload.pack(np.full((37, 70), 2**16, np.uint32))))


@pytest.mark.parametrize("number", range(11))
def test_a_malformed_message_is_the_peers_fault_and_changes_nothing(tmp_path, number):
    example = Example(make_metadata(families=TWO_FAMILIES)).fold().raw(2)
    bad = list(_bad_messages(example))
    assert len(bad) == 11
    _, message = bad[number]
    store = stored(tmp_path, Example(example.metadata))
    if message.position:
        store.put(example.messages[0])
    before = contents(store.path)
    with pytest.raises(RemoteProtocolError):
        store.put(message)
    assert contents(store.path) == before
    assert store.position == message.position


def test_positions_may_not_be_skipped(tmp_path):
    example = Example(make_metadata()).fold(3)
    store = stored(tmp_path, Example(example.metadata))
    with pytest.raises(StoreError, match="position 1, expected 0"):
        store.put(example.messages[1])
    with pytest.raises(RemoteProtocolError, match="expected position 1"):
        store.put(example.messages[0], example.messages[2])
    assert store.position == 0


def test_frames_of_the_wrong_shape_or_place_are_refused(tmp_path):
    example = Example(make_metadata()).fold().gap(4)
    store = stored(tmp_path, example)
    with pytest.raises(StoreError, match=r"expected \(4, 37, 70\)"):
        store.put_frames(0, example.group(0)[:3], Quality(1.0), Provenance("gap-tv"))
    with pytest.raises(StoreError, match="for a gap"):
        store.put_frames(1, example.group(1), Quality(1.0), Provenance("gap-tv"))
    with pytest.raises(StoreError, match="expected 0 to 1"):
        store.put_frames(2, example.group(0), Quality(1.0), Provenance("gap-tv"))


@pytest.mark.parametrize("limit", [0, 200, 900])
def test_a_disk_that_refuses_leaves_the_store_as_it_was(tmp_path, limit):
    example = Example(make_metadata()).fold(2)
    store = stored(tmp_path, Example(example.metadata))
    store.put(example.messages[0])
    with file_size_limit(limit), pytest.raises(StoreError, match="storing position 1 in") as caught:
        store.put(example.messages[1])
    assert caught.value.hint
    assert store.position == 1
    assert StreamStore(store.path).position == 1
    assert not list(store.path.rglob("*.partial"))
    store.put(example.messages[1])
    np.testing.assert_array_equal(StreamStore(store.path).snapshot(1), store.snapshot(1))


def test_what_is_no_store_is_named_with_a_hint(tmp_path):
    for name, prepare in {"missing": lambda p: None, "empty": Path.mkdir, "zarr": lambda p: zarr.create_group(p)}.items():
        prepare(tmp_path / name)
        with pytest.raises(StoreError, match=f"{name} is not a framefold store") as caught:
            StreamStore(tmp_path / name)
        assert caught.value.hint


def test_a_newer_format_is_refused(tmp_path):
    store = stored(tmp_path, Example(make_metadata()))
    group = zarr.open_group(store.path)
    group.attrs["framefold"] = group.attrs["framefold"] | {"version": 4}
    with pytest.raises(StoreError, match="format version 4, expected 3"):
        StreamStore(store.path)


def test_fields_of_a_later_release_are_ignored(tmp_path):
    example = Example(make_metadata())
    store = stored(tmp_path, example)
    group = zarr.open_group(store.path)
    described = group.attrs["framefold"]
    group.attrs["framefold"] = described | {"later": 1, "stream": described["stream"] | {"later": 1}}
    assert StreamStore(store.path).metadata == example.metadata


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="creating store") as caught:
        StreamStore.create(tmp_path / "file" / "stream.zarr", make_metadata())
    assert "choose another folder" in caught.value.hint


def test_an_existing_store_is_not_overwritten(tmp_path):
    example = Example(make_metadata()).fold()
    store = stored(tmp_path, example)
    with pytest.raises(StoreError, match="exists already"):
        StreamStore.create(store.path, example.metadata)


@pytest.mark.parametrize(
    "fields",
    [{"stream_id": "../../etc"}, {"frame_time_s": float("nan")}, {"pixel_size_nm": 0.0}, {"counts_per_electron": -1.0}],
)
def test_metadata_that_cannot_be_is_the_peers_fault(tmp_path, fields):
    with pytest.raises(RemoteProtocolError, match=next(iter(fields))):
        StreamStore.create(tmp_path / "stream.zarr", make_metadata(**fields))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("array", "read"), [("snapshots", lambda s: s.snapshot(0)), ("frames", lambda s: s.frames(0, 4))])
def test_a_damaged_file_is_told_from_good_ones(tmp_path, array, read):
    example = Example(make_metadata()).fold()
    store = stored(tmp_path, example)
    store.put_frames(0, example.group(0), Quality(1.0), Provenance("gap-tv"))
    chunk = store.path / array / "c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{array} of .* is damaged"):
        read(store)


DIES_WRITING = """
import os, signal, sys
from pathlib import Path
from stream_examples import Example, make_metadata
from framefold_decoder.store import StreamStore

def fsync(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".partial"):
        os.kill(os.getpid(), signal.SIGKILL)


store = StreamStore(Path(sys.argv[1]))
os.fsync = fsync
store.put(Example(make_metadata()).fold(2).messages[1])
"""


@pytest.mark.parametrize("array", ["snapshots", "raw"])
def test_a_missing_file_is_no_dark_image(tmp_path, array):
    example = Example(make_metadata()).fold(2).raw(3)
    store = StreamStore.create(tmp_path / "s.zarr", example.metadata)
    store.put(*example.messages)
    gone = tmp_path / "s.zarr" / array / "c" / "1" / "0" / "0"
    gone.unlink()
    with pytest.raises(StoreError, match=f"{gone} is missing.*verify"):
        store.snapshot(1) if array == "snapshots" else store.raw(2)
    assert store.snapshot(0).any()


def test_leftovers_of_a_crash_disturb_nobody(tmp_path):
    example = Example(make_metadata()).fold()
    store = stored(tmp_path, example)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", DIES_WRITING, store.path], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("*.partial"))
    assert StreamStore(store.path).position == 1
    assert not list(tmp_path.rglob("*.partial"))
    assert "snapshots" in dict(zarr.open_group(store.path, mode="r").arrays())
    (tmp_path / "next.zarr.partial").mkdir()
    assert StreamStore.create(tmp_path / "next.zarr", example.metadata).position == 0


def test_ingest_decoding_and_reading_at_once(tmp_path):
    """Two decode threads behind ingest, in shards that groups share: readers see NaN or the frames, never anything else."""
    example = Example(make_metadata((20, 30))).gap(1).fold(24).raw(3)
    store = stored(tmp_path, Example(example.metadata))
    done = threading.Event()

    def ingest():
        for start in range(0, example.positions, 3):
            store.put(*example.messages[start : start + 3])

    def decode(positions):
        for position in positions:
            while store.position <= position and not done.is_set():
                time.sleep(0.001)
            store.put_frames(position, example.group(position), Quality(float(position)), Provenance("gap-tv"))

    def read():
        while not done.is_set():
            count = store.frame_count
            frames = store.frames(0, count)
            decoded = ~np.isnan(frames)
            np.testing.assert_allclose(frames[decoded], example.truth[:count][decoded], atol=0.5)

    with ThreadPoolExecutor(4) as pool:
        reader = pool.submit(read)
        works = [pool.submit(ingest), pool.submit(decode, range(1, 25, 2)), pool.submit(decode, range(2, 25, 2))]
        try:
            for work in works:
                work.result(timeout=60)
        finally:
            done.set()
        reader.result()
    store.finish(example.positions, example.frames)
    reopened = StreamStore(store.path)
    np.testing.assert_allclose(reopened.frames(1, 100), example.truth[1:], atol=0.5)
    np.testing.assert_array_equal(reopened.measures("chi2")[1:25], np.arange(1, 25))


def test_frames_that_are_made_anew_can_be_read_all_the_while(tmp_path):
    example = Example(make_metadata((64, 64))).fold(4)
    store, closing = stored(tmp_path, example), threading.Event()
    random = np.random.default_rng(0)

    def write():
        while not closing.is_set():
            store.put_frames(1, random.gamma(4, 3, (4, 64, 64)).astype(np.float32), Quality(1.0, 1.0), Provenance("net"))

    store.put_frames(1, np.ones((4, 64, 64), np.float32), Quality(1.0, 1.0), Provenance("net"))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(1500):
            assert np.isfinite(store.frames(5, 6)).all()
    finally:
        closing.set()
        writer.join()


def test_frames_are_rounded_by_the_noise_they_were_judged_with(tmp_path):
    """An offset carries none: pixels of 5 electrons on 1000 counts are as noisy as on none."""
    store = stored(tmp_path, Example(make_metadata()).fold(1))
    frames = 1000 + np.random.default_rng(0).gamma(5, 1, (4, 37, 70)).astype(np.float32)
    store.put_frames(0, frames, Quality(1.0, 1.0, 1000.0, 0.0), Provenance("net"))
    sigma = np.sqrt(np.maximum(frames - 1000, 1 / 64))
    assert (np.abs(store.frames(0, 4) - frames) <= sigma / 32 + 1e-4).all()
