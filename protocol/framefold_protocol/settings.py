"""How both daemons read their settings: defaults, then a TOML file, then the environment, then the command line.

One flat table of keys per daemon, described by a pydantic model with bounds and a description for every key. Every error is a
`SettingsError` of one line that says where the value came from; an unknown key is one too, and names the nearest known key.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from framefold_protocol.errors import SettingsError

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(
    model: type[Settings],
    prefix: str,
    config: Path | None,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings of one daemon.

    `prefix` is that of its environment variables, such as `FRAMEFOLD_ENCODER_`; `config` a TOML file; `overrides` values from
    the command line, None where an option was not given. Raises `SettingsError`.
    """
    known = list(model.model_fields)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"settings file {config}", _read_toml(config) if config else {}),
        ("environment", {_key_of(name, prefix): value for name, value in environment.items() if name.startswith(prefix)}),
        ("command line", {key: value for key, value in overrides.items() if value is not None}),
    ]
    for where, layer in layers:
        for key, value in layer.items():
            if key not in known:
                raise SettingsError(f"{where}: unknown key {_shown(where, key, prefix)!r}", hint=_nearest(key, known))
            values[key], origin[key] = value, where
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        where = origin.get(key, "settings")
        expected = first["msg"].removeprefix("Value error, ")
        message = f"{where}: {_shown(where, key, prefix)} is {first['input']!r}, expected: {expected}"
        raise SettingsError(message, hint=model.model_fields[key].description or "" if key else "") from error


def help_of(described: FieldInfo) -> str:
    """What `--help` says of a setting."""
    choices = get_args(described.annotation) if get_origin(described.annotation) is Literal else ()
    among = f"; one of {', '.join(map(str, choices))}" if choices else ""
    return f"{described.description}{among} (default {described.default})".replace("%", "%%")


def version_of(program: str) -> str:
    """What `--version` says."""
    return f"{program} {version('framefold')}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise SettingsError(f"settings file {path} does not exist", hint="Check --config") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}", hint="It must be TOML") from error


def _key_of(variable: str, prefix: str) -> str:
    return variable.removeprefix(prefix).lower()


def _shown(where: str, key: str, prefix: str) -> str:
    """The key as the user wrote it."""
    if where == "environment":
        return prefix + key.upper()
    return "--" + key.replace("_", "-") if where == "command line" else key


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1, cutoff=0.5)
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Known keys: {', '.join(sorted(known))}"
