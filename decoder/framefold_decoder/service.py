"""The decoder service: link, reconstruction and REST around one library, started and stopped together."""

from __future__ import annotations

import logging
import signal
import socket
from contextlib import ExitStack
from types import FrameType

import uvicorn

from framefold_decoder.api.app import create_app
from framefold_decoder.downlink import Downlink
from framefold_decoder.library import Library
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.settings import DecoderSettings
from framefold_decoder.unfolding import Unfolder
from framefold_protocol.errors import SettingsError, StoreError

_log = logging.getLogger(__name__)


def serve(settings: DecoderSettings) -> None:
    """Run until interrupted; what was acknowledged by then is stored. Raises `FramefoldError` when it cannot start."""
    registry = Registry(settings.models, provider=settings.provider, threads=settings.threads)
    registry.check(settings.model)
    with ExitStack() as stack:
        http = stack.enter_context(_listen(*settings.http_address))
        library = Library.open(settings.data, mask_folder=settings.masks)
        stack.callback(library.close)
        for problem in library.problems():
            raise StoreError(problem, hint="Make it writable, or choose another with --data")
        unfolder = Unfolder(library, registry, settings.model)
        if settings.model != "none":
            stack.enter_context(unfolder)
        downlink = Downlink(settings.ingest, library, settings.credit, settings.masks, unfolder.wake)
        stack.enter_context(downlink)
        app = create_app(library, registry.models, lambda: _problems(downlink, unfolder, settings.model))
        _log.info("encoders connect to %s", settings.ingest)
        _log.info("REST at http://%s/api/v1, described at http://%s/docs", settings.http, settings.http)
        _log.info("data in %s", settings.data.resolve())
        _serve_http(app, http)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _log.info("stopping when the snapshot in work is done; interrupt again to end at once, what is acknowledged is stored")


def _problems(downlink: Downlink, unfolder: Unfolder, model: str) -> list[str]:
    """What `/readyz` tells besides the library's own problems."""
    stopped = [] if downlink.running else ["the link to the encoders has stopped; restart the decoder and see its log"]
    if model != "none" and not unfolder.running:
        stopped.append("the reconstruction has stopped; restart the decoder and see its log")
    return stopped


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is found out before anything else is started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "Stop the other program, or choose another address with --http"
        raise SettingsError(f"cannot serve REST at {host}:{port}: {error.strerror}", hint=hint) from error
    return listener


def _serve_http(app: object, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM. uvicorn sends itself the signal again when it has shut down: by then it means nothing."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)  # type: ignore[arg-type]
    uvicorn.Server(config).run(sockets=[listener])
