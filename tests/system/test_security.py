"""Link and service off loopback: real daemons with real keys, refused strangers, and a siege that streams do not feel."""

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from test_bad_input import said_in_one_line
from test_streaming import stored_equals_fold

import framefold_decoder.cli as decoder_cli
import framefold_encoder.cli as encoder_cli
from framefold_client import Client
from framefold_simulator.movie import MovieSpec
from processes import TIMEOUT_S, Decoder, Finished, finish, free_port, heard_to_say, run, start

SOURCE = "sim:?shape=64x64&frames=600&rate=150&seed=3"
SPEC = MovieSpec(shape=(64, 64), seed=3)


class Keyed(Decoder):
    """A decoder open to the network, with keys; `allow` lets an encoder's key in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "allowed").mkdir()
        made("framefold-decoder", "decoder", folder)
        port = free_port()
        options = ("--key", folder / "decoder.key_secret", "--allowed-keys", folder / "allowed", "--model", "none")
        super().__init__(folder / "data", options, link=f"tcp://0.0.0.0:{port}")
        self.to = f"tcp://127.0.0.1:{port}"

    def encoder(self, *options: object) -> subprocess.Popen[str]:
        return start("framefold-encoder", "run", SOURCE, "--to", self.to, *options)

    def encoder_with_key(self, name: str, *options: object) -> subprocess.Popen[str]:
        """Started with a fresh key, which is not allowed yet."""
        made("framefold-encoder", name, self.folder)
        keys = "--key", self.folder / f"{name}.key_secret", "--decoder-key", self.folder / "decoder.key"
        return self.encoder(*keys, *options)

    def allow(self, name: str) -> None:
        shutil.copy(self.folder / f"{name}.key", self.folder / "allowed")

    def streaming(self, name: str) -> tuple[subprocess.Popen[str], int]:
        """An encoder with a fresh key whose stream is under way, and how many streams there are with it."""
        streams = self.streams + 1
        encoder = self.encoder_with_key(name)
        self.allow(name)
        self.wait_for_frames(streams, 40)
        return encoder, streams

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://{self.http}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"framefold_{name}"))

    def wait_for_metric(self, name: str, least: float) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.metric(name) < least:
            assert time.monotonic() < deadline, f"{name} never reached {least}"
            time.sleep(0.1)

    def wait_for_frames(self, streams: int, least: float) -> None:
        """Until there are so many streams and the newest one has so many frames."""
        self.wait_until(lambda stream: self.streams == streams and stream["frames"] >= least, f"{least} frames stored")

    @property
    def streams(self) -> int:
        with self.client() as client:
            return len(client.streams())

    def check_whole(self, frames: int = 600) -> None:
        """The newest stream is complete, exactly once and exactly what the simulated detector delivered."""
        stream = self.wait_until(lambda stream: stream["state"] == "complete", "complete")
        assert (stream["frames"], stream["snapshots"], stream["gaps"]) == (frames, frames // 20, [])
        assert stored_equals_fold(stream["store"], SPEC, frames // 20)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """One for all: what strangers do to it in one test, the encoders of the next must not feel."""
    with Keyed(tmp_path_factory.mktemp("decoder")) as decoder:
        yield decoder
        assert decoder.stop().status == 0


def made(program: str, name: str, folder: Path) -> Finished:
    finished = run(program, "keygen", name, "--folder", folder)
    assert finished.status == 0, finished.stderr
    return finished


def interrupted(process: subprocess.Popen[str]) -> Finished:
    process.send_signal(signal.SIGINT)
    return finish(process)


@pytest.mark.parametrize("program", ["framefold-encoder", "framefold-decoder"])
def test_keygen_writes_files_tells_what_to_do_and_overwrites_nothing(tmp_path, program):
    printed = made(program, "cam1", tmp_path / "keys").stdout
    secret, public = tmp_path / "keys" / "cam1.key_secret", tmp_path / "keys" / "cam1.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    for word in (secret, public, "stays on this machine", "copy", "allowed_keys", "decoder_key"):
        assert str(word) in printed
    assert secret.read_text().split('"')[3] not in printed
    said_in_one_line(run(program, "keygen", "cam1", "--folder", tmp_path / "keys"), str(public), "not overwritten")


def test_a_key_that_is_allowed_while_all_run_is_let_in(decoder):
    encoder = decoder.encoder_with_key("cam1")
    said = heard_to_say(encoder, "does not allow this encoder's key")
    assert "allowed_keys" in said
    assert decoder.metric("refused_keys_total") >= 1
    decoder.allow("cam1")
    finished = finish(encoder)
    assert finished.status == 0, finished.stderr
    decoder.check_whole()


def test_a_removed_key_stops_a_stream_and_a_returned_one_lets_it_go_on(decoder):
    streams, refused = decoder.streams, decoder.metric("refused_sessions_total")
    (decoder.folder / "cam2.toml").write_text("silence_s = 0.5\n")  # a hello that was refused is said again so soon
    encoder = decoder.encoder_with_key("cam2", "--config", decoder.folder / "cam2.toml")
    decoder.allow("cam2")
    decoder.wait_for_frames(streams + 1, 100)
    (decoder.folder / "allowed" / "cam2.key").unlink()
    decoder.wait_for_metric("refused_sessions_total", refused + 2)
    with decoder.client() as client:
        frames = client.streams()[0]["frames"]
        decoder.wait_for_metric("refused_sessions_total", refused + 3)
        assert client.streams()[0]["frames"] == frames < 600
    decoder.allow("cam2")
    assert finish(encoder).status == 0
    decoder.check_whole()


def test_strangers_are_told_why_and_leave_nothing(decoder):
    streams, failed = decoder.streams, decoder.metric("failed_handshakes_total")
    keyless = decoder.encoder()
    made("framefold-decoder", "another", decoder.folder)
    decoder.allow("another")  # a right key for the wrong decoder
    misled = decoder.encoder("--key", decoder.folder / "another.key_secret", "--decoder-key", decoder.folder / "another.key")
    heard_to_say(keyless, "asks for keys")
    heard_to_say(misled, "does not have the key in decoder_key")
    assert decoder.metric("failed_handshakes_total") >= failed + 2
    assert decoder.streams == streams
    for encoder in (keyless, misled):
        encoder.kill()
        encoder.communicate()


def test_off_loopback_neither_side_starts_without_keys(tmp_path):
    served = run("framefold-decoder", "serve", "--ingest", "tcp://0.0.0.0:5571", cwd=tmp_path)
    said_in_one_line(served, "tcp://0.0.0.0:5571", "only loopback", "keygen")
    sent = run("framefold-encoder", "run", "sim:", "--to", "tcp://192.0.2.7:5571", cwd=tmp_path)
    said_in_one_line(sent, "192.0.2.7", "only loopback", "keygen")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Runs a command's main in `tmp_path` and in this process, which has imported everything."""

    def run_here(main, *arguments: object) -> Finished:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status = main([*map(str, arguments)])
        return Finished(status, *capsys.readouterr())

    return run_here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--key", "decoder.key_secret"), ("key is set", "allowed_keys is not")),
        (("--key", "decoder.key", "--allowed-keys", "allowed"), ("decoder.key", "no secret key")),
        (("--key", "open.key_secret", "--allowed-keys", "allowed"), ("open.key_secret", "0644", "chmod 600")),
        (("--key", "decoder.key_secret", "--allowed-keys", "nowhere"), ("nowhere", "no folder")),
        (("--http", "0.0.0.0:8571"), ("0.0.0.0:8571", "only loopback", "framefold-decoder token")),
        (("--http", "0.0.0.0:8571", "--tokens", "nowhere.toml"), ("nowhere.toml", "cannot be read", "framefold-decoder token")),
        (("--http", "0.0.0.0:8571", "--tokens", "empty.toml"), ("empty.toml", "holds no token", "framefold-decoder token")),
        (("--tokens", "open.toml"), ("open.toml", "written by others", "chmod 600")),
    ],
)
def test_a_decoder_does_not_start_unguarded(tmp_path, run_here, options, words):
    run_here(decoder_cli.main, "keygen", "decoder", "--folder", tmp_path)
    (tmp_path / "allowed").mkdir()
    shutil.copy(tmp_path / "decoder.key_secret", tmp_path / "open.key_secret")
    (tmp_path / "open.key_secret").chmod(0o644)
    (tmp_path / "empty.toml").touch(0o600)
    (tmp_path / "open.toml").touch()
    (tmp_path / "open.toml").chmod(0o666)
    said_in_one_line(run_here(decoder_cli.main, "serve", *options), *words)
    assert not (tmp_path / "framefold-data").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--key", "cam1.key_secret"), ("key is set", "decoder_key is not")),
        (("--decoder-key", "cam1.key"), ("decoder_key is set", "key is not")),
        (("--key", "nowhere", "--decoder-key", "cam1.key"), ("nowhere", "does not exist", "keygen")),
        (("--key", "cam1.key_secret", "--decoder-key", "cam1.key_secret"), ("decoder_key", "holds a secret key")),
    ],
)
def test_an_encoder_does_not_start_unguarded(tmp_path, run_here, options, words):
    run_here(encoder_cli.main, "keygen", "cam1", "--folder", tmp_path)
    said_in_one_line(run_here(encoder_cli.main, "run", "sim:", *options), *words)


def besiege(address: tuple[str, int], stack: ExitStack, connections: int) -> list[socket.socket]:
    """Peers that say nothing, speak garbage, or speak the beginning of a greeting; all stay as long as they may."""
    dice = random.Random(0)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15)
    beginnings = [b"", greeting[:5], greeting[:12], greeting + b"\0" * 32, greeting + b"\0" * 32 + b"\x04\xff" + b"\xff" * 8]
    peers = []
    for number in range(connections):
        peers.append(stack.enter_context(socket.create_connection(address)))
        with suppress(OSError):
            peers[-1].sendall(dice.randbytes(dice.randrange(1, 2000)) if number % 2 else dice.choice(beginnings))
    return peers


def resident_bytes(process: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_siege_of_a_thousand_connections_costs_a_running_stream_nothing(decoder):
    with ExitStack() as stack:
        encoder, streams = decoder.streaming("cam3")
        before = resident_bytes(decoder.process)
        host, port = decoder.to.removeprefix("tcp://").split(":")
        peers = besiege((host, int(port)), stack, 1000)
        decoder.wait_for_frames(streams, 100)
        for peer in peers:
            with suppress(OSError):
                peer.sendall(b"\0")  # a byte more: still no handshake
        finished = finish(encoder)
        assert finished.status == 0, finished.stderr
        assert "does not answer" not in finished.stderr
        decoder.check_whole()
        assert resident_bytes(decoder.process) - before < 100e6
        assert decoder.metric("open_streams") == 0
        deadline = time.monotonic() + TIMEOUT_S
        while decoder.metric("connections") > 0:  # though all of them are still held open at this end
            assert time.monotonic() < deadline, "besiegers were never put out"
            time.sleep(0.2)


def test_a_thousand_slow_requests_keep_neither_streams_nor_others_requests_waiting(decoder):
    host, port = decoder.http.split(":")
    with ExitStack() as stack:
        encoder, _ = decoder.streaming("cam4")
        before = resident_bytes(decoder.process)
        beginnings = [
            b"",
            b"GET /api/v1/str",
            b"POST /api/v1/streams/x/decode HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        ]
        peers = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(1000)]
        start = time.monotonic()
        for number, peer in enumerate(peers):
            with suppress(OSError):  # its place was given to a later one
                peer.sendall(beginnings[number % 3])
        while time.monotonic() < start + 3:
            for peer in peers:
                with suppress(OSError):
                    peer.sendall(b"x")
            assert httpx.get(f"http://{decoder.http}/healthz").status_code == 200
        assert resident_bytes(decoder.process) - before < 100e6
        finished = finish(encoder)
        assert finished.status == 0, finished.stderr
        decoder.check_whole()
        for peer in peers:
            peer.settimeout(TIMEOUT_S)
            with suppress(ConnectionError):
                while peer.recv(1000):  # closed at the decoder's end, after what it had to say of what it was sent
                    pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_the_service_off_loopback_takes_tokens_over_tls(tmp_path):
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    token = run("framefold-decoder", "token", "analyst", "--tokens", tmp_path / "tokens.toml").stdout.strip()
    config = tmp_path / "decoder.toml"
    port = free_port()
    config.write_text(
        f'data = "{tmp_path / "data"}"\nmodel = "none"\ningest = "tcp://127.0.0.1:{free_port()}"\nhttp = "0.0.0.0:{port}"\n'
        f'tokens = "{tmp_path / "tokens.toml"}"\n'
        f'http_certificate = "{tmp_path / "cert.pem"}"\nhttp_key = "{tmp_path / "key.pem"}"\n'
    )
    process = start("framefold-decoder", "serve", "--config", config)
    try:
        said = heard_to_say(process, "data in")
        assert f"REST at https://0.0.0.0:{port}" in said
        assert "in the clear" not in said
        trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        bearer = {"Authorization": f"Bearer {token}"}
        patient = httpx.HTTPTransport(verify=trust, retries=8)  # it says where it will serve just before it does
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=patient, headers=bearer) as client:
            assert client.get("/api/v1/streams").json() == []
            assert client.get("/api/v1/streams", headers={"Authorization": "Bearer guess"}).status_code == 401
            assert client.get("/healthz", headers={"Authorization": ""}).status_code == 200
    finally:
        process.kill()
        process.communicate()


def test_a_certificate_that_cannot_be_used_is_named(tmp_path, run_here):
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    (tmp_path / "decoder.toml").write_text('http_certificate = "cert.pem"\nhttp_key = "key.pem"\n')
    said_in_one_line(run_here(decoder_cli.main, "serve", "--config", "decoder.toml"), "cert.pem", "key.pem", "PEM")


def test_tokens_guard_a_loopback_service_too_when_they_are_set(tmp_path):
    token = run("framefold-decoder", "token", "analyst", "--tokens", tmp_path / "tokens.toml").stdout.strip()
    decoder = Decoder(tmp_path / "data", ("--model", "none", "--tokens", tmp_path / "tokens.toml"))
    decoder.client = lambda: Client(f"http://{decoder.http}", token=token)
    with decoder:
        assert httpx.get(f"http://{decoder.http}/api/v1/streams").status_code == 401
        assert decoder.run_encoder("sim:?shape=64x64&frames=40&rate=0").status == 0
        decoder.wait_until(lambda stream: stream["state"] == "complete", "complete")
