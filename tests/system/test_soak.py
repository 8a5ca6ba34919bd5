"""The soak in short: twenty kills leave the store of a run without faults. And its parts: the checker sees what it should
see, the link breaks as it says. Nothing here looks at speeds or latencies."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr

from framefold_decoder.library import Library
from framefold_protocol import payload
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.messages import RawFrames, Snapshot, StreamMetadata

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from soak_parts.chaos import Outcome  # noqa: E402
from soak_parts.checker import check  # noqa: E402
from soak_parts.clock import Clock  # noqa: E402
from soak_parts.faulty_link import FaultyLink  # noqa: E402
from soak_parts.scenes import Reference, Scene, read_catalogue  # noqa: E402

SCENE = Scene("example", "file:example.npy")


def test_after_twenty_kills_the_store_is_that_of_a_run_without_faults(tmp_path):
    report = tmp_path / "soak.json"
    options = [
        "--minutes",
        "0",
        "--kills",
        "20",
        "--seed",
        "3",
        "--model",
        "none",
        "--scenes",
        "wide,adaptive,short",
        "--mean-delay",
        "0.5",
    ]
    command = [sys.executable, "benchmarks/soak.py", *options, "--calm-minutes", "0.02", "--folder", tmp_path, "--json", report]
    # as behind a script's &: an interrupt that is ignored would be by all that it starts, and nothing would end when asked to
    ignoring = ["bash", "-c", "trap '' INT; exec \"$@\"", "soak", *(str(part) for part in command)]
    done = subprocess.run(ignoring, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr + done.stdout
    results = json.loads(report.read_text())
    assert results == json.loads(done.stdout.splitlines()[-1])
    assert results["kills"] == sum(results["kills_during"].values()) >= 20
    assert {side for side in ("encoder", "decoder") for kind in results["kills_during"] if kind.startswith(side)} == {
        "encoder",
        "decoder",
    }
    assert results["snapshots_sent"] == results["snapshots_stored"] > 0
    assert (results["duplicates"], results["gaps"], results["identical"]) == (0, 0, True)
    assert results["disk_fulls"] or results["disk_fulls_left_out"]
    assert results["cuts"]
    assert results["clock_jumps"]
    for latency in (results["latency_ms"]["ack"], results["latency_ms"]["reconstruction"]):
        assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert results["memory_slope_mb_per_h"].keys() == {"encoder", "decoder"}
    assert not list(tmp_path.glob("framefold-soak-*"))


def store(folder, number, *, snapshots=5, raw=3, copies=1):
    """A data folder with a stream of snapshots and raw frames in it, the same bytes every time but for the stream's id."""
    random = np.random.default_rng(0)
    spec = MaskSpec(ratio=4, period=8)
    masks = derive_masks(spec, (16, 24))
    with closing(Library.open(folder)) as library:
        for copy in range(copies):
            stream_id = name(number + copy)
            library.add_stream(StreamMetadata(stream_id, "example", (16, 24), "uint8", (spec,), (masks.digest,), 1))
            messages = []
            for position in range(snapshots):
                sums = payload.pack(random.integers(0, 1000, (16, 24), np.uint16))
                messages.append(Snapshot(position, 4 * position, 4, 1, **vars(sums)))
            if raw:
                frames = payload.pack(random.integers(0, 255, (raw, 16, 24), np.uint8))
                messages.append(RawFrames(snapshots, 4 * snapshots, raw, 1, **vars(frames)))
            library.put(stream_id, messages, 1000)
            library.finish(stream_id, len(messages), 4 * snapshots + raw)
    return folder


def name(number):
    return f"{number:032x}"


@pytest.fixture
def reference(tmp_path):
    folder = store(tmp_path / "reference", 1)
    return {SCENE: Reference(folder, read_catalogue(folder)[0])}


def verdict(data, references):
    return check(data, [Outcome(SCENE, {"stream_id": name(2), "snapshots": 5})], references, decoded=False)


def chunks(data):
    return sorted(path for path in data.glob("streams/*.zarr/snapshots/c/**/*") if path.is_file())


def test_the_checker_takes_an_equal_store_under_another_name(tmp_path, reference):
    found = verdict(store(tmp_path / "data", 2), reference)
    assert found.identical, found.differences
    assert (found.streams, found.snapshots_sent, found.snapshots_stored) == (1, 5, 5)


def test_the_checker_sees_a_changed_byte(tmp_path, reference):
    data = store(tmp_path / "data", 2)
    content = bytearray(chunks(data)[3].read_bytes())
    content[-1] ^= 1
    chunks(data)[3].write_bytes(content)
    found = verdict(data, reference)
    assert not found.identical
    assert any("snapshots/c/3/0/0 differs" in difference for difference in found.differences)


def test_the_checker_folds_what_masks_may_differ_for(tmp_path):
    frames = np.random.default_rng(0).poisson(20, (20, 16, 24)).astype(np.uint8)
    families = MaskSpec(ratio=4, period=8), MaskSpec("ones", 4)
    masks = tuple(derive_masks(spec, (16, 24)) for spec in families)
    for folder, number, family in (("reference", 1, 0), ("data", 2, 1)):  # another choice than without faults
        with closing(Library.open(tmp_path / folder)) as library:
            digests = tuple(one.digest for one in masks)
            library.add_stream(StreamMetadata(name(number), "example", (16, 24), "uint8", families, digests, 1))
            bits, block_map = masks[family].window(), bytes([family])
            sums = [(frames[k : k + 4].astype(np.uint16) * bits).sum(axis=0, dtype=np.uint16) for k in range(0, 20, 4)]
            messages = [Snapshot(k, 4 * k, 4, 1, **vars(payload.pack(one)), block_map=block_map) for k, one in enumerate(sums)]
            library.put(name(number), messages, 1000)
            library.finish(name(number), 5, 20)
    np.save(tmp_path / "frames.npy", frames)
    scene = Scene("example", "", frames=tmp_path / "frames.npy")
    references = {scene: Reference(tmp_path / "reference", read_catalogue(tmp_path / "reference")[0])}
    outcome = Outcome(scene, {"stream_id": name(2), "snapshots": 5})
    found = check(tmp_path / "data", [outcome], references, decoded=False)
    assert found.identical, found.differences
    np.save(tmp_path / "frames.npy", np.roll(frames, 1, axis=0))
    found = check(tmp_path / "data", [outcome], references, decoded=False)
    assert [difference.split(": ")[1] for difference in found.differences] == [
        f"snapshot {k} is not the fold of its frames" for k in range(5)
    ]


def test_the_checker_sees_a_missing_file_and_one_too_many(tmp_path, reference):
    data = store(tmp_path / "data", 2)
    last = chunks(data)[4]
    last.rename(last.with_name("9"))
    found = verdict(data, reference)
    assert any("is missing" in difference for difference in found.differences)
    assert any("should not be there" in difference for difference in found.differences)


def test_the_checker_sees_a_position_told_twice(tmp_path, reference):
    data = store(tmp_path / "data", 2)
    table = zarr.open_group(next(data.glob("streams/*.zarr")), mode="r+")["groups/first_frame"]
    table[2] = table[1]
    found = verdict(data, reference)
    assert found.duplicates == 1
    assert not found.identical


def test_the_checker_sees_a_stream_that_was_stored_twice(tmp_path, reference):
    found = verdict(store(tmp_path / "data", 2, copies=2), reference)
    assert found.duplicates == 6
    assert not found.identical


def test_the_checker_sees_a_stream_that_never_came(tmp_path, reference):
    found = verdict(store(tmp_path / "data", 3), reference)
    assert not found.identical
    assert any("not in the catalogue" in difference for difference in found.differences)


def test_the_checker_sees_a_stream_that_ends_too_early(tmp_path, reference):
    found = verdict(store(tmp_path / "data", 2, snapshots=4, raw=0), reference)
    assert found.gaps == 7
    assert not found.identical


def test_a_clock_jumps_under_a_running_process(tmp_path):
    clock = Clock(tmp_path / "clock")
    code = "import time\nwhile input():\n print(time.time(), time.time_ns(), flush=True)"
    environment = {**os.environ, **clock.environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        for offset_s in (0, -1e6, 3e7):
            clock.jump_to(offset_s)
            process.stdin.write("tell\n")
            process.stdin.flush()
            seconds, nanoseconds = process.stdout.readline().split()
            for told in (float(seconds), int(nanoseconds) / 1e9):
                assert told == pytest.approx(time.time() + offset_s, abs=1000)
        process.kill()


@pytest.fixture
def link():
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(20)
        relay = FaultyLink(target.getsockname()[1])

        def connect():
            near = socket.create_connection(("127.0.0.1", relay.port), timeout=20)
            far, _ = target.accept()
            far.settimeout(20)
            return near, far

        yield relay, connect


def test_the_link_passes_on_what_it_is_given(link):
    _, connect = link
    near, far = connect()
    with near, far:
        near.sendall(b"snapshot")
        assert far.recv(8, socket.MSG_WAITALL) == b"snapshot"
        far.sendall(b"ack")
        assert near.recv(3, socket.MSG_WAITALL) == b"ack"


def test_a_reset_ends_both_ends_at_once_and_the_next_connection_works(link):
    relay, connect = link
    near, far = connect()
    with near, far:
        near.sendall(b"x")
        far.recv(1)
        relay.cut("reset")
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        relay.mend()
    near, far = connect()
    with near, far:
        near.sendall(b"again")
        assert far.recv(5, socket.MSG_WAITALL) == b"again"


def test_a_stall_delays_and_loses_nothing(link):
    relay, connect = link
    near, far = connect()
    with near, far:
        relay.cut("stall")
        near.sendall(b"late")
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):
            far.recv(1)
        relay.mend()
        far.settimeout(20)
        assert far.recv(4, socket.MSG_WAITALL) == b"late"


def test_what_is_swallowed_never_arrives_and_the_connection_is_reset(link):
    relay, connect = link
    near, far = connect()
    with near, far:
        relay.cut("swallow")
        near.sendall(b"lost")
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):
            far.recv(1)
        relay.mend()
        far.settimeout(20)
        with pytest.raises(ConnectionResetError):
            far.recv(1)


def test_a_link_that_refuses_resets_who_comes(link):
    relay, _ = link
    relay.cut("refuse")
    # The reset may come before `connect` returns or after.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", relay.port), timeout=20) as near:
        near.recv(1)
