from __future__ import annotations

import io
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from PIL import Image
from stream_examples import TWO_FAMILIES, Example, make_metadata

from framefold_decoder.api import openapi
from framefold_decoder.api.app import create_app
from framefold_decoder.library import Library
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_protocol.errors import ModelError
from framefold_protocol.noise import NoiseModel

UNKNOWN = "f" * 32


@contextmanager
def served(app):
    """A client of the app behind a real server on a free loopback port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = Library.open(tmp_path_factory.mktemp("data"))
    yield library
    library.close()


@pytest.fixture(scope="module")
def example(library) -> Example:
    """Frames 0-3 decoded, 4-7 not, 8-12 lost, 13-16 decoded with two families, 17-18 sent raw."""
    metadata = make_metadata(dtype="uint16", families=TWO_FAMILIES, frame_time_s=0.01, pixel_size_nm=0.1)
    example = Example(metadata).fold(2).gap(5, "link down").fold().raw(2)
    library.add_stream(metadata)
    library.put(metadata.stream_id, example.messages, 5000)
    library.finish(metadata.stream_id, example.positions, example.frames)
    library.put_frames(metadata.stream_id, 0, example.group(0), Quality(1.0), Provenance("gap-tv"))
    library.put_frames(metadata.stream_id, 3, example.group(3), Quality(3.0), Provenance("net"))
    return example


@pytest.fixture(scope="module")
def client(library, example):
    with served(create_app(library, max_bytes=10 * 37 * 70 * 4)) as client:
        yield client


@pytest.fixture
def stream(example) -> str:
    return f"/api/v1/streams/{example.metadata.stream_id}"


def ok(response: httpx.Response) -> httpx.Response:
    assert response.status_code == 200, response.text
    return response


def error_of(response: httpx.Response, status: int) -> str:
    """The message of an error in the one shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "hint"}
    return body["error"]["message"]


def as_array(response: httpx.Response) -> np.ndarray:
    return np.load(io.BytesIO(ok(response).content))


def test_streams_are_listed_in_brief(client, example):
    (brief,) = ok(client.get("/api/v1/streams")).json()
    assert brief["id"] == example.metadata.stream_id
    counts = {"positions": 5, "frames": 19, "frames_received": 14, "snapshots": 3, "decoded": 2, "bytes_received": 5000}
    assert counts.items() <= brief.items()
    assert (brief["state"], brief["shape"], brief["dtype"], brief["ratio"]) == ("complete", [37, 70], "uint16", 4)
    assert brief["bytes_delivered"] == 14 * 37 * 70 * 2
    assert brief["wire_ratio"] == 14 * 37 * 70 * 2 / 5000


def test_a_stream_is_told_in_full(client, library, example, stream):
    detail = ok(client.get(stream)).json()
    assert detail["gaps"] == [{"position": 2, "first_frame": 8, "frames": 5, "reason": "link down"}]
    assert detail["frames_lost"] == 5
    assert detail["chi2"] == {"count": 2, "mean": 2.0, "median": 2.0, "p95": pytest.approx(2.9), "largest": 3.0}
    assert [family["digest"] for family in detail["families"]] == list(example.metadata.mask_digests)
    assert [family["kind"] for family in detail["families"]] == ["balanced", "ones"]
    assert (detail["frame_time_s"], detail["pixel_size_nm"], detail["counts_per_electron"]) == (0.01, 0.1, None)
    assert detail["store"] == str(library.path(example.metadata.stream_id).absolute())


def test_a_stream_without_data_has_nulls_and_no_nan(library):
    metadata = make_metadata()
    library.add_stream(metadata)
    with served(create_app(library)) as client:
        detail = ok(client.get(f"/api/v1/streams/{metadata.stream_id}"))
        assert (detail.json()["wire_ratio"], detail.json()["chi2"], detail.json()["state"]) == (None, None, "receiving")
        message = error_of(client.get(f"/api/v1/streams/{metadata.stream_id}/frames/0"), 404)
        assert message == "frame 0 is not stored, the stream holds none yet"


def test_a_frame_as_npy_and_tiff_has_its_counts(client, example, stream):
    npy = client.get(f"{stream}/frames/14", params={"format": "npy"})
    frame = as_array(npy)
    assert (npy.headers["content-type"], frame.dtype, frame.shape) == ("application/x-npy", np.float32, (37, 70))
    np.testing.assert_allclose(frame, example.truth[14], atol=8)
    tiff = ok(client.get(f"{stream}/frames/14", params={"format": "tiff"}))
    assert tiff.headers["content-type"] == "image/tiff"
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff.content)), frame)


def test_a_raw_frame_is_exact(client, example, stream):
    np.testing.assert_array_equal(as_array(client.get(f"{stream}/frames/18?format=npy")), example.truth[18])


def test_png_stretches_the_contrast_between_percentiles_or_as_asked(client, example, stream):
    image = Image.open(io.BytesIO(ok(client.get(f"{stream}/frames/18")).content))
    assert (image.size, image.mode) == ((70, 37), "L")
    assert np.asarray(image).min() == 0
    assert np.asarray(image).max() == 255
    asked = ok(client.get(f"{stream}/frames/18", params={"low": 1000, "high": 1255}))
    expected = np.clip(example.truth[18].astype(float) - 1000, 0, 255)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(asked.content))), expected)


def test_a_range_of_frames_has_nan_for_what_was_lost(client, example, stream):
    response = client.get(f"{stream}/frames", params={"start": 9, "stop": 19})
    frames = as_array(response)
    assert int(response.headers["content-length"]) == len(response.content)
    assert frames.shape == (10, 37, 70)
    assert np.isnan(frames[:4]).all()
    np.testing.assert_allclose(frames[4:], example.truth[13:], atol=8)


def test_a_large_range_comes_in_pieces(library, monkeypatch):
    monkeypatch.setattr("framefold_decoder.api.frames.BLOCK_BYTES", 3 * 37 * 70 * 4)
    example = Example(make_metadata()).raw(10)
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, example.messages, 1)
    with served(create_app(library)) as client:
        url = f"/api/v1/streams/{example.metadata.stream_id}/frames"
        np.testing.assert_array_equal(as_array(client.get(url, params={"start": 1, "stop": 9})), example.truth[1:9])


def test_snapshots_are_exact_and_count_without_gaps(client, library, example, stream):
    store = library.store(example.metadata.stream_id)
    for k, position in enumerate((0, 1, 3)):
        np.testing.assert_array_equal(as_array(client.get(f"{stream}/snapshots/{k}?format=npy")), store.snapshot(position))
    tiff = ok(client.get(f"{stream}/snapshots/0?format=tiff"))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff.content)), store.snapshot(0))
    assert Image.open(io.BytesIO(ok(client.get(f"{stream}/snapshots/0")).content)).size == (70, 37)


def test_quality_tells_every_position(client, stream):
    quality = ok(client.get(f"{stream}/quality")).json()
    assert quality["positions"] == 5
    assert [(g["kind"], g["snapshot"], g["chi2"], g["model"]) for g in quality["groups"]] == [
        ("snapshot", 0, 1.0, "gap-tv"),
        ("snapshot", 1, None, None),
        ("gap", None, None, None),
        ("snapshot", 2, 3.0, "net"),
        ("raw", None, None, None),
    ]
    assert [g["timestamp_ns"] for g in quality["groups"]] == [1000, 1001, None, 1003, 1004]
    page = ok(client.get(f"{stream}/quality", params={"start": 3, "limit": 1})).json()
    assert [g["position"] for g in page["groups"]] == [3]
    assert ok(client.get(f"{stream}/quality?start=99")).json()["groups"] == []


def test_models_are_told_as_given_with_null_for_nan(library):
    rows = [
        {"name": "gap-tv", "kind": "gap-tv", "ratios": [], "mask_kinds": []},
        {"name": "net", "kind": "onnx", "provider": "CPUExecutionProvider", "ratios": [4], "mask_kinds": ["balanced"],
         "problem": "damaged", "card": {"scores": [{"psnr_db": float("nan")}]}},
    ]  # fmt: skip
    with served(create_app(library, models=lambda: rows)) as client:
        solver, net = ok(client.get("/api/v1/models")).json()
    assert solver == rows[0] | {"provider": None, "problem": None, "card": None}
    assert net == rows[1] | {"card": {"scores": [{"psnr_db": None}]}}


def test_health_and_readiness(client):
    assert ok(client.get("/healthz")).json().keys() == {"version", "problems"}
    assert ok(client.get("/readyz")).json() == {"ready": True, "problems": []}


def test_problems_make_it_unready(library):
    with served(create_app(library, problems=lambda: ["no model fits"])) as client:
        response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "problems": ["no model fits"]})


def test_a_database_that_went_away_makes_it_unready(tmp_path):
    library = Library.open(tmp_path)
    library.close()
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 100)
    with served(create_app(library)) as client:
        assert client.get("/readyz").status_code == 503
        assert "not a database" in client.get("/readyz").json()["problems"][0]
        assert "not a database" in error_of(client.get("/api/v1/streams"), 500)
    library.close()


def test_quality_tells_what_made_the_frames_and_what_an_audit_found(library):
    example = Example(make_metadata(audit=1)).fold(2, audited_in=2)
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, example.messages, 1)
    made_by = Provenance("net", "ab" * 32, "0.1.0+0123456789ab", {"provider": "CPUExecutionProvider", "snapshots_after": 2})
    measured = Quality(1.1, 12.0, 100.0, 3.5, psnr=31.5, psnr_low=31.0, psnr_high=None, ssim=0.9)
    library.put_frames(example.metadata.stream_id, 2, example.group(2), measured, made_by)
    with served(create_app(library)) as client:
        url = f"/api/v1/streams/{example.metadata.stream_id}"
        groups, detail = ok(client.get(f"{url}/quality")).json()["groups"], ok(client.get(url)).json()
    assert [group["kind"] for group in groups] == ["audit", "audit", "snapshot"] * 2
    assert asdict(measured).items() <= groups[2].items()
    assert groups[2]["made_by"] == asdict(made_by)
    assert (groups[5]["made_by"], groups[5]["psnr"], groups[5]["gain"]) == (None, None, None)
    assert detail["audit"] == {"every": 1, "count": 1, "psnr_median": 31.5, "psnr_lowest": 31.5, "ssim_median": 0.9}
    assert detail["noise"] == {"source": "audit", "gain": 12.0, "offset": 100.0, "read_noise": 3.5}


def test_without_audit_groups_there_are_no_such_figures(client, stream):
    detail = ok(client.get(stream)).json()
    assert (detail["audit"], detail["noise"]) == (None, None)


def test_decoding_again_is_asked_of_whoever_decodes(library, example, stream):
    asked = []

    def decode(*what):
        asked.append(what)
        if what[1] == "nonsense":
            raise ModelError("there is no model 'nonsense'", hint="Name another")
        return 2

    with served(create_app(library, decode=decode)) as client:
        answer = client.post(f"{stream}/decode", json={"model": "gap-tv", "start": 1, "stop": 4})
        assert (answer.status_code, answer.json()) == (202, {"snapshots": 2})
        assert client.post(f"{stream}/decode", json={}).status_code == 202
        assert error_of(client.post(f"{stream}/decode", json={"model": "nonsense"}), 422) == "there is no model 'nonsense'"
        assert "'stop'" in error_of(client.post(f"{stream}/decode", json={"stop": 0}), 422)
        assert "'modle'" in error_of(client.post(f"{stream}/decode", json={"modle": "net"}), 422)
        assert "unknown" in error_of(client.post(f"/api/v1/streams/{UNKNOWN}/decode", json={}), 404)
    stream_id = example.metadata.stream_id
    assert asked == [(stream_id, "gap-tv", 1, 4), (stream_id, "auto", 0, None), (stream_id, "nonsense", 0, None)]


def test_a_decoder_that_decodes_nothing_decodes_nothing_again(client, stream):
    assert error_of(client.post(f"{stream}/decode", json={}), 409) == "this decoder does not reconstruct"


@pytest.mark.parametrize("path", ["", "/frames/0", "/frames?start=0&stop=1", "/snapshots/0", "/quality"])
def test_an_unknown_stream(client, path):
    assert error_of(client.get(f"/api/v1/streams/{UNKNOWN}{path}"), 404) == f"stream '{UNKNOWN}' is unknown"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/frames/19", "frame 19 is not stored, expected 0 to 18"),
        ("/frames?start=17&stop=20", "frame 19 is not stored, expected 0 to 18"),
        ("/snapshots/3", "snapshot 3 is not stored, expected 0 to 2"),
    ],
)
def test_numbers_out_of_range_name_the_valid_range(client, stream, path, message):
    assert error_of(client.get(stream + path), 404) == message


@pytest.mark.parametrize(("path", "frame"), [("/frames/4", 4), ("/frames?start=2&stop=8", 4), ("/frames?start=6&stop=9", 6)])
def test_a_frame_that_is_not_decoded_yet_says_when_to_ask_again(library, client, stream, path, frame):
    with served(create_app(library, decode=lambda *_: 1)) as decoding:
        response = decoding.get(stream + path)
    assert error_of(response, 409) == f"frame {frame} is not decoded yet"
    assert int(response.headers["retry-after"]) > 0
    with served(create_app(library, decode=lambda *_: 1, undecodable=lambda *_: "no model fits")) as decoding:
        response = decoding.get(stream + path)
    assert error_of(response, 409) == f"frame {frame} cannot be reconstructed: no model fits"
    assert "retry-after" not in response.headers
    never = client.get(stream + path)
    assert error_of(never, 409) == f"frame {frame} is not decoded, and this decoder does not reconstruct"
    assert "retry-after" not in never.headers


def test_a_lost_frame_is_gone(client, stream):
    assert error_of(client.get(f"{stream}/frames/9"), 410) == "frame 9 was lost with frames 8 to 12"


def test_a_range_that_is_too_large_names_the_largest(client, stream):
    response = client.get(f"{stream}/frames?start=8&stop=19")
    assert error_of(response, 413) == f"11 frames are {11 * 37 * 70 * 4} bytes, expected at most {10 * 37 * 70 * 4}"
    assert "at most 10 frames" in response.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("path", "culprit"),
    [
        ("/frames/-1", "'n'"),
        ("/frames/one", "'n'"),
        ("/frames/0?format=gif", "'format'"),
        ("/frames/0?low=nan", "'low'"),
        ("/frames/0?low=5&high=5", "high"),
        ("/frames?start=3", "'stop'"),
        ("/frames?start=3&stop=3", "stop"),
        ("/snapshots/-1", "'k'"),
        ("/quality?limit=0", "'limit'"),
        ("/quality?limit=10001", "'limit'"),
    ],
)
def test_parameters_out_of_bounds_are_named(client, stream, path, culprit):
    assert culprit in error_of(client.get(stream + path), 422)


def test_a_misspelt_parameter_is_named(client, stream):
    response = client.get(f"{stream}/frames/0?fromat=tiff")
    assert error_of(response, 422) == "unknown query parameter 'fromat'"
    assert response.json()["error"]["hint"] == "Did you mean 'format'? There are: format, high, low"
    for path in ("/metrics?x=1", "/api/v1/models?x=1"):
        assert error_of(client.get(path), 422) == "unknown query parameter 'x'"
    ok(client.get("/healthz?x=1"))


def test_numbers_beyond_any_integer_type_are_out_of_range(client, stream):
    assert "not stored" in error_of(client.get(f"{stream}/frames/{10**30}"), 404)
    assert ok(client.get(f"{stream}/quality?start={10**30}")).json()["groups"] == []


def test_unknown_routes_and_methods_have_the_same_error_shape(client, stream):
    assert "/nowhere" in error_of(client.get("/nowhere"), 404)
    assert "PATCH" in error_of(client.patch(stream), 405)


def test_a_stream_is_deleted_for_good(library):
    example = Example(make_metadata()).fold(2)
    stream_id = example.metadata.stream_id
    library.add_stream(example.metadata)
    library.put(stream_id, example.messages, 1)
    sent = {stream_id}
    with served(create_app(library, sending=sent.__contains__)) as client:
        path = f"/api/v1/streams/{stream_id}"
        assert "is being sent" in error_of(client.delete(path), 409)
        assert ok(client.get(f"{path}/snapshots/1"))
        sent.clear()
        assert client.delete(path).status_code == 204
        for again in (client.delete(path), client.get(path), client.get(f"{path}/snapshots/1")):
            assert "unknown" in error_of(again, 404)
        assert stream_id not in {stream["id"] for stream in ok(client.get("/api/v1/streams")).json()}
    assert not library.path(stream_id).exists()


def test_a_failing_service_says_so_without_a_traceback(library):
    def fail():
        raise ZeroDivisionError("secret")

    with served(create_app(library, models=fail)) as client:
        message = error_of(client.get("/api/v1/models"), 500)
    assert "secret" not in message


def test_a_damaged_store_is_a_told_error(library):
    example = Example(make_metadata()).fold()
    stream_id = example.metadata.stream_id
    library.add_stream(example.metadata)
    library.put(stream_id, example.messages, 1)
    (library.path(stream_id) / "snapshots/c/0/0/0").write_bytes(b"damaged")
    with served(create_app(library)) as client:
        assert "damaged" in error_of(client.get(f"/api/v1/streams/{stream_id}/snapshots/0"), 500)


def test_the_committed_description_is_the_services():
    committed = openapi.COMMITTED.read_text() if openapi.COMMITTED.exists() else ""
    assert openapi.describe() == committed, (
        "The REST API changed. If that is meant: raise API_VERSION in decoder/framefold_decoder/api/app.py (the middle number "
        "for an addition, the first for what breaks clients), then run: "
        "python -m framefold_decoder.api.openapi > decoder/framefold_decoder/api/openapi.json"
    )


def test_everything_in_the_description_is_described():
    document = json.loads(openapi.describe())
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (path, method)
            assert all(parameter.get("description") for parameter in operation.get("parameters", [])), (path, method)
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json", {}).get("schema", {})
                assert status.startswith("2") or content["$ref"].endswith(("/ErrorBody", "/Readiness")), (path, status)
    for name, schema in document["components"]["schemas"].items():
        assert all("description" in field for field in schema.get("properties", {}).values()), name


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_that_describe_it_need_nothing_from_elsewhere(client, page):
    """A server beside a microscope has no internet."""
    needed = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', client.get(page).text)
    assert needed
    assert {client.get(one).status_code for one in needed if one.startswith("/")} == {200}
    assert not [one for one in needed if not one.startswith("/")]


@pytest.mark.parametrize(
    ("told", "measured", "source"),
    [(2.0, None, "stream"), (None, NoiseModel(2.0), "encoder"), (None, None, "assumed")],
)
def test_where_the_noise_model_comes_from_is_told(library, told, measured, source):
    example = Example(make_metadata(counts_per_electron=told)).fold(1)
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, [replace(example.messages[0], noise=measured)], 1)
    quality = Quality(1.0, *vars(measured or NoiseModel(told or 1.0)).values())
    library.put_frames(example.metadata.stream_id, 0, example.group(0), quality, Provenance("net"))
    with served(create_app(library)) as client:
        detail = ok(client.get(f"/api/v1/streams/{example.metadata.stream_id}")).json()
    assert detail["noise"] == {"source": source, "gain": quality.gain, "offset": 0.0, "read_noise": 0.0}
