"""Messages <-> bytes. A message is a ZeroMQ multipart of three parts:

    header    msgpack map: `v` (protocol version), `type`, and the message's fields
    payload   the coded pixels of `snapshot`, `raw-frames` and `audit`; empty otherwise
    checksum  CRC-32 (IEEE 802.3) of header then payload, u32 little-endian

Decoding accepts or raises `RemoteProtocolError`, nothing else; unknown fields are ignored, so that a newer peer can add some.
What every version must keep, so that peers of different versions can tell each other so: this frame, and the `error` message.
"""

from __future__ import annotations

import functools
import logging
import reprlib
import struct
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass

import msgpack

from framefold_protocol import messages
from framefold_protocol.checksum import crc32
from framefold_protocol.errors import InputError, RemoteProtocolError
from framefold_protocol.messages import VERSIONS, Message

Parts = list[bytes]

MAX_HEADER_BYTES = 2 * 1024 * 1024
"""A block map of the largest frame takes 1 MiB."""
MAX_PAYLOAD_BYTES = 2**31
"""What a decoder may be set to take at most."""
MAX_ENTRIES = 1024
"""Of an array or a map in a header; the largest of the messages has 256."""
_log = logging.getLogger(__name__)

_TYPES: dict[str, type[Message]] = {
    "hello": messages.Hello,
    "welcome": messages.Welcome,
    "snapshot": messages.Snapshot,
    "raw-frames": messages.RawFrames,
    "audit": messages.Audit,
    "gap": messages.Gap,
    "ack": messages.Ack,
    "end": messages.End,
    "done": messages.Done,
    "error": messages.Error,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}
AUDITS_SINCE = 2
"""The version that brought audit groups."""
PLANES_SINCE = 3
"""The version that brought the payload codec that is written today."""


@dataclass(frozen=True)
class Reader:
    """What one side accepts: protocol versions and sizes."""

    versions: tuple[int, int] = VERSIONS
    """Lowest and highest protocol version."""
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    """A message with a larger payload is refused as `too-large`."""

    def read(self, parts: Sequence[bytes]) -> tuple[int, Message]:
        """Version and message in three parts. Raises `RemoteProtocolError` for anything else."""
        header, payload = self._open(parts)
        try:
            named = msgpack.unpackb(header, max_array_len=MAX_ENTRIES, max_map_len=MAX_ENTRIES)
        except (ValueError, msgpack.UnpackException) as error:
            raise RemoteProtocolError(f"message header is not msgpack: {error}") from error
        if not isinstance(named, dict):
            raise RemoteProtocolError(f"message header is a {type(named).__name__}, expected a map")
        name, version = named.pop("type", None), named.pop("v", None)
        return self._check_version(version, name), _build_message(name, named, payload)

    def _open(self, parts: Sequence[bytes]) -> tuple[bytes, bytes]:
        if len(parts) != 3 or len(parts[2]) != 4:
            sizes = [len(part) for part in parts[:8]]
            raise RemoteProtocolError(f"message has parts of {sizes} bytes, expected header, payload and a 4-byte checksum")
        header, payload, checksum = parts
        for name, part, limit in (("header", header, MAX_HEADER_BYTES), ("payload", payload, self.max_payload_bytes)):
            if len(part) > limit:
                hint = "Raise max_message_mb of the decoder, or stream smaller frames"
                raise RemoteProtocolError(f"message {name} has {len(part)} bytes, limit {limit}", code="too-large", hint=hint)
        if struct.unpack("<I", checksum)[0] != crc32(header, payload):
            raise RemoteProtocolError("message checksum does not match its bytes", code="checksum", hint="Send it again")
        return header, payload

    def _check_version(self, version: object, name: object) -> int:
        low, high = self.versions
        if type(version) is int and (low <= version <= high or (name == "error" and version >= 0)):
            return version
        message = f"protocol version is {reprlib.repr(version)}, expected {low} to {high}"
        raise RemoteProtocolError(message, code="version", hint="Update framefold on the older side")


DEFAULT_READER = Reader()


def encode(message: Message, version: int | None = None) -> Parts:
    """The three parts of a message, in the lowest version that has it unless another is named: the most peers read that."""
    header = {"v": version or _lowest(message), "type": _NAMES[type(message)], **asdict(message)}
    payload = header.pop("payload", b"")
    packed = msgpack.packb(header)
    return [packed, payload, struct.pack("<I", crc32(packed, payload))]


def decode(parts: Sequence[bytes]) -> Message:
    """The message in three parts, of the versions and sizes this package speaks. Raises `RemoteProtocolError`."""
    return DEFAULT_READER.read(parts)[1]


def _lowest(message: Message) -> int:
    """The lowest version that has this message."""
    if getattr(message, "codec", None) in (messages.PLANES, messages.BINS):
        return PLANES_SINCE
    return AUDITS_SINCE if isinstance(message, messages.Audit) else 1


def size(parts: Sequence[bytes]) -> int:
    """Bytes a message takes on the wire: its parts and their ZMTP 3.1 frame headers; TCP/IP headers are not counted."""
    return sum(len(part) + (2 if len(part) < 256 else 9) for part in parts)


def _build_message(name: object, values: dict[str, typing.Any], payload: bytes) -> Message:
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise RemoteProtocolError(f"message type {reprlib.repr(name)} is unknown, expected one of {', '.join(_TYPES)}")
    if cls in (messages.Snapshot, messages.RawFrames, messages.Audit):
        values["payload"] = payload
    elif payload:
        raise RemoteProtocolError(f"message {name!r} has a payload of {len(payload)} bytes, expected none")
    return typing.cast(Message, _build(cls, values, str(name)))


def _build(cls: type[typing.Any], values: dict[str, typing.Any], where: str) -> object:
    """A frozen dataclass from a map, every field's type checked."""
    hints, required = _fields_of(typing.cast(typing.Hashable, cls))
    if unknown := set(values).difference(hints):
        _log.debug("ignoring unknown fields of %s: %s", where, reprlib.repr(unknown))
    for name in required:
        if name not in values:
            raise RemoteProtocolError(f"{where} lacks the field {name!r}")
    arguments = {name: _convert(values[name], hint, f"{where}.{name}") for name, hint in hints.items() if name in values}
    try:
        return cls(**arguments)
    except InputError as error:  # a MaskSpec out of bounds
        raise RemoteProtocolError(f"{where}: {error}", code="metadata") from error


@functools.cache
def _fields_of(cls: type[typing.Any]) -> tuple[dict[str, typing.Any], list[str]]:
    """A dataclass's fields with their types, and those that must be given."""
    hints = typing.get_type_hints(cls)
    known = fields(cls)
    return {f.name: hints[f.name] for f in known}, [f.name for f in known if f.default is f.default_factory is MISSING]


def _convert(value: object, hint: typing.Any, where: str) -> object:
    """The value as the field's type, or RemoteProtocolError. Integers are natural and below 2^64."""
    if hint is int and type(value) is int and 0 <= value < 2**64:
        return value
    if hint in (str, bytes, bool) and type(value) is hint:
        return value
    if hint is float and type(value) in (int, float):
        return float(typing.cast(float, value))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(value, arguments[0], where)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(item, arguments[0], where) for item in value)
        if len(value) == len(arguments):
            return tuple(_convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))
    if is_dataclass(hint) and isinstance(value, dict):
        return _build(typing.cast(type, hint), value, where)
    raise RemoteProtocolError(f"{where} is {reprlib.repr(value)}, expected {getattr(hint, '__name__', hint)}")
