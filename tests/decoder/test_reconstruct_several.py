"""Several groups at once are what they are one by one; masks are kept only while they are the same; memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folded_examples import coding, fold, moving_movie
from tiny_net import write_net

from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_protocol.errors import InputError, ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

NOISE = NoiseModel(1.5, 2.0, 3.0)
SPEC = MaskSpec(ratio=4)


@pytest.fixture
def load(tmp_path):
    def load(name="tiny", *, precision="single", tile_side=512, batch=None, **card):
        return OnnxNet(
            tmp_path / f"{name}.onnx",
            write_net(tmp_path, name, **card),
            "cpu",
            1,
            precision=precision,
            tile_side=tile_side,
            batch=batch,
        )

    return load


def stream(count, shape, *specs, ratio=4):
    """Neighbourhoods of consecutive groups; the level falls from group to group."""
    masks = coding(shape, *(specs or (MaskSpec(ratio=ratio),)))
    rng, movie = np.random.default_rng(3), moving_movie(count * ratio, shape)
    groups = [fold(rng.poisson(part / (k + 1)), masks) for k, part in enumerate(np.split(movie, count))]
    return [(group, groups[:k][::-1], groups[k + 1 :]) for k, group in enumerate(groups)]


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("specs", [(SPEC,), (SPEC, MaskSpec("ones", 4))])
def test_several_groups_are_what_they_are_one_by_one(load, batch, specs):
    several = stream(6, (70, 90), *specs)
    alone = [load().reconstruct(*one, NOISE) for one in several]
    together = load(tile_side=32, batch=batch).reconstruct_several(several, NOISE)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-3)


def test_no_groups_give_no_frames(load):
    assert load().reconstruct_several([], NOISE) == []


def test_groups_of_another_size_are_refused(load):
    with pytest.raises(InputError, match="share frames per snapshot and shape"):
        load().reconstruct_several(stream(1, (32, 40)) + stream(1, (40, 32)), NOISE)


def test_masks_are_kept_only_while_they_are_the_same(load):
    kept, masks = load(), [(SPEC,), (MaskSpec(ratio=4, seed=1),), (SPEC, MaskSpec("ones", 4)), (MaskSpec("ones", 4), SPEC)]
    for specs in (*masks, *masks[::-1]):
        (one,) = stream(1, (128, 64), *specs)
        np.testing.assert_array_equal(kept.reconstruct(*one, NOISE), load("fresh").reconstruct(*one, NOISE))


def test_a_net_of_several_ratios_takes_those_between(load):
    net = load(ratios=(4, 8))
    for ratio in (4, 5, 8):
        (one,) = stream(1, (24, 32), ratio=ratio)
        assert net.reconstruct(*one, NOISE).shape == (ratio, 24, 32)
    for ratio in (3, 9):
        with pytest.raises(ModelError, match=f"{ratio} frames per snapshot, it was trained on 4, 8"):
            net.reconstruct(*stream(1, (24, 32), ratio=ratio)[0], NOISE)


def test_a_file_of_one_ratio_with_a_card_of_more_is_refused(load):
    assert load("four", only=4).reconstruct(*stream(1, (24, 32))[0], NOISE).shape == (4, 24, 32)
    with pytest.raises(ModelError, match=r"more\.onnx takes 4 frames per snapshot alone, its card says 4, 8"):
        load("more", only=4, ratios=(4, 8))


def test_half_precision_answers_nearly_as_single_does(load):
    (one,) = stream(1, (64, 80))
    single, half = (load(precision=precision).reconstruct(*one, NOISE) for precision in ("single", "half"))
    np.testing.assert_allclose(half, single, rtol=5e-3)
    assert not np.array_equal(half, single)


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from framefold_decoder.reconstruct.base import FoldedGroup, NoiseModel
from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_protocol.coding import Coding
from framefold_protocol.masks import MaskSpec, derive_masks
from framefold_protocol.model import ModelCard

path, side = Path(sys.argv[1]), int(sys.argv[2])
net = OnnxNet(path, ModelCard.read(path.with_suffix(".json")), "cpu", 1, tile_side=256)
coding = Coding((derive_masks(MaskSpec(ratio=4), (side, side)),))
group = FoldedGroup(np.full((side, side), 80, np.uint16), coding)
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
Path("/proc/self/clear_refs").write_text("5")  # from now on: what was loaded may have taken more for a moment
before = peak()
frames = net.reconstruct(group, [], [], NoiseModel())
print(json.dumps({"grown_mb": peak() - before, "frames_mb": frames.nbytes / 2**20, "mean": float(frames.mean())}))
"""


def test_memory_beyond_the_frames_grows_with_the_frame_not_with_the_net(tmp_path):
    """Exposures and the level take 10 bytes a pixel; the net's own images take hundreds, of one tile at a time. The masks of so
    many tiles are more than what is kept."""
    write_net(tmp_path)
    beyond = {}
    for side in (2048, 3072):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "tiny.onnx"), str(side)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        told = json.loads(done.stdout)
        assert told["mean"] == pytest.approx(80, rel=1e-3)
        beyond[side] = told["grown_mb"] - told["frames_mb"]
    assert beyond[3072] - beyond[2048] < (3072**2 - 2048**2) * 24 / 2**20
