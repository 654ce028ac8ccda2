"""Pins packets: what is taken for a whole UDP datagram, and that what is written back is right."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from natfix.address import Endpoint
from natfix.errors import MalformedPacket
from natfix.packet import LONGEST, datagram, packet_from_bytes, rebuild
from tests import corpus
from tests.datagram import DONT_FRAGMENT, Datagram, packet_bytes, read_packet

PHONE = Endpoint("192.168.1.10", 5060)
PROVIDER = Endpoint("198.51.100.20", 5062)
PAYLOAD = b"OPTIONS sip:x SIP/2.0\r\n\r\n"
RAW = packet_bytes(Datagram(PHONE, PROVIDER, PAYLOAD))


def with_bytes(offset: int, new: bytes) -> bytes:
    """Return RAW with *new* at *offset*."""
    return RAW[:offset] + new + RAW[offset + len(new):]


def with_options(options: bytes) -> bytes:
    """Return RAW with IP options, whose length is a multiple of four."""
    length = struct.pack("!H", len(RAW) + len(options))
    return bytes([0x45 + len(options) // 4]) + RAW[1:2] + length + RAW[4:20] + options + RAW[20:]


def test_a_datagram_is_taken_apart() -> None:
    """Endpoints, payload and the header's length are what the packet says."""
    packet = packet_from_bytes(RAW)
    assert packet == (RAW, 20, PHONE, PROVIDER, PAYLOAD)


@pytest.mark.parametrize(("raw", "why"), [
    (b"", "not an IPv4"),
    (RAW[:27], "not an IPv4"),
    (with_bytes(0, b"\x65"), "not an IPv4"),
    (RAW[:-1], "arrived cut"),
    (with_bytes(2, b"\xff\xff"), "arrived cut"),
    (with_bytes(9, b"\x06"), "not UDP"),
    (with_bytes(6, b"\x20\x00"), "a fragment"),
    (with_bytes(6, b"\x00\x07"), "a fragment"),
    (with_bytes(6, b"\x60\x00"), "a fragment"),
    (with_bytes(0, b"\x44"), "IP header's lengths"),
    (with_bytes(0, b"\x4f"), "IP header's lengths"),
    (with_bytes(2, b"\x00\x1b"), "IP header's lengths"),
    (with_bytes(24, b"\xff\xff"), "UDP length"),
    (with_bytes(24, struct.pack("!H", len(RAW) - 19)), "UDP length"),
    (with_bytes(24, b"\x00\x07"), "UDP length"),
])
def test_what_is_not_a_whole_udp_datagram_is_refused(raw: bytes, why: str) -> None:
    """A packet that was cut, a fragment, or one with wrong lengths is never written back."""
    with pytest.raises(MalformedPacket, match=why):
        packet_from_bytes(raw)


def test_the_reserved_flag_and_dont_fragment_make_no_fragment() -> None:
    """Only "more fragments" and an offset do (RFC 791, section 3.1)."""
    assert packet_from_bytes(with_bytes(6, b"\xc0\x00")).payload == PAYLOAD


def test_padding_is_no_payload() -> None:
    """Bytes behind the IP length (Ethernet pads to 60) or behind the UDP length are left out."""
    assert packet_from_bytes(RAW + b"\0" * 6).payload == PAYLOAD
    shorter = with_bytes(24, struct.pack("!H", 8 + len(PAYLOAD) - 4))
    assert packet_from_bytes(shorter).payload == PAYLOAD[:-4]


def test_options_are_kept() -> None:
    """IP options stand unchanged in the rebuilt packet, whose header checksum covers them."""
    options = b"\x94\x04\x00\x00\x01\x01\x01\x00"       # router alert, no operations, end
    packet = packet_from_bytes(with_options(options))
    rebuilt = rebuild(packet, PAYLOAD + b"more", 1)
    assert (packet.header_length, packet.payload) == (28, PAYLOAD)
    assert rebuilt[20:28] == options
    assert read_packet(rebuilt).payload == PAYLOAD + b"more"


@pytest.mark.parametrize(("flags", "payload", "identification", "expected"), [
    (DONT_FRAGMENT, PAYLOAD + b"x", 0, (4711, 0)),
    (DONT_FRAGMENT, PAYLOAD + b"x", 99, (4711, 0)),
    (0, PAYLOAD + b"x", 99, (99, 0)),
    (DONT_FRAGMENT, PAYLOAD, 0, (0, DONT_FRAGMENT)),
    (DONT_FRAGMENT, PAYLOAD[:-1], 0, (0, DONT_FRAGMENT)),
])
def test_a_packet_that_grew_may_be_fragmented(
    flags: int, payload: bytes, identification: int, expected: tuple[int, int]
) -> None:
    """"Don't fragment" is cleared, with a new identification, only where it was set and the packet grew."""
    raw = packet_bytes(Datagram(PHONE, PROVIDER, PAYLOAD, identification, flags))
    rebuilt = read_packet(rebuild(packet_from_bytes(raw), payload, 4711))
    assert (rebuilt.identification, rebuilt.flags) == expected


@given(st.binary(max_size=1400), st.binary(max_size=1400))
def test_lengths_and_checksums_are_right(before: bytes, after: bytes) -> None:
    """Two independent readers find nothing wrong: a reinjected packet's checksums are taken as they are."""
    raw = packet_bytes(Datagram(PHONE, PROVIDER, before))
    rebuilt = rebuild(packet_from_bytes(raw), after, 77)
    assert read_packet(rebuilt)[:3] == (PHONE, PROVIDER, after)
    fresh = IP(rebuilt)
    del fresh.chksum, fresh.len, fresh[UDP].chksum, fresh[UDP].len
    assert bytes(fresh) == rebuilt


def test_a_checksum_of_zero_is_written_as_ones() -> None:
    """In UDP, 0 says that there is no checksum (RFC 768)."""
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PROVIDER, b"\0\0")))
    without = int.from_bytes(rebuild(packet, b"\0\0", 1)[26:28], "big")
    rebuilt = rebuild(packet, without.to_bytes(2, "big"), 1)
    assert rebuilt[26:28] == b"\xff\xff"


def test_a_packet_of_its_own() -> None:
    """An independent reader finds lengths and UDP checksum right; the IP checksum is the kernel's to make."""
    source, destination = Endpoint("203.0.113.1", 5060), Endpoint("198.51.100.7", 41000)
    for payload in (b"\0\0\0\0", b"OPTIONS", b"x" * 1000):
        raw = datagram(source, destination, payload)
        del (whole := IP(raw)).chksum
        assert read_packet(whole.build())[:3] == (source, destination, payload)
        assert packet_from_bytes(raw)[2:] == (source, destination, payload)


def test_a_packet_cannot_outgrow_ip() -> None:
    """What would not fit into 65,535 bytes is refused, not wrapped."""
    packet = packet_from_bytes(RAW)
    assert len(rebuild(packet, b"x" * (LONGEST - 28), 1)) == LONGEST
    with pytest.raises(MalformedPacket, match="65,535"):
        rebuild(packet, b"x" * (LONGEST - 27), 1)


@given(st.one_of(
    st.binary(max_size=80),
    st.tuples(st.integers(0, len(RAW) - 1), st.binary(max_size=6)).map(lambda at: with_bytes(*at)),
))
def test_any_bytes_are_a_packet_or_malformed(raw: bytes) -> None:
    """Nothing else is raised, and what is read lies in the packet."""
    try:
        packet = packet_from_bytes(raw)
    except MalformedPacket:
        return
    assert packet.payload in raw
    assert packet_from_bytes(rebuild(packet, packet.payload, 1))[1:] == packet[1:]


@pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)
def test_captured_packets_are_rebuilt_byte_for_byte() -> None:
    """Every captured UDP datagram with right checksums, rebuilt with its own payload, is the same."""
    same = 0
    for item in corpus.packets()[::5]:
        try:
            datagram, packet = read_packet(item.raw), packet_from_bytes(item.raw)
        except (AssertionError, MalformedPacket):
            continue            # offloaded checksums, padding, other protocols
        if item.raw[packet.header_length + 6:packet.header_length + 8] == b"\0\0":
            continue            # no UDP checksum: natfix writes one
        assert packet.payload == datagram.payload, item.where
        assert rebuild(packet, packet.payload, 1) == item.raw, item.where
        same += 1
    assert same > 1000
