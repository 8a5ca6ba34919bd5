"""`GET /metrics`: what the decoder counts is what happened, read as Prometheus reads it."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from stream_examples import Example, make_metadata
from test_api import served
from test_downlink import STREAM, Peer, snapshot
from test_gatekeeper import eventually

from framefold_decoder.api.app import create_app
from framefold_decoder.downlink import Downlink
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.unfolding import Unfolder
from framefold_protocol.messages import Done, End, Error, Gap, Hello, Welcome
from processes import free_port


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def endpoint(library, metrics):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with Downlink(endpoint, library, 8, None, lambda: None, metrics=metrics):
        yield endpoint


@pytest.fixture
def scrape(library, metrics):
    """Scrapes the service: {name or name{label value}: value}."""
    with served(create_app(library, metrics=metrics)) as client:

        def scrape() -> dict[str, float]:
            response = client.get("/metrics")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/plain; version=")
            families = text_string_to_metric_families(response.text)
            samples = [sample for family in families for sample in family.samples]
            return {
                sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value for sample in samples
            }

        yield scrape


def test_a_new_decoder_has_counted_nothing(scrape, endpoint):
    counted = scrape()
    for name in ("snapshots_received", "frames_received", "frames_lost", "wire_bytes", "duplicates", "refused_keys"):
        assert counted[f"framefold_{name}_total"] == 0
    for name in ("connections", "open_streams", "pending_decodes", "problem", "chi2_count", "decode_seconds_count"):
        assert counted[f"framefold_{name}"] == 0
    assert counted["framefold_disk_free_bytes"] > 0
    assert counted["process_resident_memory_bytes"] > 0


def test_a_stream_is_counted(library, scrape, endpoint):
    with (peer := Peer(endpoint)).socket:
        peer.says(Hello(STREAM), snapshot(0), snapshot(0), Gap(1, 4, 10, "disk full"), snapshot(2, first_frame=14))
        peer.hears_until(Welcome)
        eventually(lambda: library.catalogue.stream(STREAM.stream_id).position == 3, "what was acknowledged is stored")
        stored_bytes = library.catalogue.stream(STREAM.stream_id).bytes_received
        eventually(lambda: scrape()["framefold_wire_bytes_total"] == stored_bytes > 0, "it is counted")
        counted = scrape()
        assert counted["framefold_snapshots_received_total"] == 2
        assert counted["framefold_frames_received_total"] == 8
        assert counted["framefold_frames_lost_total"] == 10
        assert counted["framefold_duplicates_total"] == 1
        assert (counted["framefold_open_streams"], counted["framefold_connections"]) == (1, 1)
        assert counted["framefold_pending_decodes"] == 2
        peer.says(End(3, 18))
        peer.hears_until(Done)
        eventually(lambda: not scrape()["framefold_open_streams"], "the session has ended with its last answer")


def test_refusals_are_counted_by_their_code(scrape, endpoint):
    refused = {
        "malformed": [[b"garbage"]] * 3,
        "mask-hash": [Hello(replace(STREAM, mask_digests=("0" * 64,)))],
        "no-session": [snapshot(0)],
    }
    with (peer := Peer(endpoint)).socket:
        for messages in refused.values():
            for message in messages:
                peer.says(message)
                peer.hears_until(Error)
    counted = scrape()
    found = {name: value for name, value in counted.items() if name.startswith("framefold_refused_sessions_total")}
    assert found == {f"framefold_refused_sessions_total{{{code}}}": len(sent) for code, sent in refused.items()}


def test_what_is_reconstructed_is_counted(library, metrics, scrape):
    example = Example(make_metadata()).fold(3)
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, example.messages, 1)
    library.finish(example.metadata.stream_id, example.positions, example.frames)
    assert scrape()["framefold_pending_decodes"] == 3
    with Unfolder(library, Registry(), "gap-tv", metrics):
        eventually(lambda: not library.catalogue.pending(), "all are reconstructed")
    counted = scrape()
    chi2 = library.store(example.metadata.stream_id).measures("chi2")
    assert counted["framefold_chi2_count"] == counted["framefold_decode_seconds_count"] == 3
    assert counted["framefold_chi2_sum"] == pytest.approx(np.sum(chi2), rel=1e-5)
    assert counted["framefold_chi2_bucket{+Inf}"] == 3
    assert counted["framefold_pending_decodes"] == 0


def test_problems_are_told_and_the_rest_still_is(tmp_path):
    library = Library.open(tmp_path)
    library.close()
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 100)
    with served(create_app(library)) as client:
        text = client.get("/metrics").text
    assert "framefold_problem 1.0" in text
    assert "framefold_disk_free_bytes" in text
    assert "framefold_pending_decodes" not in text


def test_another_problem_is_told(library):
    with served(create_app(library, problems=lambda: ["the link has stopped"])) as client:
        assert "framefold_problem 1.0" in client.get("/metrics").text


def test_the_number_of_series_does_not_grow_with_streams(library, scrape):
    before = len(scrape())
    for _ in range(5):
        library.add_stream(make_metadata())
    assert len(scrape()) == before
