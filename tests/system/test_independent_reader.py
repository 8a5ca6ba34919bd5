"""What a real encoder says to a real decoder, read by a program that knows SPEC.md only (`independent_reader.py`)."""

import ast
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from framefold_decoder.downlink import Downlink
from framefold_decoder.library import Library
from framefold_protocol.coding import Coding
from framefold_protocol.masks import MaskSpec, derive_masks
from processes import free_port, run

READER = Path(__file__).parents[1] / "protocol" / "independent_reader.py"
sys.path.insert(0, str(READER.parent))
from independent_reader import read  # noqa: E402

SHAPE = (41, 67)


@contextmanager
def tap(decoder: str):
    """An address beside the decoder's; yields it and the list of what an encoder says there."""
    context, heard, closing = zmq.Context(), [], threading.Event()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    dealer.connect(decoder)

    def forward():
        encoder = b""
        while not closing.is_set():
            if router.poll(20):
                encoder, *parts = router.recv_multipart()
                heard.append(parts)
                dealer.send_multipart(parts)
            while dealer.poll(0):
                router.send_multipart([encoder, *dealer.recv_multipart()])

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield endpoint, heard
    finally:
        closing.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.parametrize("coder", ["lossless", "variance-stabilised"])
def test_a_captured_stream_is_read_as_it_was_meant(tmp_path, coder):
    frames = np.random.default_rng(5).poisson(9, (14, *SHAPE)).astype(np.uint8)
    np.save(tmp_path / "movie.npy", frames)
    decoder = f"tcp://127.0.0.1:{free_port()}"
    library = Library.open(tmp_path / "data")
    with Downlink(decoder, library, 8, None, lambda: None), tap(decoder) as (endpoint, heard):
        options = ("--ratio", 4, "--audit", 2, "--coder", coder)
        done = run("framefold-encoder", "run", "file:movie.npy", "--to", endpoint, *options, cwd=tmp_path)
        assert done.status == 0, done.stderr
    stream, groups = read(heard)
    store = library.store(stream["stream_id"])
    assert [fields["type"] for fields, _ in groups] == ["audit", "snapshot", "snapshot", "audit", "snapshot", "raw-frames"]
    masks = tuple(derive_masks(MaskSpec(**family), SHAPE) for family in stream["families"])
    assert stream["mask_digests"] == [one.digest for one in masks]
    for fields, numbers in groups:
        first = fields["first_frame"]
        if fields["type"] == "snapshot":
            assert numbers == store.snapshot(fields["position"]).ravel().tolist()
            block_map = np.frombuffer(fields["block_map"] or bytes(2), np.uint8).reshape(1, 2)
            sums = (Coding(masks, block_map).window() * frames[first : first + 4]).sum(axis=0)
            assert np.abs(sums.ravel() - numbers).max() <= (0 if coder == "lossless" else 5)
        else:
            assert numbers == frames[first : first + len(numbers) // frames[0].size].ravel().tolist()
    library.close()


def test_the_reader_is_independent():
    imported = {
        alias.name for node in ast.walk(ast.parse(READER.read_text())) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported == {"math", "struct", "zlib", "blosc2", "msgpack"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(READER.read_text())))
