"""Bearer tokens of the REST service: a TOML file of names, scopes and hashes. Nobody can get a token out of it.

    [analyst]
    scope = "read"                  # read: GET; write: POST, PUT and PATCH too; admin: everything
    sha256 = "9f86d081884c7d65..."  # of the token

`framefold-decoder token NAME --scope read` makes a token, prints it once and adds its hash. To revoke one, take its lines out:
the file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from framefold_protocol.errors import SettingsError

_PREFIX = "framefold_"
"""So that a token left in a repository is recognised by those who look for secrets."""


class Scope(StrEnum):
    """What a token allows; each allows all before it too."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        """Whether a token of this scope may do what needs that one."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Token:
    """One line of the file."""

    name: str
    scope: Scope
    sha256: str


class Tokens:
    """The tokens of a file. Raises `SettingsError` when it cannot be used, or others may write it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = None
        self._tokens: list[Token] = []
        self.known()

    def find(self, presented: str) -> Token | None:
        """The token whose hash this one has. Takes as long for a wrong token as for a right one."""
        digest = hashlib.sha256(presented.encode()).hexdigest()
        found = [token for token in self.known() if hmac.compare_digest(token.sha256, digest)]
        return found[0] if found else None

    def known(self) -> list[Token]:
        """The tokens that are in the file now."""
        try:
            with self._lock:
                stat = self._path.stat()
                if stat.st_mode & 0o022:
                    hint = f"chmod 600 {self._path}"
                    raise SettingsError(f"token file {self._path} can be written by others, expected mode 0600", hint=hint)
                seen = stat.st_ino, stat.st_mtime_ns, stat.st_size
                if seen != self._seen:
                    self._tokens, self._seen = _parse(self._path.read_text(), self._path), seen
                return self._tokens
        except (OSError, UnicodeDecodeError) as error:
            hint = "Make one with framefold-decoder token NAME --scope read"
            raise SettingsError(f"token file {self._path} cannot be read: {error}", hint=hint) from error


def add_token(path: Path, name: str, scope: Scope) -> str:
    """Make a token, add its hash to the file, which is made when missing, and return the token: it is kept nowhere.

    Raises `SettingsError` when the name is taken or the file cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise SettingsError(
            f"token name is {name!r}, expected up to 64 letters, digits and _-", hint="Name the user or program"
        )
    if path.exists() and name in (token.name for token in Tokens(path).known()):
        raise SettingsError(f"token file {path} has a token {name!r}", hint="Take its lines out first, or choose another name")
    token = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f'[{name}]\nscope = "{scope}"\nsha256 = "{digest}"\n\n')
    except OSError as error:
        raise SettingsError(f"token file {path} cannot be written: {error.strerror}", hint="Choose another --tokens") from error
    return token


def _parse(text: str, path: Path) -> list[Token]:
    try:
        return [_token(name, fields) for name, fields in tomllib.loads(text).items()]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        hint = 'Expected [NAME], scope = "read", "write" or "admin", sha256 = 64 hex digits'
        raise SettingsError(f"token file {path} is damaged: {error!r}", hint=hint) from error


def _token(name: str, fields: dict[str, str]) -> Token:
    if set(fields) != {"scope", "sha256"} or not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise ValueError(f"[{name}]")
    return Token(name, Scope(fields["scope"]), fields["sha256"])
