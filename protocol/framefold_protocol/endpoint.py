"""Addresses of the link and of services. Without keys or tokens only this machine's loopback is accepted."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from framefold_protocol.errors import SettingsError


def check_endpoint(endpoint: str, setting: str, *, keys: bool = False) -> str:
    """The endpoint itself when it is `tcp://HOST:PORT`; otherwise `SettingsError` naming the setting.

    `keys`: whether both sides' keys are set; without them the host must be loopback.
    """
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    # Put together again it is the same: in lower case, without a path, a query, a fragment or blanks.
    if endpoint != f"tcp://{parts.netloc}" or "@" in parts.netloc or not parts.hostname or not port:
        raise SettingsError(f"{setting} is {endpoint!r}, expected tcp://HOST:PORT", hint="For example tcp://127.0.0.1:5571")
    if not keys and not is_loopback(parts.hostname):
        hint = f"Make keys with keygen and set them, or go through a tunnel (ssh -L {port}:127.0.0.1:{port} SERVER)"
        raise SettingsError(f"{setting} is {endpoint!r}, but without keys only loopback is accepted", hint=hint)
    return endpoint


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
