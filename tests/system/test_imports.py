"""The detector PC stays light: importing the encoder loads none of the server's or the training's libraries."""

import subprocess
import sys

import pytest

SERVER = {"torch", "onnx", "onnxruntime", "fastapi", "uvicorn", "zarr", "sqlalchemy", "PIL"}
HEAVY = SERVER | {"h5py", "tifffile", "mrcfile"}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("framefold_encoder.cli", HEAVY),
        ("framefold_simulator", HEAVY),
        ("framefold_protocol.session", HEAVY | {"numba", "zmq"}),
        ("framefold_client", HEAVY | {"numba", "zmq"}),
        ("framefold_decoder.cli", HEAVY | {"numba", "zmq"}),
        ("framefold_decoder.service", {"torch", "onnx"}),
    ],
)
def test_imports_stay_light(package, forbidden):
    code = f"import sys, {package}; print(*sorted({{name.split('.')[0] for name in sys.modules}} & {forbidden!r}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


@pytest.mark.parametrize(("command", "library"), [("serve", "uvicorn"), ("verify", "zarr")])
def test_a_decoder_without_its_libraries_says_how_to_get_them(tmp_path, command, library):
    code = f"import sys; sys.modules[{library!r}] = None; from framefold_decoder.cli import main; sys.exit(main([{command!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{library} is not installed. Install it: pip install '.[decoder]' in framefold's folder" in done.stderr
