"""Addresses of the link. Without keys only this machine's loopback is accepted, on either side."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from framefold_protocol.errors import SettingsError


def check_endpoint(endpoint: str, setting: str) -> str:
    """The endpoint itself when it is `tcp://HOST:PORT` with a loopback host; otherwise `SettingsError` naming the setting."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path:
        raise SettingsError(f"{setting} is {endpoint!r}, expected tcp://HOST:PORT", hint="For example tcp://127.0.0.1:5571")
    if not is_loopback(parts.hostname):
        hint = f"Carry it through a tunnel (ssh -L {port}:127.0.0.1:{port} SERVER) and use tcp://127.0.0.1:{port}"
        raise SettingsError(f"{setting} is {endpoint!r}, but the link is not encrypted: only loopback is accepted", hint=hint)
    return endpoint


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
