"""The decoder service: link, reconstruction and REST around one library, started and stopped together."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import ssl
from contextlib import ExitStack
from types import FrameType

import uvicorn

from framefold_decoder.api.app import create_app
from framefold_decoder.api.patience import PatientProtocol
from framefold_decoder.api.tokens import Tokens
from framefold_decoder.downlink import Downlink
from framefold_decoder.gatekeeper import Door
from framefold_decoder.library import Library
from framefold_decoder.metrics import Metrics
from framefold_decoder.reconstruct.registry import Registry
from framefold_decoder.settings import DecoderSettings
from framefold_decoder.unfolding import Unfolder
from framefold_protocol import payload
from framefold_protocol.endpoint import is_loopback
from framefold_protocol.errors import SettingsError, StoreError

_log = logging.getLogger(__name__)
_FILE_DESCRIPTORS = 65_536


def serve(settings: DecoderSettings) -> None:
    """Run until interrupted; what was acknowledged by then is stored. Raises `FramefoldError` when it cannot start."""
    settings.check()
    door = Door(settings.key_pair, settings.allowed_keys, settings.max_message_mb, settings.max_mask_bits)
    tokens = _tokens(settings)
    _check_certificate(settings)
    _allow_many_connections()
    metrics = Metrics()
    registry = Registry(settings.models, provider=settings.provider, precision=settings.precision, threads=settings.threads)
    registry.check(settings.model)
    payload.warm_up()  # else the link would wait for the first snapshot of every type
    with ExitStack() as stack:
        http = stack.enter_context(_listen(*settings.http_address))
        library = Library.open(settings.data, mask_folder=settings.masks)
        stack.callback(library.close)
        for problem in library.problems():
            raise StoreError(problem, hint="Make it writable, or choose another with --data")
        unfolder = Unfolder(library, registry, settings.model, metrics)
        if settings.model != "none":
            stack.enter_context(unfolder)
        limit = settings.journal_limit_mb * 1_000_000
        downlink = Downlink(settings.ingest, library, settings.credit, settings.masks, unfolder.wake, door, metrics, limit)
        stack.enter_context(downlink)
        app = create_app(
            library,
            registry.models,
            lambda: _problems(downlink, unfolder, settings.model),
            tokens=tokens,
            metrics=metrics,
            decode=unfolder.request if settings.model != "none" else None,
            undecodable=unfolder.problem,
            sending=downlink.sending,
        )
        server = _http_server(app, settings)
        _log.info("encoders connect to %s", settings.ingest)
        url = f"{'https' if settings.http_certificate else 'http'}://{settings.http}"
        _log.info("REST at %s/api/v1, described at %s/docs", url, url)
        _log.info("data in %s", settings.data.resolve())
        server.run(sockets=[http])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _log.info("stopping when the snapshot in work is done; interrupt again to end at once, what is acknowledged is stored")


def _problems(downlink: Downlink, unfolder: Unfolder, model: str) -> list[str]:
    """What `/healthz` and `/readyz` tell besides the library's own problems."""
    stopped = [] if downlink.running else ["the link to the encoders has stopped; restart the decoder and see its log"]
    stopped += downlink.problems()
    if model != "none" and not unfolder.running:
        stopped.append("the reconstruction has stopped; restart the decoder and see its log")
    return stopped


def _tokens(settings: DecoderSettings) -> Tokens | None:
    """The REST service's tokens. Raises `SettingsError` when the network could reach it and nobody would be let in."""
    tokens = Tokens(settings.tokens) if settings.tokens else None
    if not is_loopback(settings.http_address[0]):
        if tokens is None or not tokens.known():
            hint = "Make one with framefold-decoder token NAME --scope read"
            raise SettingsError(f"token file {settings.tokens} holds no token", hint=hint)
        if not settings.http_certificate:
            _log.warning("tokens and frames cross the network in the clear; set http_certificate and http_key")
    return tokens


def _check_certificate(settings: DecoderSettings) -> None:
    if settings.http_certificate and settings.http_key:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.http_certificate, settings.http_key)
        except OSError as error:  # ssl.SSLError is one
            message = f"http_certificate {settings.http_certificate} with http_key {settings.http_key} cannot be used: {error}"
            raise SettingsError(message, hint="Expected PEM files that belong together") from error


def _allow_many_connections() -> None:
    """Each connection takes a file descriptor, and so does each file of a store: the usual 1,024 are soon gone."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(most, _FILE_DESCRIPTORS)), most))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is found out before anything else is started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # only now can no other program, nor the link, take it
    except OSError as error:
        listener.close()
        hint = "Stop the other program, or choose another address with --http"
        raise SettingsError(f"cannot serve REST at {host}:{port}: {error.strerror}", hint=hint) from error
    return listener


def _http_server(app: object, settings: DecoderSettings) -> uvicorn.Server:
    """A server that ends at SIGINT or SIGTERM, which mean nothing else from now on: uvicorn repeats them when it has ended."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=PatientProtocol,
        log_level="warning",
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.http_certificate,
        ssl_keyfile=settings.http_key,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True  # also before uvicorn listens to signals itself

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return server
