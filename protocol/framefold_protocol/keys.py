"""Key files of the link: ZeroMQ certificates, as czmq and pyzmq read and write them.

`NAME.key` holds a public key and may be copied, `NAME.key_secret` holds both and stays where it was made, mode 0600. A key is
32 bytes in Z85, 40 characters (ZeroMQ RFC 32). No sockets in here: the sides hand the keys to theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framefold_protocol.errors import SettingsError

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"  # noqa: S105 (a file name)

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_LINE = re.compile(r"\s*(public|secret)-key\s*=\s*[\"']?([^\"'\s]*)[\"']?\s*")
_MAX_BYTES = 4096


@dataclass(frozen=True)
class KeyPair:
    """One side's own keys, Z85."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class LinkKeys:
    """What an encoder needs to be let in, and to know that it talks to its decoder."""

    own: KeyPair
    decoder: str
    """The decoder's public key, Z85."""


def write_key_files(folder: Path, name: str, pair: KeyPair) -> tuple[Path, Path]:
    """Write `folder/NAME.key` and `folder/NAME.key_secret`; returns their paths. Raises `SettingsError`, also if one exists."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise SettingsError(
            f"key name is {name!r}, expected up to 64 letters, digits and _.-", hint="Name the machine, such as cam1"
        )
    public, secret = folder / f"{name}{PUBLIC_SUFFIX}", folder / f"{name}{SECRET_SUFFIX}"
    for path in (public, secret):
        if os.path.lexists(path):
            raise SettingsError(f"key file {path} exists and is not overwritten", hint="Move it away, or choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(
            secret, 0o600, f'# Secret: stays on this machine.\npublic-key = "{pair.public}"\nsecret-key = "{pair.secret}"\n'
        )
        _write_new(public, 0o644, f'# Public: copy it to the other side.\npublic-key = "{pair.public}"\n')
    except OSError as error:
        raise SettingsError(
            f"key files cannot be written to {folder}: {error.strerror}", hint="Choose another --folder"
        ) from error
    return public, secret


def read_secret_key(path: Path, setting: str) -> KeyPair:
    """The keys of a secret file. Raises `SettingsError` naming the setting, also when others than its owner can open it."""
    keys = _read(path, setting)
    if "secret" not in keys:
        raise SettingsError(f"{setting}: {path} holds no secret key", hint=f"Name the {SECRET_SUFFIX} file that keygen made")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        hint = f"chmod 600 {path}; make new keys if others may have read it"
        raise SettingsError(f"{setting}: {path} is open to others (mode {mode:04o}), expected 0600", hint=hint)
    return KeyPair(keys["public"], keys["secret"])


def read_public_key(path: Path, setting: str) -> str:
    """The key of a public file, Z85. Raises `SettingsError` naming the setting, also for a file that holds a secret key."""
    keys = _read(path, setting)
    if "secret" in keys:
        hint = f"Copy the {PUBLIC_SUFFIX} file instead; make new keys if the secret one has left its machine"
        raise SettingsError(f"{setting}: {path} holds a secret key, expected a public one", hint=hint)
    return keys["public"]


def _write_new(path: Path, mode: int, text: str) -> None:
    """Write a file that must not exist yet; nobody but its owner can open it before it has its mode."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(text)


def _read(path: Path, setting: str) -> Mapping[str, str]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except FileNotFoundError as error:
        raise SettingsError(f"{setting}: key file {path} does not exist", hint="Make one with keygen") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: key file {path} cannot be read: {error}", hint="Check its owner and mode") from error
    keys = {match[1]: match[2] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
    if "public" not in keys or not all(map(_is_key, keys.values())):
        hint = "Make one with keygen, or copy it again"
        raise SettingsError(f"{setting}: {path} is not a key file, expected public-key = 40 characters of Z85", hint=hint)
    return keys


def _is_key(text: str) -> bool:
    """Whether this is Z85 of 32 bytes: 8 groups of 5 digits to base 85, each below 2^32."""
    if len(text) != 40 or not set(text) <= set(_Z85):
        return False
    digits = [_Z85.index(letter) for letter in text]
    groups = (digits[i : i + 5] for i in range(0, 40, 5))
    return all(sum(digit * 85**power for power, digit in enumerate(reversed(group))) < 2**32 for group in groups)
