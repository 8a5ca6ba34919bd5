"""Nets are fed what the contract says, tiles do not show, and whatever is wrong is one line with its cure."""

from __future__ import annotations

import importlib.metadata
import subprocess
from dataclasses import replace
from itertools import combinations

import numpy as np
import onnxruntime
import pytest
from folded_examples import coding, fold, moving_movie
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from tiny_net import WEIGHTS, write_card, write_net

from framefold_decoder.reconstruct.base import FoldedGroup
from framefold_decoder.reconstruct.brightness import correct
from framefold_decoder.reconstruct.onnx_net import OnnxNet, unsuitable
from framefold_decoder.reconstruct.onnx_runtime import ProviderError
from framefold_protocol.errors import ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import REACH, SNAPSHOTS
from framefold_protocol.noise import NoiseModel

SPEC = MaskSpec(ratio=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def card(folder):
    return write_net(folder)


@pytest.fixture(scope="module")
def net(folder, card):
    return OnnxNet(folder / "tiny.onnx", card, "cpu", threads=1)


def groups(shape, *specs, level=20.0):
    """A group of a movie, those before it and those after it."""
    masks = coding(shape, *(specs or (SPEC,)))
    counts = np.random.default_rng(5).poisson(moving_movie(SNAPSHOTS * masks.ratio, shape, level))
    row = [fold(part, masks) for part in np.split(counts, SNAPSHOTS)]
    return row[REACH], row[:REACH][::-1], row[REACH + 1 :]


def by_hand(row, noise):
    """What the tiny net answers to groups in order, from its description, each frame as bright as the snapshot shows."""
    group = row[REACH]
    masks = group.coding.window().astype(float)
    exposure = masks.sum(axis=0)
    signals = [one.snapshot - noise.offset_counts * one.exposure() for one in row]
    own = signals[REACH]
    level = own.sum() / exposure.sum()
    counts, seen = (
        sum(weight * uniform_filter(one.astype(float), 5, mode="constant") for weight, one in zip(WEIGHTS, images, strict=True))
        for images in ([signal / level for signal in signals], [one.exposure() for one in row])
    )
    fine = counts / seen
    h, w = fine.shape
    coarse = fine.reshape(h // 4, 4, w // 4, 4).mean(axis=(1, 3)).repeat(4, axis=0).repeat(4, axis=1)
    base = (fine + coarse) / 2
    relative = (noise.counts_per_electron * level + noise.read_noise_counts**2) / level**2
    missing = own / level - exposure * base
    answer = (base + masks * missing / np.maximum(exposure, 1) / (1 + relative)) * level + noise.offset_counts
    frames = np.maximum(answer, 0).astype(np.float32)
    correct(group, frames, noise)
    return frames


@pytest.mark.parametrize("noise", [NoiseModel(0.0), NoiseModel(), NoiseModel(2.0, 3.0, 30.0)])
def test_the_net_is_fed_what_the_contract_says(net, noise):
    group, before, after = groups((40, 48), SPEC, MaskSpec("ones", 4))
    frames = net.reconstruct(group, before, after, noise)
    np.testing.assert_allclose(frames, by_hand([*before[::-1], group, *after], noise), rtol=2e-5, atol=1e-4)
    assert frames.dtype == np.float32
    assert (net.name, net.provider) == ("tiny", "CPUExecutionProvider")


def test_a_missing_neighbour_is_this_snapshot_again(net):
    group, before, after = groups((24, 32))
    noise, again = NoiseModel(), [group, group]
    alone = net.reconstruct(group, [], [], noise)
    np.testing.assert_array_equal(alone, net.reconstruct(group, again, again, noise))
    fewer = net.reconstruct(group, before[:1], after[:1], noise)
    np.testing.assert_array_equal(fewer, net.reconstruct(group, [before[0], group], [after[0], group], noise))
    answers = [alone, fewer, net.reconstruct(group, before, after, noise)]
    answers += [net.reconstruct(group, before, [], noise), net.reconstruct(group, [], after, noise)]
    assert all(not np.allclose(one, other) for one, other in combinations(answers, 2))


def test_groups_further_away_than_a_net_reaches_are_left_alone(net):
    group, before, after = groups((24, 32))
    frames = net.reconstruct(group, before, after, NoiseModel())
    np.testing.assert_array_equal(frames, net.reconstruct(group, before + after, after + before, NoiseModel()))


def test_the_last_shorter_group_is_a_good_neighbour(net):
    group, _, _ = groups((24, 32))
    shorter = fold(np.full((2, 24, 32), 20), coding((24, 32), SPEC.with_ratio(2)))
    frames = net.reconstruct(group, [], [shorter], NoiseModel())
    row = [group, group, group, shorter, group]
    np.testing.assert_allclose(frames, by_hand(row, NoiseModel()), rtol=2e-5, atol=1e-4)


def test_brightness_is_found_from_whole_frames_alone(net, monkeypatch):
    seen = []
    monkeypatch.setattr("framefold_decoder.reconstruct.onnx_net.correct", lambda group, frames, noise: seen.append(group))
    group, before, after = groups((130, 140))
    net.reconstruct(group, before, after, NoiseModel())
    part = [one.window(slice(0, 64), slice(64, 128)) for one in (group, *before, *after)]
    net.reconstruct(part[0], part[1:2], part[2:3], NoiseModel())
    assert seen == [group]


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(st.integers(1, 150), st.integers(1, 90)), side=st.sampled_from([4, 16, 37, 64]), mixed=st.booleans())
def test_tiles_do_not_show(net, folder, card, shape, side, mixed):
    specs = (SPEC, MaskSpec("ones", 4), MaskSpec("random", 4, 0.3)) if mixed else (SPEC,)
    tiled = OnnxNet(folder / "tiny.onnx", card, "cpu", threads=1, tile_side=side)
    group, before, after = groups(shape, *specs)
    whole = net.reconstruct(group, before, after, NoiseModel())
    assert whole.shape == (4, *shape)
    np.testing.assert_allclose(tiled.reconstruct(group, before, after, NoiseModel()), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", [SPEC, MaskSpec("random", 4), MaskSpec("ones", 4)])
def test_a_still_uniform_scene_comes_back(net, spec):
    group = fold(np.full((4, 30, 41), 7), coding((30, 41), spec))
    np.testing.assert_allclose(net.reconstruct(group, [], [], NoiseModel()), 7, rtol=1e-4)


@pytest.mark.parametrize("noise", [NoiseModel(), NoiseModel(1.0, 100.0, 3.0)])
def test_empty_and_saturated_snapshots_give_finite_counts(net, noise):
    masks = coding((20, 30), MaskSpec("random", 4, 0.25, seed=1))
    assert (masks.exposure() == 0).any()
    for snapshot in (np.zeros((20, 30), np.uint32), np.full((20, 30), 2**32 - 1, np.uint32)):
        frames = net.reconstruct(FoldedGroup(snapshot, masks), [], [], noise)
        assert np.isfinite(frames).all()
        assert (frames >= 0).all()
    saturated = net.reconstruct(fold(np.full((4, 20, 30), 65535), masks), [], [], noise)
    np.testing.assert_allclose(saturated, 65535, rtol=1e-4)


def test_a_coding_that_does_not_fit_is_told(net, card):
    four = MaskSpec(ratio=4)
    cases = [
        (coding((8, 8), four.with_ratio(5)), "5 frames per snapshot.* on 4"),
        (coding((8, 8), MaskSpec("one-hot", 4)), "masks of kind one-hot.*balanced, random, ones"),
        (coding((8, 8), MaskSpec(ratio=4, density=0.7)), "density 0.7.*0.25, 0.5"),
        (coding((8, 8), MaskSpec("random", 4, 0.1)), "density 0.1"),
        (coding((64, 128), four, MaskSpec("one-hot", 4)), "kind one-hot"),
    ]
    for masks, reason in cases:
        with pytest.raises(ModelError, match=reason) as caught:
            net.reconstruct(FoldedGroup(np.ones(masks.shape, np.uint16), masks), [], [], NoiseModel())
        assert "gap-tv" in str(caught.value)
    unused = coding((64, 64), four, MaskSpec("one-hot", 4))
    assert unsuitable(card, unused) == unsuitable(card, coding((8, 8), MaskSpec("ones", 4))) == ""


def refused(path, card, *words):
    """Loading fails with one line that has all the words, among them the file's name."""
    with pytest.raises(ModelError) as caught:
        OnnxNet(path, card, "cpu")
    line = str(caught.value)
    assert "\n" not in line
    assert all(word in line for word in (path.name, *words)), line


def test_files_that_are_not_the_model_are_refused(tmp_path):
    card = write_net(tmp_path)
    path = tmp_path / "tiny.onnx"
    refused(tmp_path / "absent.onnx", card, "does not exist", "Export")
    refused(path, replace(card, inputs_version=1), "version 1", "version 2", "train it again")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    refused(path, card, "SHA-256", "damaged")
    path.write_bytes(b"this is no ONNX file")
    refused(path, write_card(path), "cannot be loaded", "Export")
    path.write_bytes(b"")
    refused(path, write_card(path), "cannot be loaded")


def test_nets_with_other_inputs_are_refused(tmp_path):
    card = write_net(tmp_path, "other", inputs={"noise": "dose"})
    refused(tmp_path / "other.onnx", card, "dose", "noise", "export")


def test_a_net_that_answers_nonsense_is_an_error_not_a_frame(tmp_path):
    group, _, _ = groups((20, 28))
    wild = OnnxNet(tmp_path / "wild.onnx", write_net(tmp_path, "wild", scale=float("nan")), "cpu")
    with pytest.raises(ModelError, match=r"wild, rows 0-20, columns 0-28.*not finite.*gap-tv"):
        wild.reconstruct(group, [], [], NoiseModel())
    odd = OnnxNet(tmp_path / "odd.onnx", write_net(tmp_path, "odd", multiple=2), "cpu")
    with pytest.raises(ModelError, match=r"odd, rows 0-22.*ONNX Runtime failed"):
        odd.reconstruct(groups((22, 28))[0], [], [], NoiseModel())


def is_installed(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def has_gpu() -> bool:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")
    except FileNotFoundError:
        return False


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU here")
@pytest.mark.parametrize(("provider", "extra"), [("cuda", "gpu"), ("tensorrt", "gpu"), ("openvino", "openvino")])
def test_a_provider_that_is_not_there_is_an_error(folder, card, provider, extra):
    if provider == "openvino" and "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    build = next(one for one in ("onnxruntime-openvino", "onnxruntime") if is_installed(one))
    expected = rf"provider {provider} was asked for.*pip uninstall {build}, then.*'\.\[{extra}\]'.*ask for cpu"
    with pytest.raises(ProviderError, match=expected):
        OnnxNet(folder / "tiny.onnx", card, provider)
    assert not OnnxNet(folder / "tiny.onnx", card, "auto").on_gpu


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU")
def test_cuda_answers_as_the_cpu_does(net, folder, card):
    cuda = OnnxNet(folder / "tiny.onnx", card, "cuda")
    assert cuda.provider == "CUDAExecutionProvider"
    group, before, after = groups((60, 75))
    answers = [one.reconstruct(group, before, after, NoiseModel()) for one in (net, cuda)]
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3, atol=1e-3)


def test_two_installed_runtimes_are_refused(folder, card, tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        (tmp_path / f"{name}-1.31.1.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n"
        (tmp_path / f"{name}-1.31.1.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProviderError, match=r"onnxruntime and onnxruntime-gpu (and \S+ )?are installed.*pip uninstall"):
        OnnxNet(folder / "tiny.onnx", card, "cpu")
