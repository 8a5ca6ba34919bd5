"""`framefold-decoder`: the command line. Log and errors go to stderr, results to stdout.

Exit status: 0 after a clean stop, 2 when settings, data folder, ports or models cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from framefold_decoder.settings import DecoderSettings, load_decoder_settings
from framefold_protocol.errors import FramefoldError

_OPTIONS = ("data", "ingest", "http", "model", "models", "provider", "threads", "masks", "credit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        settings = load_decoder_settings(options.config, {name: getattr(options, name) for name in _OPTIONS})
        command = {"serve": _serve, "models": _models}[options.command]
        command(settings)
    except KeyboardInterrupt:
        return 130
    except FramefoldError as error:
        print(f"framefold-decoder: error: {error}", file=sys.stderr)
        return 2
    return 0


def _log_to_stderr() -> None:
    """framefold's own messages only: what libraries have to say of a bad file is in framefold's error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(logging.Filter("framefold_decoder"))
    logging.basicConfig(level=logging.INFO, format="framefold-decoder: %(message)s", handlers=[handler])


def _serve(settings: DecoderSettings) -> None:
    from framefold_decoder.service import serve

    serve(settings)


def _models(settings: DecoderSettings) -> None:
    from framefold_decoder.reconstruct.registry import Registry

    registry = Registry(settings.models, provider=settings.provider, threads=settings.threads)
    registry.check("auto")  # loads every net, so that one that cannot be used is listed with its problem
    for model in registry.models():
        print(model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="framefold-decoder", description="Stores, unfolds and serves folded frames.")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, purpose in (("serve", "receive, store, reconstruct and serve streams"), ("models", "list the models there are")):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("--config", type=Path, help="TOML file of settings; every key also as FRAMEFOLD_DECODER_KEY")
        for option in _OPTIONS:
            described = DecoderSettings.model_fields[option]
            command.add_argument(f"--{option}", help=f"{described.description} (default {described.default})")
    return parser
