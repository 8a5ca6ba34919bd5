"""`framefold-decoder`: the command line. Log and errors go to stderr, results to stdout.

Exit status: 0 after a clean stop, 2 when settings, data folder, ports or models cannot be used; of `verify` 1 when something
is missing or damaged.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from framefold_decoder.api.tokens import Scope, add_token
from framefold_decoder.settings import DecoderSettings, load_decoder_settings
from framefold_protocol.errors import FramefoldError, SettingsError, installing
from framefold_protocol.keys import KeyPair, write_key_files
from framefold_protocol.settings import help_of, version_of

_OPTIONS = (
    "data",
    "ingest",
    "http",
    "model",
    "models",
    "provider",
    "precision",
    "threads",
    "masks",
    "credit",
    "key",
    "allowed_keys",
    "tokens",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        if options.command == "keygen":
            _keygen(options.name, options.folder)
            return 0
        settings = load_decoder_settings(options.config, {name: getattr(options, name, None) for name in _OPTIONS})
        if options.command == "token":
            _token(settings, options.name, Scope(options.scope))
            return 0
        if options.command == "verify":
            return _verify(settings, options.stream)
        if options.command in ("decode", "delete"):
            {"decode": _decode, "delete": _delete}[options.command](settings, options.stream)
            return 0
        command = {"serve": _serve, "models": _models}[options.command]
        command(settings)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:  # only a part of framefold was installed, such as the client
        print(f"framefold-decoder: error: {error.name} is not installed. Install it: {installing('decoder')}", file=sys.stderr)
        return 2
    except FramefoldError as error:
        print(f"framefold-decoder: error: {error}", file=sys.stderr)
        return 2
    return 0


def _log_to_stderr() -> None:
    """framefold's own messages only: what libraries have to say of a bad file is in framefold's error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.name.startswith("framefold_"))
    logging.basicConfig(level=logging.INFO, format="framefold-decoder: %(message)s", handlers=[handler])


def _serve(settings: DecoderSettings) -> None:
    from framefold_decoder.service import serve

    serve(settings)


def _models(settings: DecoderSettings) -> None:
    from framefold_decoder.reconstruct.registry import Registry

    registry = Registry(settings.models, provider=settings.provider, precision=settings.precision, threads=settings.threads)
    registry.check("auto")  # loads every net, so that one that cannot be used is listed with its problem
    for model in registry.models():
        print(model)


def _verify(settings: DecoderSettings, stream_id: str | None) -> int:
    from framefold_decoder.verifying import verify

    found = verify(settings.data, stream_id)
    for problem in found.problems:
        print(problem)
    print(found)
    return 1 if found.problems else 0


def _decode(settings: DecoderSettings, stream_id: str) -> None:
    """Progress line by line on stderr, one JSON document a snapshot on stdout."""
    from framefold_decoder.decoding import LibraryDecoder
    from framefold_decoder.library import Library
    from framefold_decoder.reconstruct.registry import Registry
    from framefold_decoder.store.group_table import Kind

    if settings.model == "none":
        raise SettingsError(
            "model is none, which decodes nothing", hint="Name one with --model; framefold-decoder models lists them"
        )
    _check_data(settings)
    registry = Registry(settings.models, provider=settings.provider, precision=settings.precision, threads=settings.threads)
    registry.check(settings.model)
    with closing(Library.open(settings.data, mask_folder=settings.masks)) as library:
        decoder, store = LibraryDecoder(library, registry), library.store(stream_id)
        for group in store.groups():
            if group.kind is Kind.SNAPSHOT:
                decoded = decoder.decode(stream_id, group.position, settings.model)
                told = {"position": group.position, "frames": group.frames, **asdict(decoded.quality)}
                print(json.dumps(told | {"made_by": asdict(decoded.provenance)}), flush=True)


def _delete(settings: DecoderSettings, stream_id: str) -> None:
    from framefold_decoder.library import Library

    _check_data(settings)
    with closing(Library.open(settings.data)) as library:
        library.delete(stream_id)


def _check_data(settings: DecoderSettings) -> None:
    if not settings.data.is_dir():
        raise SettingsError(f"data folder {settings.data} does not exist", hint="Name it with --data")


def _keygen(name: str, folder: Path) -> None:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    public_file, secret_file = write_key_files(folder, name, KeyPair(public, secret))
    print(f'secret key  {secret_file}: stays on this machine; set key = "{secret_file}"')
    print(f"public key  {public_file}: copy it to every detector PC and name it there in decoder_key")
    print(f"next        copy the encoders' public keys into a folder here and name it in allowed_keys; public key is {public}")


def _token(settings: DecoderSettings, name: str, scope: Scope) -> None:
    if settings.tokens is None:
        raise SettingsError("no token file is named", hint="Name it with --tokens FILE, or as tokens in the settings")
    token = add_token(settings.tokens, name, scope)
    print(f"its hash is in {settings.tokens}; the token itself is shown this once:", file=sys.stderr)
    print(token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="framefold-decoder", description="Stores, unfolds and serves folded frames.")
    parser.add_argument("--version", action="version", version=version_of(parser.prog))
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, purpose in (
        ("serve", "receive, store, reconstruct and serve streams"),
        ("models", "list the models there are"),
        ("decode", "make a stream's frames anew from its snapshots; a running service does it by POST /streams/ID/decode"),
    ):
        command = commands.add_parser(name, help=purpose)
        if name == "decode":
            command.add_argument("stream", metavar="STREAM", help="the stream's id, 32 hex digits")
        command.add_argument("--config", type=Path, help="TOML file of settings; every key also as FRAMEFOLD_DECODER_KEY")
        for option in _OPTIONS:
            described = DecoderSettings.model_fields[option]
            name = option.replace("_", "-")
            command.add_argument(f"--{name}", help=help_of(described))
    verify = commands.add_parser("verify", help="re-read everything that is stored and check its checksums; changes nothing")
    verify.add_argument("stream", nargs="?", metavar="STREAM", help="a stream's id (default all)")
    verify.add_argument("--config", type=Path, help="TOML file of settings")
    verify.add_argument("--data", help=f"{DecoderSettings.model_fields['data'].description}")
    told = "delete a stream for good, of a decoder that does not run; a running service does it by DELETE /streams/ID"
    delete = commands.add_parser("delete", help=told)
    delete.add_argument("stream", metavar="STREAM", help="the stream's id, 32 hex digits")
    delete.add_argument("--config", type=Path, help="TOML file of settings")
    delete.add_argument("--data", help=f"{DecoderSettings.model_fields['data'].description}")
    keygen = commands.add_parser("keygen", help="make this decoder's keys for the link")
    keygen.add_argument("name", nargs="?", default="decoder", metavar="NAME", help="of the key files (default decoder)")
    keygen.add_argument("--folder", type=Path, default=Path("keys"), help="where to put them (default keys)")
    token = commands.add_parser("token", help="make a token for the REST service and print it once")
    token.add_argument("name", metavar="NAME", help="who it is for")
    token.add_argument(
        "--scope", choices=[scope.value for scope in Scope], default=Scope.READ.value, help="what it allows (default read)"
    )
    token.add_argument("--config", type=Path, help="TOML file of settings, where tokens names the token file")
    token.add_argument("--tokens", help="The token file; made when missing")
    return parser
