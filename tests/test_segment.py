"""Pins segments: what is taken for a whole TCP segment, its options, and that what is written is right."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP

from natfix.address import Endpoint
from natfix.commands import SendSegment
from natfix.errors import MalformedPacket
from natfix.segment import (
    ACK,
    CWR,
    ECE,
    FIN,
    HALF,
    MASK,
    PSH,
    RST,
    SYN,
    URG,
    Opening,
    datagram,
    opening_of,
    options_by_kind,
    options_bytes,
    rebuild,
    reset_for,
    segment_from_bytes,
    timestamps_in,
    unwrap,
)
from tests.datagram import DONT_FRAGMENT
from tests.segments import Wire, read_segment, segment_bytes

PHONE = Endpoint("192.168.1.10", 40000)
PBX = Endpoint("198.51.100.20", 5060)
OUTSIDE = Endpoint("203.0.113.1", 40000)
PAYLOAD = b"OPTIONS sip:x SIP/2.0\r\n\r\n"
STAMPS = b"\x01\x01\x08\x0a\x00\x00\x00\x07\xff\xff\xff\xfe"
PLAIN = Wire(PHONE, PBX, 1000, 2000, PSH | ACK, 502, STAMPS, PAYLOAD)
RAW = segment_bytes(PLAIN)
NUMBERS = st.integers(0, MASK)
STAMP_PAIRS = st.none() | st.tuples(NUMBERS, NUMBERS)


def with_bytes(offset: int, new: bytes) -> bytes:
    """Return RAW with *new* at *offset*."""
    return RAW[:offset] + new + RAW[offset + len(new):]


def test_a_segment_is_taken_apart() -> None:
    """Endpoints, numbers, flags, options and payload are what the packet says."""
    segment = segment_from_bytes(RAW)
    assert segment == (RAW, 20, PHONE, PBX, 1000, 2000, PSH | ACK, 502, STAMPS, PAYLOAD, (7, 0xFFFFFFFE))
    assert segment.octets == len(PAYLOAD)
    assert segment_from_bytes(segment_bytes(PLAIN._replace(flags=FIN | SYN))).octets == len(PAYLOAD) + 2


@pytest.mark.parametrize(("raw", "why"), [
    (b"", "not an IPv4"),
    (RAW[:39], "not an IPv4"),
    (with_bytes(0, b"\x65"), "not an IPv4"),
    (RAW[:-1], "arrived cut"),
    (with_bytes(2, b"\xff\xff"), "arrived cut"),
    (with_bytes(9, b"\x11"), "not TCP"),
    (with_bytes(6, b"\x20\x00"), "a fragment"),
    (with_bytes(6, b"\x00\x07"), "a fragment"),
    (with_bytes(0, b"\x44"), "IP header's lengths"),
    (with_bytes(2, b"\x00\x27"), "IP header's lengths"),
    (with_bytes(32, b"\x40"), "TCP header's length"),
    (with_bytes(32, b"\xf0"), "TCP header's length"),
])
def test_what_is_not_a_whole_segment_is_refused(raw: bytes, why: str) -> None:
    """A packet that was cut, a fragment, or one with wrong lengths is never written back."""
    with pytest.raises(MalformedPacket, match=why):
        segment_from_bytes(raw)


def test_padding_is_no_payload() -> None:
    """Bytes behind the IP length (Ethernet pads to 60) are left out."""
    assert segment_from_bytes(RAW + b"\0" * 6).payload == PAYLOAD


@pytest.mark.parametrize(("options", "expected"), [
    (STAMPS, (7, 0xFFFFFFFE)),
    (b"\x08\x0a\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00", (7, 1)),
    (b"\x05\x0a\0\0\0\1\0\0\0\2\x08\x0a\0\0\0\3\0\0\0\4", (3, 4)),
    (b"\x01\x01\x08\x0a\x00\x00\x00\x07", None),
    (b"\x08\x06\0\0\0\1\0\0", None),
    (b"\x00\x08\x0a\0\0\0\3\0\0\0\4\0", None),
    (b"\x05\x00\x08\x0a\0\0\0\3\0\0\0\4", None),
    (b"\x01\x01\x01\x08", None),
    (b"", None),
])
def test_timestamps(options: bytes, expected: tuple[int, int] | None) -> None:
    """They are found wherever they stand, and nonsense counts as none: it ends the reading, nothing else."""
    assert timestamps_in(options) == expected


def test_what_a_syn_offers() -> None:
    """MSS, scale, SACK, timestamps; and what each is where it is not offered or is nonsense."""
    full = IP(src=PHONE.host, dst=PBX.host) / TCP(sport=1, dport=2, flags="S", options=[
        ("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)])
    assert opening_of(segment_from_bytes(bytes(full))) == Opening(1460, 7, True, True, False)
    bare = segment_from_bytes(segment_bytes(Wire(PHONE, PBX, 0, 0, SYN, 1)))
    assert opening_of(bare) == Opening(536, None, False, False, False)
    odd = bare._replace(options=b"\x02\x03\x01\x03\x03\xff\x13\x12" + b"\0" * 16)
    assert opening_of(odd) == Opening(536, 14, False, False, True)
    assert opening_of(bare._replace(options=b"\x1e\x04\x00\x01")).is_signed


def test_options_that_are_written_are_read() -> None:
    """Three SACK blocks fit beside timestamps and four without; RFC 2018 has the most interesting first."""
    blocks = [(start, start + 5) for start in (MASK - 2, 20, 30, 40, 50)]
    both = options_bytes((7, 8), blocks)
    assert (len(both), timestamps_in(both)) == (40, (7, 8))
    assert struct.unpack("!6I", options_by_kind(both)[5]) == (MASK - 2, 2, 20, 25, 30, 35)
    assert len(options_by_kind(options_bytes(None, blocks))[5]) == 32
    assert options_bytes((7, 8)) == b"\x01\x01\x08\x0a\0\0\0\7\0\0\0\x08"
    assert options_bytes(None) == b""


@settings(deadline=None)
@given(NUMBERS, st.integers(0, 1 << 40))
def test_positions_are_the_nearest(number: int, near: int) -> None:
    """A number stands for the position with these lowest 32 bits that is nearest, across every wrap."""
    position = unwrap(number, near)
    assert position & MASK == number
    assert -HALF <= position - near < HALF


@settings(deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 0xFFFF), STAMP_PAIRS, st.binary(max_size=1400),
       st.binary(max_size=1400))
def test_lengths_and_checksums_are_right(
    sequence: int, acknowledgement: int, flags: int, window: int, stamps: tuple[int, int] | None,
    before: bytes, after: bytes,
) -> None:
    """Two independent readers find nothing wrong: a reinjected packet's checksums are taken as they are."""
    flags &= 0xFFF & ~URG
    options = options_bytes(stamps)
    carrier = segment_from_bytes(segment_bytes(PLAIN._replace(payload=before)))
    rebuilt = rebuild(carrier, sequence, acknowledgement, flags, window, options, after, 77)
    assert read_segment(rebuilt)[:8] == (
        PHONE, PBX, sequence, acknowledgement, flags, window, options, after)
    fresh = IP(rebuilt)
    del fresh.chksum, fresh.len, fresh[TCP].chksum
    assert bytes(fresh) == rebuilt
    own = datagram(SendSegment(PHONE, PBX, sequence, acknowledgement, flags, window, options, after))
    assert read_segment(own, own=True)[:8] == read_segment(rebuilt)[:8]


def test_the_ip_header_is_kept() -> None:
    """TOS, TTL and IP options stand unchanged in the rebuilt packet, whose header checksum covers them."""
    options = b"\x94\x04\x00\x00\x01\x01\x01\x00"       # router alert, no operations, end
    length = struct.pack("!H", len(RAW) + len(options))
    raw = b"\x47\xb8" + length + RAW[4:8] + b"\x09" + RAW[9:20] + options + RAW[20:]
    rebuilt = rebuild(segment_from_bytes(raw), 1, 2, ACK, 3, b"", PAYLOAD, 9)
    assert (rebuilt[:2], rebuilt[8], rebuilt[20:28]) == (b"\x47\xb8", 9, options)
    assert read_segment(rebuilt).payload == PAYLOAD


@pytest.mark.parametrize(("fragment", "payload", "identification", "expected"), [
    (DONT_FRAGMENT, PAYLOAD + b"x", 0, (4711, 0)),
    (0, PAYLOAD + b"x", 99, (99, 0)),
    (DONT_FRAGMENT, PAYLOAD, 98, (98, DONT_FRAGMENT)),
    (DONT_FRAGMENT, PAYLOAD[:-1], 98, (98, DONT_FRAGMENT)),
])
def test_a_segment_that_grew_may_be_fragmented(
    fragment: int, payload: bytes, identification: int, expected: tuple[int, int]
) -> None:
    """"Don't fragment" is cleared, with a new identification, only where it was set and the packet grew."""
    carrier = segment_from_bytes(segment_bytes(
        PLAIN._replace(identification=identification, fragment=fragment)))
    rebuilt = read_segment(rebuild(carrier, 1, 2, ACK, 3, STAMPS, payload, 4711))
    assert (rebuilt.identification, rebuilt.fragment) == expected


def test_nothing_stays_urgent() -> None:
    """A rebuilt segment has no urgent pointer, whose octet may stand elsewhere now; ECN's flags stay."""
    carrier = segment_from_bytes(segment_bytes(PLAIN._replace(flags=ACK | URG, urgent=5)))
    rebuilt = read_segment(rebuild(carrier, 1, 2, carrier.flags | ECE | CWR, 3, b"", b"", 9))
    assert (rebuilt.flags, rebuilt.urgent) == (ACK | ECE | CWR, 0)


def test_a_segment_cannot_outgrow_ip() -> None:
    """What would not fit into 65,535 bytes is refused, not wrapped."""
    carrier = segment_from_bytes(RAW)
    assert len(rebuild(carrier, 1, 2, ACK, 3, b"", b"x" * 65495, 9)) == 65535
    with pytest.raises(MalformedPacket, match="65,535"):
        rebuild(carrier, 1, 2, ACK, 3, b"", b"x" * 65496, 9)


@pytest.mark.parametrize(("flags", "expected"), [
    (PSH | ACK, (2000, 0, RST)),
    (PSH, (0, 1000 + len(PAYLOAD), RST | ACK)),
    (SYN, (0, 1001 + len(PAYLOAD), RST | ACK)),
])
def test_a_reset_has_the_number_that_its_receiver_expects(
    flags: int, expected: tuple[int, int, int]
) -> None:
    """RFC 9293, section 3.10.7.1; and it comes from the address that the sender has sent to."""
    segment = segment_from_bytes(segment_bytes(PLAIN._replace(flags=flags)))
    reset = reset_for(segment, PBX)
    assert reset[:5] == (PBX, PHONE, *expected)


@settings(deadline=None)
@given(st.one_of(
    st.binary(max_size=80),
    st.tuples(st.integers(0, len(RAW) - 1), st.binary(max_size=6)).map(lambda at: with_bytes(*at)),
))
def test_any_bytes_are_a_segment_or_malformed(raw: bytes) -> None:
    """Nothing else is raised, and what is read can be written."""
    try:
        segment = segment_from_bytes(raw)
    except MalformedPacket:
        return
    opening_of(segment)
    again = rebuild(segment, segment.sequence, segment.acknowledgement, segment.flags, segment.window,
                    segment.options, segment.payload, 1)
    assert segment_from_bytes(again)[2:6] == segment[2:6]
    assert segment_from_bytes(again).payload == segment.payload
