"""Key files: what is written is read, by pyzmq too; secret files stay secret; nothing is overwritten."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from framefold_protocol.endpoint import check_endpoint
from framefold_protocol.errors import SettingsError
from framefold_protocol.keys import KeyPair, read_public_key, read_secret_key, write_key_files


def new_pair():
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


keys = st.binary(min_size=32, max_size=32).map(lambda key: z85.encode(key).decode())


@given(public=keys, secret=keys)
def test_what_is_written_is_read(tmp_path_factory, public, secret):
    pair = KeyPair(public, secret)
    public_file, secret_file = write_key_files(tmp_path_factory.mktemp("keys"), "cam1", pair)
    assert read_secret_key(secret_file, "key") == pair
    assert read_public_key(public_file, "decoder_key") == public


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_secret_file_is_its_owners_only_whatever_the_umask(tmp_path, umask):
    (tmp_path / "keys").mkdir()
    before = os.umask(umask)
    try:
        files = write_key_files(tmp_path / "keys", "cam1", new_pair())
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o644, 0o600]


def test_the_secret_is_not_in_what_is_logged(tmp_path):
    pair = new_pair()
    assert pair.secret not in repr(pair)


def test_pyzmq_reads_our_files_and_we_read_its(tmp_path):
    pair = new_pair()
    _, secret_file = write_key_files(tmp_path, "ours", pair)
    assert load_certificate(secret_file) == (pair.public.encode(), pair.secret.encode())
    public_file, secret_file = map(Path, create_certificates(tmp_path, "theirs"))
    secret_file.chmod(0o600)
    public, secret = load_certificate(secret_file)
    theirs = read_secret_key(secret_file, "key")
    assert (theirs.public, theirs.secret) == (public.decode(), secret.decode())
    assert read_public_key(public_file, "key") == public.decode()


@pytest.mark.parametrize("existing", ["cam1.key", "cam1.key_secret"])
def test_nothing_is_overwritten(tmp_path, existing):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(SettingsError, match=f"{existing} exists and is not overwritten"):
        write_key_files(tmp_path, "cam1", new_pair())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(existing, "precious")]


@pytest.mark.parametrize("name", ["", "../cam", "a/b", ".hidden", "cam 1", "x" * 65])
def test_names_are_file_names(tmp_path, name):
    with pytest.raises(SettingsError, match="key name"):
        write_key_files(tmp_path, name, new_pair())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--folder"):
        write_key_files(tmp_path / "file", "cam1", new_pair())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_secret_file_open_to_others_is_refused(tmp_path, mode):
    _, secret_file = write_key_files(tmp_path, "cam1", new_pair())
    secret_file.chmod(mode)
    with pytest.raises(SettingsError, match=rf"key: .*mode {mode:04o}.*chmod 600 "):
        read_secret_key(secret_file, "key")


def test_secret_and_public_files_are_not_mistaken_for_each_other(tmp_path):
    public_file, secret_file = write_key_files(tmp_path, "cam1", new_pair())
    with pytest.raises(SettingsError, match=r"decoder_key: .* holds a secret key"):
        read_public_key(secret_file, "decoder_key")
    with pytest.raises(SettingsError, match=r"key: .* holds no secret key"):
        read_secret_key(public_file, "key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "public-key = ",
        f'public-key = "{"a" * 39}"',
        f'public-key = "{"a" * 41}"',
        f'public-key = "{"a" * 39}~"',
        f'public-key = "{"#" * 40}"',  # above 2^32 in every group
        f'public-key = "{"a" * 40}"\nsecret-key = "short"',
        "#" * 5000 + f'\npublic-key = "{"a" * 40}"',
        b"\xff\xfe",
    ],
)
def test_what_is_no_key_file_is_named(tmp_path, text):
    path = tmp_path / "cam1.key"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=rf"allowed_keys: .*{path}"):
        read_public_key(path, "allowed_keys")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_key_or_a_settings_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("keys") / "any.key"
    path.write_bytes(content)
    with suppress(SettingsError):
        assert len(z85.decode(read_public_key(path, "key"))) == 32


def test_a_missing_file_names_the_next_step(tmp_path):
    with pytest.raises(SettingsError, match=r"does not exist\. Make one with keygen"):
        read_secret_key(tmp_path / "cam1.key_secret", "key")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5571", "tcp://localhost:1", "tcp://[::1]:5571"])
def test_loopback_needs_no_keys(endpoint):
    assert check_endpoint(endpoint, "to") == endpoint


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.7:5571", "tcp://*:5571", "tcp://0.0.0.0:5571", "tcp://server:5571"])
def test_other_addresses_need_keys(endpoint):
    with pytest.raises(SettingsError, match=r"only loopback is accepted\. Make keys with keygen"):
        check_endpoint(endpoint, "to")
    assert check_endpoint(endpoint, "to", keys=True) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "decoder",
        "udp://127.0.0.1:1",
        "TCP://127.0.0.1:1",
        "tcp://127.0.0.1",
        "tcp://:5571",
        "tcp://h:99999",
        "tcp://h:1/x",
        "tcp://h:1?",
        "tcp://h:1?x=1",
        "tcp://h:1#x",
        "tcp://user@h:1",
        "tcp://h:1 ",
    ],
)
def test_what_is_no_address_is_told_with_an_example(endpoint):
    with pytest.raises(SettingsError, match="tcp://HOST:PORT"):
        check_endpoint(endpoint, "to", keys=True)
