"""Tokens of the REST service: who may ask for what, and what is told to the others."""

from __future__ import annotations

import stat

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from stream_examples import make_metadata
from test_api import served

from framefold_client import Client, ClientError
from framefold_decoder.api.access import Authorized
from framefold_decoder.api.app import create_app
from framefold_decoder.api.tokens import Scope, Tokens, add_token
from framefold_decoder.cli import main
from framefold_decoder.library import Library
from framefold_protocol.errors import SettingsError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.toml"


@pytest.fixture
def tokens(file) -> dict[Scope, str]:
    return {scope: add_token(file, f"for-{scope}", scope) for scope in Scope}


@pytest.fixture
def client(tmp_path, file, tokens):
    """Of a service with a route for each method."""
    library = Library.open(tmp_path / "data")
    library.add_stream(make_metadata())
    app = create_app(library, tokens=Tokens(file))
    router = APIRouter()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        router.add_api_route("/try", lambda: "done", methods=[method], include_in_schema=False)
    app.include_router(router, dependencies=[Authorized])
    with served(app) as client:
        yield client
    library.close()


def asks(client, path, token=None, method="GET", **headers) -> httpx.Response:
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    return client.request(method, path, headers=bearer | headers)


ALLOWED = {
    Scope.READ: {"GET"},
    Scope.WRITE: {"GET", "POST", "PUT", "PATCH"},
    Scope.ADMIN: {"GET", "POST", "PUT", "PATCH", "DELETE"},
}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("scope", Scope)
def test_a_scope_allows_its_methods_and_no_others(client, tokens, scope, method):
    response = asks(client, "/api/v1/streams" if method == "GET" else "/try", tokens[scope], method)
    if method in ALLOWED[scope]:
        assert response.status_code == 200, response.text
    else:
        assert response.status_code == 403
        assert f"'for-{scope}' has {scope}" in response.json()["error"]["message"]
        assert "Ask for a token with scope" in response.json()["error"]["hint"]


@pytest.mark.parametrize("path", ["/api/v1/streams", "/api/v1/models", "/metrics", f"/api/v1/streams/{'f' * 32}/frames/0"])
@pytest.mark.parametrize("token", [None, "framefold_guess", "é"])
def test_without_a_known_token_nothing_is_told(client, path, token):
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
    response = client.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "framefold-decoder token" in response.json()["error"]["hint"]


@pytest.mark.parametrize("header", ["Basic {}", "{}", "Bearer x{}", "Bearer {}x"])
def test_nothing_but_the_token_itself_is_accepted(client, tokens, header):
    response = client.get("/api/v1/streams", headers={"Authorization": header.format(tokens[Scope.ADMIN])})
    assert response.status_code == 401


def test_the_hash_is_no_token(client, file):
    for token in Tokens(file).known():
        assert asks(client, "/api/v1/streams", token.sha256).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_health_and_description_are_open(client, path):
    assert client.get(path).status_code == 200


def test_metrics_are_told_to_a_reader(client, tokens):
    assert "framefold_connections" in asks(client, "/metrics", tokens[Scope.READ]).text


def test_the_client_sends_its_token(client, tokens):
    address = f"http://{client.base_url.netloc.decode()}"
    with Client(address, token=tokens[Scope.READ]) as reader:
        assert len(reader.streams()) == 1
    with Client(address) as stranger, pytest.raises(ClientError, match="needs a token") as raised:
        stranger.streams()
    assert raised.value.status == 401


def test_a_token_is_revoked_and_added_while_the_service_runs(client, file, tokens):
    text = file.read_text()
    start = text.index("[for-read]")
    file.write_text(text[:start] + text[text.index("[for-write]") :])
    assert asks(client, "/api/v1/streams", tokens[Scope.READ]).status_code == 401
    assert asks(client, "/api/v1/streams", tokens[Scope.WRITE]).status_code == 200
    assert asks(client, "/api/v1/streams", add_token(file, "new", Scope.READ)).status_code == 200


@pytest.mark.parametrize(
    "harm", [lambda file: file.unlink(), lambda file: file.write_text("[a"), lambda file: file.chmod(0o666)]
)
def test_a_token_file_that_cannot_be_used_lets_nobody_in(client, file, tokens, harm):
    harm(file)
    response = asks(client, "/api/v1/streams", tokens[Scope.ADMIN])
    assert (response.status_code, response.json()["error"]["message"]) == (503, "the token file cannot be used")


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:8571", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example", 403)]
)
def test_without_tokens_only_loopback_names_are_served(tmp_path, host, status):
    library = Library.open(tmp_path)
    with served(create_app(library)) as client:
        response = client.get("/api/v1/streams", headers={"Host": host})
        assert response.status_code == status
        assert client.get("/metrics", headers={"Host": host}).status_code == status
    library.close()


def test_the_file_holds_hashes_and_is_its_owners(file, tokens):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(token in file.read_text() for token in tokens.values())
    assert len(set(tokens.values())) == 3
    assert [(token.name, token.scope) for token in Tokens(file).known()] == [(f"for-{scope}", scope) for scope in Scope]


@given(text=st.text(max_size=60))
def test_no_other_text_is_found(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    token = add_token(file, "only", Scope.READ)
    assert Tokens(file).find(text) is None
    assert Tokens(file).find(token).name == "only"


def test_a_name_is_taken_once(file, tokens):
    with pytest.raises(SettingsError, match="has a token 'for-read'"):
        add_token(file, "for-read", Scope.ADMIN)
    assert len(Tokens(file).known()) == 3


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "x" * 65, "]\n[evil"])
def test_names_are_plain(file, name):
    with pytest.raises(SettingsError, match="token name"):
        add_token(file, name, Scope.READ)
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[a",
        "a = 1",
        '[a]\nscope = "read"',
        f'[a]\nscope = "root"\nsha256 = "{"0" * 64}"',
        '[a]\nscope = "read"\nsha256 = "0"',
        f'[a]\nscope = "read"\nsha256 = "{"0" * 64}"\nexpires = 1',
        '[a]\nscope = "read"\nsha256 = 5',
        "[a]\n[a]",
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(file, text):
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"token file {file} is damaged.*Expected \[NAME\]"):
        Tokens(file)


def test_the_command_prints_the_token_once_and_nothing_else_on_stdout(file, capsys):
    assert main(["token", "analyst", "--scope", "write", "--tokens", str(file)]) == 0
    printed = capsys.readouterr().out.strip()
    assert Tokens(file).find(printed).scope is Scope.WRITE
    assert main(["token", "analyst", "--tokens", str(file)]) == 2
    assert "has a token 'analyst'" in capsys.readouterr().err


def test_the_command_takes_the_file_from_the_settings(file, tmp_path, capsys):
    config = tmp_path / "decoder.toml"
    config.write_text(f'http = "0.0.0.0:8571"\ntokens = "{file}"\n')  # refused by serve until there is a token
    assert main(["token", "analyst", "--config", str(config)]) == 0
    assert Tokens(file).find(capsys.readouterr().out.strip()).scope is Scope.READ
    assert main(["token", "analyst"]) == 2
    assert "--tokens FILE" in capsys.readouterr().err
