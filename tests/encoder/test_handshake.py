"""The encoder's connection: which of a host's addresses it takes."""

import socket

import pytest
import zmq

from framefold_encoder.handshake import Handshake
from framefold_protocol.errors import SettingsError

IPV4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
IPV6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
KNOWN = {"localhost": [IPV6, IPV4], "127.0.0.1": [IPV4], "::1": [IPV6], "server6": [IPV6]}


@pytest.fixture
def dealer():
    context = zmq.Context()
    yield context.socket(zmq.DEALER)
    context.destroy(linger=0)


@pytest.mark.parametrize(
    ("host", "ipv6"), [("localhost", 0), ("127.0.0.1", 0), ("[::1]", 1), ("server6", 1), ("unknown", 1), ("a..b", 1)]
)
def test_ipv6_is_for_hosts_that_have_nothing_else(host, ipv6, dealer, monkeypatch):
    def getaddrinfo(name, *args, **kwargs):
        if name == "a..b":
            raise UnicodeError("label empty or too long")
        if name not in KNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return KNOWN[name]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    Handshake(dealer, f"tcp://{host}:1", None).connect()
    assert dealer.getsockopt(zmq.IPV6) == ipv6


def test_an_address_nobody_connects_to_is_named(dealer):
    with pytest.raises(SettingsError, match=r"to is 'tcp://\*:1', expected the address of a decoder"):
        Handshake(dealer, "tcp://*:1", None).connect()
