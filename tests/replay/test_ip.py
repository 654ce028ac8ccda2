"""IP headers, checksums and tunnels, by offsets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay.ip import (
    GRE,
    TUNNELS,
    UDP_TUNNELS,
    header_at,
    host_of,
    is_checksum_wrong,
    packed_endpoint,
    packed_ends,
    sum16,
    whole_packet,
)
from tests.replay.wire import PHONE, PHONE6, PROVIDER, PROVIDER6, ethernet, ip, udp

V4, V6 = udp(PHONE, PROVIDER, b"hello"), udp(PHONE6, PROVIDER6, b"hello")


def test_headers() -> None:
    """Both versions' headers say the same things."""
    one, other = header_at(b"xx" + V4, 2), header_at(V6, 0)
    assert one is not None
    assert other is not None
    assert (one.payload, one.end, one.protocol, one.ttl, one.identification) == (22, len(V4) + 2, 17, 64, 7)
    assert (other.payload, other.end, other.protocol, other.ttl) == (40, len(V6), 17, 64)
    assert (host_of(one.source), host_of(other.destination)) == (PHONE.host, PROVIDER6.host)
    assert not one.is_fragment


def test_options_and_extension_headers() -> None:
    """IPv4 options and IPv6 extension headers are stepped over."""
    header = header_at(ip("10.0.0.1", "10.0.0.2", 17, b"12345678", options=bytes(8)), 0)
    assert header is not None
    assert header.payload == 28
    extended = ip("2001:db8::1", "2001:db8::2", 0, b"\x3c\0" + bytes(6) + b"\x11\0" + bytes(6) + b"12345678")
    header = header_at(extended, 0)
    assert header is not None
    assert (header.payload, header.protocol) == (56, 17)


@pytest.mark.parametrize("data", [b"", b"\x45", b"\x60" + bytes(20), b"\x44" + V4[1:], b"\x15" * 40,
                                  V4[:2] + b"\0\x05" + V4[4:]])
def test_no_headers(data: bytes) -> None:
    """Cut headers, and lengths that contradict each other, are none."""
    assert header_at(data, 0) is None


def test_length_of_segmentation_offload() -> None:
    """A total length of zero means: all that was captured."""
    header = header_at(V4[:2] + bytes(2) + V4[4:], 0)
    assert header is not None
    assert header.end == len(V4)


def test_packed() -> None:
    """Endpoints are packed as packets have them; names and mixed families are not."""
    assert packed_endpoint(Endpoint("10.0.0.1", 5060)) == b"\x0a\0\0\x01\x13\xc4"
    assert packed_ends(PHONE, PROVIDER) == V4[12:24]
    assert packed_ends(PHONE6, PROVIDER6) == V6[8:44]
    assert packed_endpoint(Endpoint("a.b.c.d", 1)) == packed_ends(PHONE, PROVIDER6) == b""


def test_checksums() -> None:
    """A wrong UDP checksum is told from none, and from one that a network card was to finish."""
    header = header_at(V4, 0)
    assert header is not None

    def with_checksum(checksum: int) -> bytes:
        return V4[:26] + struct.pack("!H", checksum) + V4[28:]

    pseudo = sum16(V4[12:20] + b"\0\x11" + V4[24:26])
    assert not is_checksum_wrong(V4, header, len(V4))
    assert not is_checksum_wrong(with_checksum(0), header, len(V4))
    assert not is_checksum_wrong(with_checksum(pseudo), header, len(V4))
    assert is_checksum_wrong(with_checksum(pseudo ^ 0x5555), header, len(V4))


def test_whole_packet() -> None:
    """A packet made of a head and a body has right lengths and checksum, and is no fragment."""
    assert whole_packet(ip("10.0.0.1", "10.0.0.2", 17, b"", fragment=0x2000), V4[20:]) == \
        ip("10.0.0.1", "10.0.0.2", 17, V4[20:])
    assert whole_packet(V6[:40], b"abc") == ip(PHONE6.host, PROVIDER6.host, 17, b"abc")


GRES = {
    "plain": b"\0\0\x08\0" + V4,
    "IPv6 with key": b"\x20\0\x86\xdd" + bytes(4) + V6,
    "checksum, key and sequence": b"\xb0\0\x08\0" + bytes(12) + V4,
    "Ethernet": b"\0\0\x65\x58" + ethernet(V4),
    "ERSPAN I": b"\0\0\x88\xbe" + ethernet(V4),
    "ERSPAN II": b"\x10\0\x88\xbe" + bytes(4) + bytes(8) + ethernet(V4),
    "ERSPAN III": b"\x10\0\x22\xeb" + bytes(4) + bytes(12) + ethernet(V4),
    "ERSPAN III with more": b"\x10\0\x22\xeb" + bytes(4) + bytes(11) + b"\x01" + bytes(8) + ethernet(V4),
    "PPTP": b"\x30\x81\x88\x0b" + bytes(12) + b"\xff\x03\0\x21" + V4,
}


@pytest.mark.parametrize("name", GRES)
def test_gre(name: str) -> None:
    """Whatever GRE carries, the inner IP packet is found."""
    data = b"outer" + GRES[name]
    at = TUNNELS[GRE](data, 5)
    assert data[at:] in (V4, V6)


def test_udp_tunnels() -> None:
    """VXLAN and TZSP are told by their headers; RTP on such a port is none."""
    vxlan, tzsp = UDP_TUNNELS[b"\x12\xb5"], UDP_TUNNELS[b"\x90\x90"]
    data = b"\x08" + bytes(7) + ethernet(V4)
    assert data[vxlan(data, 0):] == V4
    data = b"\x01\0\0\x01" + b"\0" + b"\x0a\x01x" + b"\x01" + ethernet(V4)
    assert data[tzsp(data, 0):] == V4
    assert vxlan(b"\x80" + bytes(100), 0) == tzsp(b"\x80" + bytes(100), 0) == tzsp(b"\x01\0\0\x01", 0) == -1


@given(st.binary(max_size=100), st.sampled_from([*TUNNELS.values(), *UDP_TUNNELS.values(), header_at]))
def test_any_octets(data: bytes, reader) -> None:   # type: ignore[no-untyped-def]
    """No octets make a reader raise."""
    reader(data, 0)
