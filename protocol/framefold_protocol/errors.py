"""The errors of framefold.

FramefoldError              what went wrong, and `hint`: what to do about it
├── InputError              the user's: a file, a URI, a setting, an array
│   └── SettingsError       one key of a settings file, the environment or the command line
├── ProtocolError           the bytes or their order are wrong
│   ├── LocalProtocolError  this side called the session out of turn: a bug in framefold
│   └── RemoteProtocolError the peer sent what it must not; costs the peer its session and nothing else
├── StoreError              a store or catalogue that cannot be read or written
└── ModelError              a reconstruction model that cannot be used
"""

from __future__ import annotations


class FramefoldError(Exception):
    """Base of all errors a user may meet.

    `str(error)` is one line: what happened, then the hint. Every message names the file, field or peer, the value found and
    what was expected.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InputError(FramefoldError):
    """Input the user can mend: a file, a URI, an array's shape or type."""


class SettingsError(InputError):
    """A settings key that is unknown, missing or out of bounds."""


class ProtocolError(FramefoldError):
    """Bytes that are not a message, or a message out of turn."""


class LocalProtocolError(ProtocolError):
    """This side asked the session for something its state does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something malformed or out of turn.

    `code` is the name told to the peer; `retry` says whether a fresh hello may help.
    """

    def __init__(self, message: str, *, code: str = "malformed", hint: str = "", retry: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry = retry


class StoreError(FramefoldError):
    """A store, catalogue or data directory that cannot be used."""


class ModelError(FramefoldError):
    """A reconstruction model that is missing, damaged or does not fit."""


def installing(extra: str) -> str:
    """For hints: how to get the libraries of an extra. framefold is installed from its folder; an index may have another's."""
    return f"pip install '.[{extra}]' in framefold's folder"
