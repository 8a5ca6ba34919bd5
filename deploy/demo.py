"""The whole path on one machine: `make demo`, or `python deploy/demo.py [--frames N] [--out DIR]`.

Starts a decoder, streams the simulated microscope to it in real time, waits for the reconstruction, measures it against the
known truth and leaves a contact sheet. Everything is written to `demo-output/`. The last stdout line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from framefold_client import Client, ClientError
from framefold_protocol.coding import BLOCK
from framefold_simulator.movie import Movie, MovieSpec

RATIO = 20
RATE = 100
MEASURED_GROUPS = 8
OUTPUT = ("decoder.log", "encoder.log", "sheet.png")
"""Files it leaves, beside the decoder's `data`."""
SHEET_TIMES = 4
CROP = 256
Pixels = npt.NDArray[np.floating]


def main() -> int:
    """Run the demo; returns its exit status."""
    options = _options()
    if not _emptied(options.out):
        print(f"demo: {options.out} holds other things than a demo's; name a new folder with --out", file=sys.stderr)
        return 2
    size = options.size
    movie = Movie(MovieSpec(shape=(size, size), dose=options.dose, seed=options.seed))
    uri = f"sim:?shape={size}x{size}&frames={options.frames}&dose={options.dose:g}&seed={options.seed}&rate={RATE}"
    with _decoder(options.out) as (ingest, address), Client(address) as client:
        print(f"decoder     serving at {address}, storing in {options.out / 'data'}")
        print(f"encoder     streaming {uri} at {RATE} frames/s")
        encoder = _stream(uri, ingest, options.out, client)
        stream = _wait_until_decoded(client, encoder["stream_id"])
        groups = _spread(encoder["snapshots"], MEASURED_GROUPS)
        quality = _measure(client, stream["id"], movie, groups)
        sheet = _draw_sheet(client, stream["id"], movie, options.out / "sheet.png", options.frames)
        frame_url = _checked_url(client, stream["id"])
    result = {
        "frames_in": encoder["frames"],
        "frames_stored": stream["frames_received"],
        "gaps": stream["frames_lost"],
        "wire_ratio": round(encoder["wire_ratio"], 2),
        "encoder_gb_s": round(encoder["encoder_gb_s"], 2),
        **quality,
        "frame_url": frame_url,
        "sheet": str(sheet),
    }
    _print_card(result, options, len(groups))
    print(json.dumps(result))
    return 0 if result["frames_stored"] == result["frames_in"] == options.frames else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fold, stream, store, unfold and look at a simulated movie.")
    parser.add_argument("--frames", type=int, default=810, help="frames to stream (default 810: 40 groups and 10 raw frames)")
    parser.add_argument("--size", type=int, default=512, help="height and width of the frames in pixels (default 512)")
    parser.add_argument("--dose", type=float, default=20.0, help="electrons per pixel and frame (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated movie (default 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for everything; an earlier demo's is cleared"
    )
    return parser.parse_args()


def _emptied(out: Path) -> bool:
    """Whether the folder is there and empty: made, or cleared of what an earlier demo left, of nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    found = {path.name for path in out.iterdir()}
    if {"decoder.log", "encoder.log"} <= found <= {"data", *OUTPUT}:
        shutil.rmtree(out / "data", ignore_errors=True)
        for path in OUTPUT:
            (out / path).unlink(missing_ok=True)
    return not any(out.iterdir())


@contextmanager
def _decoder(out: Path) -> Iterator[tuple[str, str]]:
    """A decoder process; yields the address of its link and of its REST service."""
    ingest, http = f"127.0.0.1:{_free_port(5571)}", f"127.0.0.1:{_free_port(8571)}"
    command = [_program("framefold-decoder"), "serve", "--data", str(out / "data")]
    command += ["--ingest", f"tcp://{ingest}", "--http", http]
    with (out / "decoder.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, f"http://{http}", out / "decoder.log")
            yield f"tcp://{ingest}", f"http://{http}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_port(wanted: int) -> int:
    """The usual port where it is free, otherwise any."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    with Client(address) as client:
        while process.poll() is None:
            try:
                client.streams()
                return
            except ClientError:
                time.sleep(0.2)
    raise SystemExit(f"the decoder did not start:\n{log.read_text()}")


def _stream(uri: str, ingest: str, out: Path, client: Client) -> dict[str, Any]:
    """Run the encoder, showing what the decoder has; returns the encoder's summary."""
    command = [_program("framefold-encoder"), "run", uri, "--ratio", str(RATIO), "--to", ingest]
    with (out / "encoder.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        while process.poll() is None:
            _show(client.streams())
            time.sleep(0.5)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"the encoder failed:\n{(out / 'encoder.log').read_text()}")
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


def _wait_until_decoded(client: Client, stream_id: str) -> dict[str, Any]:
    while True:
        stream = client.stream(stream_id)
        _show([stream])
        if stream["state"] == "complete" and stream["decoded"] == stream["snapshots"]:
            if sys.stdout.isatty():
                print()
            return stream
        time.sleep(0.5)


def _show(streams: list[dict[str, Any]]) -> None:
    """One progress line, rewritten; only on a terminal."""
    if streams and sys.stdout.isatty():
        stream = streams[0]
        text = f"{stream['frames']} frames stored, {stream['decoded']} of {stream['snapshots']} snapshots unfolded"
        print(f"\r\033[Kprogress    {text}", end="", flush=True)


def _spread(snapshots: int, wanted: int) -> list[int]:
    """Up to `wanted` snapshot numbers, evenly spread."""
    return [int(k) for k in np.linspace(0, snapshots - 1, min(wanted, snapshots))]


def _measure(client: Client, stream_id: str, movie: Movie, groups: list[int]) -> dict[str, float]:
    """PSNR of reconstruction and of plain averaging against the truth, and the mean chi2 of every snapshot."""
    errors = []
    peak = 0.0
    for k in groups:
        start, stop = k * RATIO, (k + 1) * RATIO
        truth = movie.clean(start, stop)
        averaged = movie.counts(start, stop).mean(axis=0, dtype=np.float32)
        errors.append([np.mean((estimate - truth) ** 2) for estimate in (client.frames(stream_id, start, stop), averaged)])
        peak = max(peak, float(truth.max()))
    reconstruction_db, averaging_db = 10 * np.log10(peak**2 / np.mean(errors, axis=0))
    chi2 = [group["chi2"] for group in client.quality(stream_id) if group["chi2"] is not None]
    return {
        "psnr_reconstruction_db": round(float(reconstruction_db), 2),
        "psnr_averaging_db": round(float(averaging_db), 2),
        "chi2": round(float(np.mean(chi2)), 3),
    }


def _draw_sheet(client: Client, stream_id: str, movie: Movie, path: Path, frames: int) -> Path:
    """Truth, noisy frame, snapshot, reconstruction and average, side by side at several times."""
    titles = ("truth", "noisy frame", f"snapshot of {RATIO}", "reconstruction", f"average of {RATIO}")
    groups = _spread(frames // RATIO, SHEET_TIMES)
    crop = min(CROP, movie.spec.shape[0])
    part = _busiest(movie, crop)
    sheet = Image.new("L", (len(titles) * (crop + 4), len(groups) * (crop + 18)), 255)
    draw = ImageDraw.Draw(sheet)
    for row, k in enumerate(groups):
        n = k * RATIO + RATIO // 4
        truth, noisy = movie.clean(n, n + 1)[0], movie.counts(n, n + 1)[0]
        average = movie.counts(k * RATIO, (k + 1) * RATIO).mean(axis=0)
        snapshot = _per_exposure(client.snapshot(stream_id, k), average)
        tiles = (truth, noisy, snapshot, client.frame(stream_id, n), average)
        low, high = np.percentile(truth[part], (0.5, 99.8))
        for column, (title, tile) in enumerate(zip(titles, tiles, strict=True)):
            image = tile[part].astype(np.float64)
            at = (column * (crop + 4), row * (crop + 18))
            draw.text((at[0] + 2, at[1] + 3), f"{title}, frame {n}", fill=0)
            sheet.paste(Image.fromarray(_gray(image, low, high)), (at[0], at[1] + 16))
    sheet.save(path)
    return path


def _per_exposure(snapshot: npt.NDArray[np.unsignedinteger], average: Pixels) -> Pixels:
    """A snapshot in counts a frame: the masks of a block expose all of its pixels in equally many frames, as its sum tells."""
    height, width = snapshot.shape
    starts = range(0, height, BLOCK), range(0, width, BLOCK)
    sums, means = (np.add.reduceat(np.add.reduceat(one, starts[0], 0), starts[1], 1) for one in (snapshot * 1.0, average))
    exposed = np.rint(sums / means)
    return snapshot / np.kron(exposed, np.ones((BLOCK, BLOCK)))[:height, :width]


def _busiest(movie: Movie, side: int) -> tuple[slice, slice]:
    """The square of this side in which the truth changes most within the first groups."""
    truth = movie.clean(0, 4 * RATIO).reshape(4, RATIO, *movie.spec.shape)
    change = truth.var(axis=1).mean(axis=0)
    steps = range(0, movie.spec.shape[0] - side + 1, 32)
    y, x = max(((y, x) for y in steps for x in steps), key=lambda at: change[at[0] : at[0] + side, at[1] : at[1] + side].sum())
    return slice(y, y + side), slice(x, x + side)


def _gray(image: Pixels, low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled = np.clip((image - low) / (high - low), 0, 1) * 255
    return scaled.astype(np.uint8)


def _checked_url(client: Client, stream_id: str) -> str:
    client.frame(stream_id, 0)
    return client.frame_url(stream_id, 0)


def _print_card(result: dict[str, Any], options: argparse.Namespace, groups: int) -> None:
    print(f"frames      {result['frames_in']} in, {result['frames_stored']} stored, {result['gaps']} lost")
    print(f"wire        ratio {result['wire_ratio']} (bytes the detector delivered / bytes sent, headers in; B = {RATIO})")
    print(f"encoder     {result['encoder_gb_s']} GB/s folding and coding, one thread")
    print(f"PSNR        reconstruction {result['psnr_reconstruction_db']} dB, average of {RATIO} frames")
    print(f"            {result['psnr_averaging_db']} dB, against the truth of {groups} groups at {options.dose:g} e-/px")
    print(f"chi2        {result['chi2']} (1: the frames explain the snapshots)")
    print(f"sheet       {result['sheet']}")
    print(f"frame       {result['frame_url']}")
    print(f"            (serve it again with: {_program('framefold-decoder')} serve --data {options.out / 'data'})")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
