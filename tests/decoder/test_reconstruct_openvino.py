"""Nets run by OpenVINO: the same frames, in half precision where the CPU has it, and never another precision than is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from folded_examples import coding, fold, moving_movie
from tiny_net import write_net

from framefold_decoder.quality import psnr
from framefold_decoder.reconstruct import onnx_runtime
from framefold_decoder.reconstruct.onnx_net import OnnxNet
from framefold_decoder.reconstruct.onnx_runtime import ProviderError
from framefold_decoder.reconstruct.registry import Registry
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_protocol.noise import NoiseModel
from framefold_protocol.processor import multiplies_bfloat16

THERE = "OpenVINOExecutionProvider" in onnxruntime.get_available_providers()
pytestmark = pytest.mark.skipif(not THERE, reason="this build of ONNX Runtime has no OpenVINO")
bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU has no instructions for bfloat16")


@pytest.fixture
def load(tmp_path):
    def load(provider="openvino", precision="single", tile_side=512):
        return OnnxNet(
            tmp_path / "tiny.onnx", write_net(tmp_path), provider, threads=1, precision=precision, tile_side=tile_side
        )

    return load


def seen(shape, spec):
    """A group with those before it and those after it, and the frames that it was folded from."""
    masks = coding(shape, spec)
    movie = moving_movie(SNAPSHOTS * spec.ratio, shape)
    row = [fold(part, masks) for part in np.split(np.random.default_rng(5).poisson(movie), SNAPSHOTS)]
    return (row[REACH], row[:REACH][::-1], row[REACH + 1 :]), movie[REACH * spec.ratio : (REACH + 1) * spec.ratio]


@pytest.mark.parametrize("tile_side", [32, 512])
def test_openvino_answers_as_the_cpu_does(load, tile_side):
    group, _ = seen((60, 75), MaskSpec(ratio=4))
    ours, theirs = (load(provider, tile_side=tile_side) for provider in ("openvino", "cpu"))
    assert (ours.provider, ours.on_gpu) == ("OpenVINOExecutionProvider", False)
    expected = theirs.reconstruct(*group, NoiseModel())
    np.testing.assert_allclose(ours.reconstruct(*group, NoiseModel()), expected, rtol=1e-4, atol=1e-3)


@bfloat16
def test_half_precision_is_taken_by_itself_and_told(load):
    group, _ = seen((64, 80), MaskSpec(ratio=4))
    single, half, auto = (load(precision=precision) for precision in ("single", "half", "auto"))
    assert half.provider == auto.provider == load("auto", "auto").provider == "OpenVINOExecutionProvider, half precision"
    exact, rounded, chosen = (net.reconstruct(*group, NoiseModel()) for net in (single, half, auto))
    np.testing.assert_allclose(rounded, exact, rtol=2e-2)
    np.testing.assert_array_equal(chosen, rounded)
    assert not np.array_equal(rounded, exact)


@bfloat16
def test_half_precision_hardly_shows_in_the_net_that_ships():
    group, truth = seen((128, 136), MaskSpec(ratio=20))
    errors = []
    for precision in ("single", "half"):
        net = Registry(provider="openvino", precision=precision, threads=1).choose("fast", group[0].coding)
        errors.append(psnr(net.reconstruct(*group, NoiseModel()), truth, float(truth.max())))
    assert errors[1] == pytest.approx(errors[0], abs=0.02)


def test_threads_may_share_a_net(load):
    group, _ = seen((60, 75), MaskSpec(ratio=4))
    net = load()
    expected = net.reconstruct(*group, NoiseModel())
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: net.reconstruct(*group, NoiseModel()), range(20)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("precision", ["auto", "single"])
def test_where_openvino_does_not_start_auto_takes_the_cpu_in_single_and_says_so(load, monkeypatch, caplog, precision):
    real = onnxruntime.InferenceSession

    def start(model, options, providers):
        """What ONNX Runtime makes of a provider whose libraries do not load."""
        return real(model, options, providers=[one for one in providers if isinstance(one, str)])

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    assert load("auto", precision).provider == "CPUExecutionProvider"
    assert "computes on CPUExecutionProvider, because" in caplog.text
    with pytest.raises(ProviderError, match=r"provider openvino was asked for.*'\.\[openvino\]'.*or ask for cpu"):
        load(precision=precision)


def test_a_cpu_without_bfloat16_computes_in_single_and_refuses_half(load, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "multiplies_bfloat16", lambda: False)
    assert load(precision="auto").provider == "OpenVINOExecutionProvider"
    with pytest.raises(ProviderError, match=r"half precision was asked for.*no instructions for bfloat16.*auto"):
        load(precision="half")
