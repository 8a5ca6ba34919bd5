"""What a user may get wrong: one line that says what and how to mend it, a non-zero exit, nothing left behind."""

import socket
from importlib.metadata import version

import numpy as np
import pytest
import tifffile

from processes import Decoder, free_port, run


def said_in_one_line(finished, *words):
    lines = finished.stderr.strip().splitlines()
    assert finished.status == 2, finished
    assert len(lines) == 1, finished.stderr
    for word in words:
        assert word in lines[0], lines[0]


def changing_shape(path):
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((16, 16), np.uint8))
        tiff.write(np.zeros((16, 20), np.uint8))


def truncated(path):
    tifffile.imwrite(path, np.arange(30 * 64 * 64, dtype=np.uint16).reshape(30, 64, 64), metadata=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_FILES = {
    "missing": (lambda path: None, "no such file"),
    "truncated": (truncated, "truncated"),
    "float": (lambda path: tifffile.imwrite(path, np.zeros((5, 8, 8), np.float32)), "float32"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "changing-shape": (changing_shape, "page 1 is 16x20"),
    "not-a-movie": (lambda path: path.write_text("hello"), "not a known format"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file(tmp_path, name):
    write, expected = BAD_FILES[name]
    path = tmp_path / "movie.tif"
    write(path)
    finished = run("framefold-encoder", "run", f"file:{path}", "--to", f"tcp://127.0.0.1:{free_port()}")
    said_in_one_line(finished, str(path), expected)


def test_negative_frames_are_found_where_they_are(tmp_path):
    frames = np.zeros((50, 8, 8), np.int16)
    frames[45, 3, 3] = -7
    np.save(tmp_path / "movie.npy", frames)
    with Decoder(tmp_path / "data", ("--model", "none")) as decoder:
        finished = decoder.run_encoder(f"file:{tmp_path / 'movie.npy'}")
        assert finished.status == 2
        assert "frame 45" in finished.stderr
        assert "-7" in finished.stderr
        assert "Traceback" not in finished.stderr
        assert finished.json["frames"] == 45  # two groups, and what there is of the third
        assert finished.json["complete"]
        with decoder.client() as client:
            (stream,) = client.streams()
        assert (stream["id"], stream["frames"]) == (finished.json["stream_id"], 45)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fiel:movie.tif",), ("fiel", "file:")),
        (("sim:?dose=much",), ("dose", "much")),
        (("sim:?doze=2",), ("doze", "dose")),
        (("sim:", "--ratio", "0"), ("--ratio", "'0'", "a number of frames from 1 to 256")),
        (("sim:", "--ratio", "many"), ("--ratio", "'many'", "a number of frames from 1 to 256")),
        (("sim:", "--density", "2"), ("--density", "'2'")),
        (("sim:", "--mask", "file"), ("mask is file", "--mask-file")),
        (("sim:", "--journal", "x" * 300), ("opening journal folder", "too long")),
        (("sim:", "--journal", __file__), (__file__, "is a file", "expected a folder")),
        (("sim:", "--mask", "file", "--mask-file", "/nowhere/m.npy"), ("/nowhere/m.npy", "does not exist")),
        (("sim:", "--to", "tcp://192.0.2.7:5571"), ("192.0.2.7", "only loopback", "ssh")),
        (("sim:", "--to", "decoder"), ("'decoder'", "tcp://HOST:PORT")),
        (("sim:", "--config", "/nowhere/encoder.toml"), ("/nowhere/encoder.toml", "does not exist")),
    ],
)
def test_bad_encoder_options(arguments, words):
    said_in_one_line(run("framefold-encoder", "run", *arguments), *words)


@pytest.mark.parametrize(
    ("program", "command", "text", "words"),
    [
        ("framefold-encoder", ("run", "sim:"), "ratoi = 10", ("'ratoi'", "Did you mean 'ratio'")),
        ("framefold-encoder", ("run", "sim:"), "ratio = ", ("cannot be read", "TOML")),
        ("framefold-encoder", ("run", "sim:"), "ratio = 1000", ("ratio is 1000", "a number of frames from 1 to 256")),
        ("framefold-decoder", ("serve",), "dta = 'x'", ("'dta'", "Did you mean 'data'")),
        ("framefold-decoder", ("serve",), "http = '0.0.0.0:80'", ("0.0.0.0:80", "only loopback")),
        ("framefold-decoder", ("serve",), "provider = 'cdua'", ("provider is 'cdua'", "cuda")),
    ],
)
def test_a_bad_settings_file(tmp_path, program, command, text, words):
    config = tmp_path / "settings.toml"
    config.write_text(text)
    said_in_one_line(run(program, *command, "--config", config), *words)


def test_ports_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = f"127.0.0.1:{free_port()}"
        http = run("framefold-decoder", "serve", "--data", tmp_path, "--http", address, "--ingest", f"tcp://{free}")
        said_in_one_line(http, address, "in use", "--http")
        link = run("framefold-decoder", "serve", "--data", tmp_path, "--http", free, "--ingest", f"tcp://{address}")
        said_in_one_line(link, address, "in use", "--ingest")
    both = run("framefold-decoder", "serve", "--data", tmp_path, "--http", free, "--ingest", f"tcp://{free}")
    said_in_one_line(both, free, "in use", "--ingest")


def test_a_data_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    finished = run("framefold-decoder", "serve", "--data", tmp_path / "file" / "data", "--http", f"127.0.0.1:{free_port()}")
    said_in_one_line(finished, str(tmp_path / "file" / "data"))


def test_models_that_cannot_be_used(tmp_path):
    unknown = run("framefold-decoder", "serve", "--data", tmp_path / "data", "--model", "nosuch")
    said_in_one_line(unknown, "'nosuch'", "gap-tv")
    models = tmp_path / "models"
    models.mkdir()
    (models / "mine.onnx").write_text("this is no ONNX file")
    (models / "mine.json").write_text("{}")
    damaged = run("framefold-decoder", "serve", "--data", tmp_path / "data", "--models", models, "--model", "mine")
    said_in_one_line(damaged, "mine")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("program", ["framefold-encoder", "framefold-decoder"])
def test_a_program_tells_its_version_and_what_may_be_chosen(program):
    told = run(program, "--version")
    assert (told.status, told.stdout) == (0, f"{program} {version('framefold')}\n")
    command, choices = {
        "framefold-encoder": ("run", "one of lossless, variance-stabilised"),
        "framefold-decoder": ("serve", "one of auto, cpu, openvino, cuda, tensorrt"),
    }[program]
    assert choices in " ".join(run(program, command, "--help").stdout.split())
