"""`framefold-encoder`: the command line. Progress and errors go to stderr, the result to stdout, last line one JSON document.

Exit status: 0 when every frame is stored at the decoder, 1 when frames of a camera were lost and the rest is, 2 when source,
settings or decoder refuse, 130 after an interrupt; the JSON document's `complete` then says whether every frame that was read
is stored.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from framefold_encoder.settings import EncoderSettings, load_encoder_settings
from framefold_protocol.errors import FramefoldError
from framefold_protocol.keys import KeyPair, write_key_files
from framefold_protocol.settings import help_of, version_of

if TYPE_CHECKING:  # what takes long to import is imported where an interrupt is answered properly
    from framefold_encoder.summary import Summary

_OPTIONS = (
    "to",
    "ratio",
    "wire_ratio",
    "mask",
    "density",
    "period",
    "adaptive",
    "seed",
    "mask_file",
    "coder",
    "step_sigma",
    "counts_per_electron",
    "audit",
    "threads",
    "journal",
    "journal_limit_mb",
    "key",
    "decoder_key",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        if options.command == "warm-up":
            return _warm_up()
        if options.command == "keygen":
            return _keygen(options.name, options.folder)
        settings = load_encoder_settings(options.config, {name: getattr(options, name) for name in _OPTIONS})
        return _run(options.source, settings)
    except KeyboardInterrupt:
        return 130
    except (FramefoldError, MemoryError) as error:
        print(f"framefold-encoder: error: {error}", file=sys.stderr)
        return 2
    except Exception:  # Python would end with 1, which says that all but a camera's lost frames is stored
        logging.getLogger(__name__).exception("error: this should not happen; please report it with these lines")
        return 2


def _log_to_stderr() -> None:
    """framefold's own messages only: what libraries have to say of a bad file is in framefold's error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.name.startswith("framefold_"))
    logging.basicConfig(level=logging.INFO, format="framefold-encoder: %(message)s", handlers=[handler])


def _warm_up() -> int:
    from framefold_encoder.group_encoder import warm_up

    start = time.perf_counter()
    warm_up()
    print(f"all is compiled for this CPU ({time.perf_counter() - start:.1f} s)")
    return 0


def _keygen(name: str, folder: Path) -> int:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    public_file, secret_file = write_key_files(folder, name, KeyPair(public, secret))
    print(f'secret key  {secret_file}: stays on this machine; set key = "{secret_file}"')
    print(f"public key  {public_file}: copy it into the decoder's folder allowed_keys, which is read again by itself")
    print(f"next        copy the decoder's public key to this machine and name it in decoder_key; this public key is {public}")
    return 0


def _run(uri: str, settings: EncoderSettings) -> int:
    from framefold_encoder.daemon import Encoder
    from framefold_encoder.sources import open_source

    stop = threading.Event()
    _stop_on_signals(stop)
    with open_source(uri) as source:
        encoder = Encoder(source, settings, uri)
        progress = _Progress(source.info.frame_count)
        try:
            summary = encoder.run(stop, progress)
        except FramefoldError:
            progress.close()
            if encoder.summary.complete or encoder.summary.frames:  # the error says why it ended there
                _print_summary(encoder.summary, settings, cut_short=True)
            raise
        finally:
            progress.close()
    _print_summary(summary, settings)
    if stop.is_set():
        return 130
    return 1 if summary.gaps else 0  # without an interrupt it waits until every other frame is stored


def _stop_on_signals(stop: threading.Event) -> None:
    """The first interrupt ends the stream cleanly, the second one ends the process."""

    def handle(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()
        with suppress(OSError):  # past sys.stderr: the interrupt may have come in the midst of a line that is printed there
            os.write(2, b"framefold-encoder: sending what was read; interrupt again to end at once\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


class _Progress:
    """One line on a terminal, rewritten after every group; silent elsewhere."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()

    def __call__(self, summary: Summary) -> None:
        if self._shown:
            of = f" of {self._total}" if self._total else ""
            text = f"{summary.frames}{of} frames, {summary.snapshots} snapshots, wire ratio {summary.wire_ratio:.1f}"
            print(f"\r\033[Kframefold-encoder: {text}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            print(file=sys.stderr)
        self._shown = False


def _print_summary(summary: Summary, settings: EncoderSettings, *, cut_short: bool = False) -> None:
    print(f"stream      {summary.stream_id}")
    print(f"frames      {summary.frames} in {summary.snapshots} snapshots of {settings.ratio} frames, {summary.gaps} lost")
    ratio = f"ratio {summary.wire_ratio:.2f}" if summary.complete else "not all of them"
    print(f"wire        {summary.bytes_in:,} bytes in, {summary.bytes_wire:,} sent: {ratio}")
    print(f"encoder     {summary.encoder_gb_s:.2f} GB/s folding and coding")
    print(f"CPU         {summary.cpu_s_per_gigapixel:.1f} s per gigapixel, all threads")
    print(f"stored      {_stored(summary, settings)}{', up to where the stream was cut short' if cut_short else ''}")
    print(json.dumps(vars(summary)))


def _stored(summary: Summary, settings: EncoderSettings) -> str:
    if summary.complete:
        return f"every frame but the {summary.gaps} lost ones, which are on record" if summary.gaps else "every frame"
    if not summary.frames:
        return "nothing: it ended before the first frame"
    kept = "the rest is gone with this process"
    if settings.journal and (settings.journal / summary.stream_id).exists():
        kept = f"the rest is in {settings.journal}, for the next run"
    return f"NOT every frame: the decoder had not confirmed all of them; {kept}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="framefold-encoder", description="Folds a detector's frames and streams the snapshots."
    )
    parser.add_argument("--version", action="version", version=version_of(parser.prog))
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser("warm-up", help="compile everything ahead of time, so that the first run starts at once")
    keygen = commands.add_parser("keygen", help="make this encoder's keys for the link")
    keygen.add_argument(
        "name", nargs="?", default=socket.gethostname(), metavar="NAME", help="of the key files (default %(default)s)"
    )
    keygen.add_argument("--folder", type=Path, default=Path("keys"), help="where to put them (default keys)")
    run = commands.add_parser("run", help="stream one source to a decoder")
    run.add_argument("source", metavar="SOURCE", help="sim:, sim:?frames=1000&dose=20, file:PATH, file:PATH.h5#/dataset")
    run.add_argument("--config", type=Path, help="TOML file of settings; every key also as FRAMEFOLD_ENCODER_KEY")
    for name in _OPTIONS:
        described = EncoderSettings.model_fields[name]
        option, text = f"--{name.replace('_', '-')}", help_of(described)
        if bool in get_args(described.annotation):
            run.add_argument(option, help=text, action=argparse.BooleanOptionalAction)
        else:
            run.add_argument(option, help=text)
    return parser
