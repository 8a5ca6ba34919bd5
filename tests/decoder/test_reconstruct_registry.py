"""The registry lists every model with its problem, and chooses one that fits or says why none does."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import onnxruntime
import pytest
from folded_examples import coding, fold
from tiny_net import write_card, write_net

from framefold_decoder.reconstruct.onnx_runtime import ProviderError
from framefold_decoder.reconstruct.registry import Registry
from framefold_protocol.errors import InputError, ModelError
from framefold_protocol.masks import MaskSpec
from framefold_protocol.model import ModelCard
from framefold_protocol.noise import NoiseModel

FOUR, FIVE = coding((16, 16), MaskSpec(ratio=4)), coding((16, 16), MaskSpec(ratio=5))


@pytest.fixture
def packaged(tmp_path):
    (tmp_path / "packaged").mkdir()
    return tmp_path / "packaged"


@pytest.fixture
def user(tmp_path):
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def registry(packaged, user=None) -> Registry:
    return Registry(user, provider="cpu", threads=1, packaged=packaged)


def listed(models: Registry) -> dict:
    return {model.name: model for model in models.models()}


def test_without_models_there_is_gap_tv(packaged):
    models = registry(packaged / "absent")
    assert [(model.name, model.kind, model.provider) for model in models.models()] == [("gap-tv", "gap-tv", "numba")]
    for name in ("auto", "gap-tv"):
        models.check(name)
        assert models.choose(name, FOUR).name == "gap-tv"
    models.check("none")


def test_auto_takes_the_net_that_fits(packaged, user):
    write_net(packaged, "four")
    write_net(user, "five", ratios=(5,))
    models = registry(packaged, user)
    models.check("auto")
    assert models.choose("auto", FOUR).name == "four"
    assert models.choose("auto", FIVE).name == "five"
    assert models.choose("auto", coding((16, 16), MaskSpec("one-hot", 4))).name == "gap-tv"
    frames = models.choose("auto", FOUR).reconstruct(fold(np.full((4, 16, 16), 9), FOUR), [], [], NoiseModel())
    np.testing.assert_allclose(frames, 9, rtol=1e-4)


def test_auto_takes_the_cheapest_on_a_cpu(packaged):
    for name, cost in (("a", 50.0), ("b", 5.0), ("c", 200.0)):
        write_net(packaged, name, kmac_per_frame_pixel=cost)
    assert registry(packaged).choose("auto", FOUR).name == "b"


def test_a_loaded_model_is_kept_and_tells_its_provider(packaged):
    card = write_net(packaged, "four")
    models = registry(packaged)
    assert listed(models)["four"].provider is None
    net = models.choose("four", FOUR)
    assert models.choose("auto", FOUR) is net
    assert asdict(listed(models)["four"]) == {
        "name": "four", "kind": "onnx", "provider": "CPUExecutionProvider", "ratios": (4,), "problem": None,
        "mask_kinds": ("balanced", "random", "ones"), "card": asdict(card),
    }  # fmt: skip


def test_a_named_model_that_does_not_fit_or_exist_is_an_error_with_the_alternatives(packaged):
    write_net(packaged, "four")
    models = registry(packaged)
    with pytest.raises(ModelError, match=r"model four does not fit: 5 frames per snapshot.* auto.* gap-tv, four"):
        models.choose("four", FIVE)
    for ask in (models.check, lambda name: models.choose(name, FOUR)):
        with pytest.raises(ModelError, match=r"no model 'fuor', but gap-tv, four"):
            ask("fuor")


def test_the_users_model_wins_over_a_packaged_one_of_its_name(packaged, user):
    write_net(packaged, "four")
    write_net(user, "four", parameters=7)
    assert listed(registry(packaged, user))["four"].card["parameters"] == 7


def test_damaged_models_are_listed_with_their_problem_and_stop_nothing(packaged):
    write_net(packaged, "good")
    write_net(packaged, "changed")
    (packaged / "changed.onnx").write_bytes((packaged / "good.onnx").read_bytes() + b"\0")
    (packaged / "junk.onnx").write_bytes(b"this is no ONNX file")
    write_card(packaged / "junk.onnx")
    (packaged / "cardless.onnx").write_bytes(b"")
    write_net(packaged, "fileless")
    (packaged / "fileless.onnx").unlink()
    write_net(packaged, "scrawl")
    (packaged / "scrawl.json").write_text("{]")
    card = write_net(packaged, "alias")
    ModelCard(**(asdict(card) | {"name": "good"})).write(packaged / "alias.json")
    write_net(packaged, "auto")
    models = registry(packaged)
    models.check("auto")
    assert models.choose("auto", FOUR).name == "good"
    problems = {name: model.problem for name, model in listed(models).items()}
    assert {name for name, problem in problems.items() if problem is None} == {"gap-tv", "good"}
    expected = {
        "changed": "SHA-256",
        "junk": "cannot be loaded",
        "cardless": "cardless.json",
        "fileless": "does not exist",
        "scrawl": "scrawl.json",
        "alias": "'good'",
        "auto": "not auto",
    }
    for name, words in expected.items():
        assert words in problems[name], problems[name]
        assert words in str(listed(models)[name])
    for name in ("changed", "junk"):
        with pytest.raises(ModelError, match=f"'{name}' cannot be used"):
            models.check(name)
        with pytest.raises(ModelError, match=f"'{name}' cannot be used"):
            models.choose(name, FOUR)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime knows CUDA here")
def test_a_provider_that_cannot_be_had_is_an_error_also_for_auto(packaged):
    write_net(packaged, "four")
    models = Registry(provider="cuda", packaged=packaged)
    for ask in (lambda: models.check("auto"), lambda: models.choose("auto", FOUR), lambda: models.check("four")):
        with pytest.raises(ProviderError, match="provider cuda"):
            ask()
    assert listed(models)["four"].problem is None
    assert models.choose("gap-tv", FOUR).name == "gap-tv"


def test_a_model_folder_that_does_not_exist_is_an_error(packaged):
    with pytest.raises(InputError, match="nowhere does not exist"):
        registry(packaged, packaged / "nowhere")
