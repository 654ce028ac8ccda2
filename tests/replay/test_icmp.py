"""ICMP errors, and what they are about."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay.datagrams import Datagrams
from natfix.replay.icmp import error_from_datagram
from natfix.replay.model import IcmpError
from tests.replay.wire import PHONE, PHONE6, PROVIDER, PROVIDER6, frame, ip, tcp, udp


def error(kind: int, code: int, about: bytes, rest: bytes = bytes(4)) -> IcmpError | None:
    body = struct.pack("!BBH", kind, code, 0) + rest + about
    hosts = (PROVIDER.host, PHONE.host, 1) if about[0] >> 4 == 4 else (PROVIDER6.host, PHONE6.host, 58)
    data = ip(*hosts, body)
    datagram = Datagrams().take(frame(data, link=101), 0)
    return error_from_datagram(datagram) if datagram is not None else None


@pytest.mark.parametrize(("kind", "code", "name"), [
    (3, 3, "port-unreachable"), (3, 1, "host-unreachable"), (3, 13, "admin-prohibited"),
    (3, 99, "unreachable"), (11, 0, "ttl-exceeded"), (12, 0, "parameter-problem")])
def test_errors(kind: int, code: int, name: str) -> None:
    """An error is named, with the ends of the packet that it is about, even if only 8 octets of that came."""
    got = error(kind, code, udp(PHONE, PROVIDER, b"hello")[:28])
    assert got is not None
    assert (got.code, got.sender, got.protocol) == (name, PROVIDER.host, "udp")
    assert (got.source, got.destination) == (PHONE, PROVIDER)


def test_path_mtu() -> None:
    """Errors about a packet's size tell the MTU, in both IP versions."""
    got = error(3, 4, tcp(PHONE, PROVIDER, 1), struct.pack("!HH", 0, 1492))
    assert got is not None
    assert (got.code, got.next_hop_mtu, got.protocol) == ("fragmentation-needed", 1492, "tcp")
    got = error(2, 0, udp(PHONE6, PROVIDER6, b""), struct.pack("!I", 1280))
    assert got is not None
    assert (got.code, got.next_hop_mtu) == ("packet-too-big", 1280)


@pytest.mark.parametrize("about", [
    ip("10.0.0.1", "10.0.0.2", 1, bytes(8)), b"\x45", udp(PHONE, PROVIDER, b"")[:22]])
def test_about_others(about: bytes) -> None:
    """Errors about ICMP, or about what cannot be told, are none of ours; nor are echoes."""
    assert error(3, 3, about) is None
    assert error(8, 0, udp(PHONE, PROVIDER, b"")) is None


@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_octets(kind: int, about: bytes) -> None:
    """No ICMP message makes this raise."""
    error(kind, 0, b"\x45" + about)
    error(kind, 0, b"\x60" + about)
