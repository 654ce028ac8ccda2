"""Link layers: where the IP header begins, and what the frame says of its interface."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay import link
from natfix.replay.link import PLACES, guess, ip_offset
from tests.replay.wire import PHONE, PHONE6, PROVIDER, PROVIDER6, ethernet, udp

V4, V6 = udp(PHONE, PROVIDER, b"hello"), udp(PHONE6, PROVIDER6, b"hello")
VLAN, QINQ = b"\x81\x00\x00\x0a", b"\x88\xa8\x00\x01\x81\x00\x00\x0a"


def attribute(kind: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def pppoe(packet: bytes, protocol: bytes = b"\x00\x21") -> bytes:
    head = bytes(12) + b"\x88\x64\x11\x00\x00\x01" + struct.pack("!H", len(packet) + 2)
    return head + protocol + packet


FRAMES = {
    "ethernet": (1, ethernet(V4), V4),
    "ethernet IPv6": (1, ethernet(V6), V6),
    "VLAN": (1, ethernet(V4, VLAN), V4),
    "QinQ": (1, ethernet(V6, QINQ), V6),
    "PPPoE": (1, pppoe(V4), V4),
    "PPPoE IPv6": (1, pppoe(V6, b"\x00\x57"), V6),
    "PPPoE in VLAN": (1, bytes(12) + VLAN + pppoe(V4)[12:], V4),
    "MPLS": (1, bytes(12) + b"\x88\x47" + b"\x00\x01\x00\x40" + b"\x00\x02\x01\x40" + V4, V4),
    "SNAP": (1, bytes(12) + b"\x00\x40\xaa\xaa\x03\0\0\0\x08\0" + V4, V4),
    "RAW": (101, V4, V4),
    "RAW of OpenBSD": (14, V6, V6),
    "IPv4": (228, V4, V4),
    "IPv6": (229, V6, V6),
    "NULL": (0, b"\x02\0\0\0" + V4, V4),
    "NULL, other order": (0, b"\0\0\0\x1e" + V6, V6),
    "LOOP": (108, b"\0\0\0\x02" + V4, V4),
    "PPP": (9, b"\xff\x03\x00\x21" + V4, V4),
    "PPP, compressed": (9, b"\x21" + V4, V4),
    "SLL": (113, bytes(14) + b"\x08\x00" + V4, V4),
    "SLL with VLAN": (113, bytes(14) + VLAN + b"\x08\x00" + V4, V4),
    "SLL2": (276, b"\x86\xdd" + bytes(18) + V6, V6),
    "SLL2 with VLAN": (276, b"\x81\x00" + bytes(18) + b"\x00\x0a\x08\x00" + V4, V4),
    "NFLOG": (239, b"\x02\0\0\0" + attribute(5, bytes(4)) + attribute(10, b"abc") + attribute(9, V4), V4),
    "NFLOG, other order": (239, b"\x02\0\0\0" + attribute(5, bytes(4), ">") + attribute(9, V4, ">"), V4),
}


@pytest.mark.parametrize("name", FRAMES)
def test_where_ip_begins(name: str) -> None:
    """Every link type leads to the same IP packet."""
    kind, data, packet = FRAMES[name]
    at = ip_offset(kind, data)
    assert data[at:at + len(packet)] == packet


@pytest.mark.parametrize(("kind", "data"), [
    (1, bytes(12) + b"\x08\x06" + bytes(28)), (1, bytes(12) + VLAN * 20), (1, b""), (101, b""),
    (101, b"\x15"), (113, bytes(16)), (239, b"\x02\0\0\0" + b"\x00\x00\x09\x00"), (12345, V4),
    (1, bytes(12) + b"\x88\x47" + bytes(60)), (1, bytes(12) + b"\x88\x63" + bytes(20)),
])
def test_no_ip(kind: int, data: bytes) -> None:
    """ARP, endless tags, empty frames and unknown link types have no IP packet."""
    assert ip_offset(kind, data) == -1


def test_places() -> None:
    """Cooked frames say interface and direction."""
    assert PLACES[link.SLL](b"\0\x04" + bytes(14)) == ("", True)
    assert PLACES[link.SLL](b"\0\x00" + bytes(14)) == ("", False)
    assert PLACES[link.SLL](b"\0\x03" + bytes(14)) == ("", None)
    sll2 = struct.pack("!HHIHBB8s", 0x0800, 0, 7, 1, 0, 6, b"")
    assert PLACES[link.SLL2](sll2) == ("interface 7", False)
    nflog = b"\x02\0\0\0" + attribute(4, bytes(4)) + attribute(5, b"\0\0\0\x02")
    assert PLACES[link.NFLOG](nflog) == ("interface 2", True)
    assert PLACES[link.NFLOG](b"") == PLACES[link.SLL2](b"") == PLACES[link.SLL](b"") == ("", None)


@pytest.mark.parametrize("name", ["ethernet", "ethernet IPv6", "VLAN", "RAW", "IPv6", "SLL", "SLL2"])
def test_guess(name: str) -> None:
    """A dump's link type is told by where an IP header's length fits."""
    kind, data, packet = FRAMES[name]
    assert guess(data) == {229: 101}.get(kind, kind)
    at = ip_offset(guess(data), data)
    assert data[at:] == packet


@given(st.sampled_from(sorted(link.NAMES)), st.binary(max_size=80))
def test_any_octets(kind: int, data: bytes) -> None:
    """No frame makes this raise, or points behind its end by much."""
    assert ip_offset(kind, data) <= len(data) + 40
    guess(data)
    if kind in PLACES:
        PLACES[kind](data)
