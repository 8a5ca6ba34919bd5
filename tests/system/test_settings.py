"""Settings: file, environment and command line in that order; the committed examples are valid and are the defaults."""

import tomllib
from pathlib import Path

import pytest

from framefold_decoder.settings import DecoderSettings, load_decoder_settings
from framefold_encoder.settings import EncoderSettings, load_encoder_settings
from framefold_protocol.errors import SettingsError
from framefold_protocol.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(("load", "name"), [(load_encoder_settings, "encoder.toml"), (load_decoder_settings, "decoder.toml")])
def test_the_examples_are_the_defaults(load, name):
    assert load(DEPLOY / name, {}) == load(None, {})


@pytest.mark.parametrize(("model", "name"), [(EncoderSettings, "encoder.toml"), (DecoderSettings, "decoder.toml")])
def test_the_examples_name_every_key(model, name):
    text = (DEPLOY / name).read_text()
    optional = {key for key, field in model.model_fields.items() if field.default is None}
    assert set(tomllib.loads(text)) == set(model.model_fields) - optional
    assert all(f"# {key} = " in text for key in optional)


def test_the_later_layer_wins(tmp_path):
    config = tmp_path / "encoder.toml"
    config.write_text("ratio = 5\nseed = 6\nperiod = 7\n")
    environment = {"FRAMEFOLD_ENCODER_SEED": "60", "FRAMEFOLD_ENCODER_PERIOD": "70", "HOME": "/"}
    settings = load_settings(EncoderSettings, "FRAMEFOLD_ENCODER_", config, {"period": "700", "ratio": None}, environment)
    assert (settings.ratio.largest, settings.seed, settings.period) == (5, 60, 700)


@pytest.mark.parametrize(
    ("environment", "overrides", "named"),
    [
        ({"FRAMEFOLD_ENCODER_RATOI": "5"}, {}, "unknown key 'FRAMEFOLD_ENCODER_RATOI'. Did you mean 'ratio'"),
        ({"FRAMEFOLD_ENCODER_RATIO": "x"}, {}, "environment: FRAMEFOLD_ENCODER_RATIO is 'x'"),
        ({}, {"mask_file": "m.npy", "seed": "-1"}, "command line: --seed is '-1'"),
    ],
)
def test_a_wrong_value_is_named_as_the_user_wrote_it(environment, overrides, named):
    with pytest.raises(SettingsError, match=named):
        load_settings(EncoderSettings, "FRAMEFOLD_ENCODER_", None, overrides, environment)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"step_sigma": "1"}, "--step-sigma is 1, but does nothing without --coder variance-stabilised"),
        ({"mask": "ones", "density": "0.5"}, "--density is 0.5, but does nothing without --mask balanced or random"),
        ({"mask_file": "m.npy"}, "--mask-file is m.npy, but does nothing without --mask file"),
        ({"mask": "ones", "seed": "7"}, "--seed is 7, but does nothing without --mask balanced, random or one-hot"),
        ({"ratio": "1", "coder": "variance-stabilised"}, "but does nothing without a --ratio above 1"),
        ({"ratio": "1", "audit": "3"}, "--audit is 3, but does nothing without a --ratio above 1"),
        ({"journal_limit_mb": "5"}, "--journal-limit-mb is 5, but does nothing without --journal FOLDER"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(overrides, named):
    with pytest.raises(SettingsError, match=named):
        load_encoder_settings(None, overrides)


def test_an_option_finds_what_it_needs_in_the_file(tmp_path):
    config = tmp_path / "encoder.toml"
    config.write_text('coder = "variance-stabilised"\n')
    assert load_encoder_settings(config, {"step_sigma": "1"}).step_sigma == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, True),
        ({"ratio": "4"}, True),
        ({"ratio": "auto"}, True),
        ({"wire_ratio": "30"}, True),
        ({"ratio": "3"}, False),
        ({"ratio": "2..20"}, False),
        ({"mask": "one-hot"}, False),
        ({"mask": "file", "mask_file": "m.npy"}, False),
        ({"density": "0.5"}, False),
        ({"density": "0.5", "adaptive": True}, True),
        ({"adaptive": False}, False),
    ],
)
def test_masks_go_by_motion_unless_they_are_chosen_or_groups_may_be_too_short_to_tell(overrides, expected):
    settings = load_encoder_settings(None, overrides)
    assert settings.adapts == expected
    assert len(settings.families) == (3 if expected else 1)


def test_whether_masks_go_by_motion_is_one_of_three_things_in_the_environment():
    for text, expected in (("auto", "auto"), ("false", False), ("true", True)):
        environment = {"FRAMEFOLD_ENCODER_ADAPTIVE": text}
        assert load_settings(EncoderSettings, "FRAMEFOLD_ENCODER_", None, {}, environment).adaptive == expected
    with pytest.raises(SettingsError, match="environment: FRAMEFOLD_ENCODER_ADAPTIVE is 'sometimes'"):
        load_settings(EncoderSettings, "FRAMEFOLD_ENCODER_", None, {}, {"FRAMEFOLD_ENCODER_ADAPTIVE": "sometimes"})
