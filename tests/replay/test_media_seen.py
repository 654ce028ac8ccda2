"""The table of streams: what media is, what is counted, and how much is kept."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay import media_seen
from natfix.replay.ip import packed_endpoint, packed_ends
from natfix.replay.media_seen import MediaTable
from natfix.replay.model import MediaKind, PacketId, Stream
from tests.replay.wire import PHONE6, PROVIDER6, RTP_PHONE, RTP_PROVIDER, START, frame, rtp

STUN = struct.pack("!HHI12x", 1, 0, 0x2112A442)
RTCP = struct.pack("!BBHI20x", 0x80, 200, 6, 0x99)
DTLS = b"\x16\xfe\xfd" + bytes(40)
UDPTL = b"\x00\x01\x06" + bytes(20)


class Table:
    """Feeds a table with payloads."""

    def __init__(self) -> None:
        self.table, self.number = MediaTable(), 0

    def take(self, payload: bytes, time: float = START, source: Endpoint = RTP_PHONE,
             destination: Endpoint = RTP_PROVIDER, **fields: object) -> bool:
        self.number += 1
        data = frame(payload, self.number, time, **fields)
        return self.table.take(data, packed_ends(source, destination), 0, len(payload))

    def only(self) -> Stream:
        (stream,) = self.table.streams()
        return stream


def test_rtp_stream() -> None:
    """A stream has its ends, source, times, packets, payload types and octets."""
    table = Table()
    for number in range(100):
        payload = rtp(number, payload_type=101 if number == 50 else 0)
        assert table.take(payload, START + number * 0.02, file="f")
    stream = table.only()
    assert (stream.kind, stream.source, stream.destination) == (MediaKind.RTP, RTP_PHONE, RTP_PROVIDER)
    assert (stream.ssrc, stream.payload_types, stream.packets) == (0x1234, {0, 101}, 100)
    assert (stream.octets, stream.lost, stream.gaps) == (100 * 172, 0, [])
    assert (stream.first_packet, stream.last_packet) == (PacketId(1, "f"), PacketId(100, "f"))
    assert (stream.start, stream.end) == pytest.approx((START, START + 1.98))
    assert stream.bins == [50, 50]


@pytest.mark.parametrize(("numbers", "lost"), [
    ([1, 2, 5, 6], 2), ([1, 3, 2, 4], 0), ([65534, 65535, 0, 2], 1), ([1, 1, 2], 0),
    ([1, 2, 30000, 30001], 0), ([5, 6, 9, 7, 8, 10], 0)])
def test_lost(numbers: list[int], lost: int) -> None:
    """Loss is counted by sequence numbers; what comes late was not lost, and a jump is a new start."""
    table = Table()
    for number in numbers:
        table.take(rtp(number))
    assert table.only().lost == lost


def test_gaps_and_bins() -> None:
    """Silences of more than a second are kept, the longest 20; bins widen when they are many."""
    table = Table()
    time = START
    for number in range(40):
        time += 1 + number
        table.take(rtp(number), time)
    stream = table.only()
    assert len(stream.gaps) == 20
    assert stream.gaps == sorted(stream.gaps)
    assert min(end - start for start, end in stream.gaps) == pytest.approx(21)
    assert stream.bin_width == 2.0
    assert len(stream.bins) <= media_seen.MOST_BINS
    assert sum(stream.bins) == 40


def test_time_that_jumps() -> None:
    """A clock that goes back, or ahead by decades, costs no memory."""
    table = Table()
    for number, time in enumerate((START, START - 1000, START + 1e9, 0.0, START)):
        table.take(rtp(number), time)
    stream = table.only()
    assert len(stream.bins) <= media_seen.MOST_BINS
    assert (stream.packets, sum(stream.bins)) == (5, 5)


@pytest.mark.parametrize(("payload", "kind", "ssrc"), [
    (RTCP, MediaKind.RTCP, 0x99), (STUN, MediaKind.STUN, None), (DTLS, MediaKind.DTLS, None),
    (struct.pack("!HH16x", 1, 0), MediaKind.STUN, None)])
def test_kinds(payload: bytes, kind: MediaKind, ssrc: int | None) -> None:
    """RTCP, STUN (of either RFC) and DTLS are told by one packet."""
    table = Table()
    assert table.take(payload)
    assert (table.only().kind, table.only().ssrc) == (kind, ssrc)


def test_a_lone_packet_is_no_stream() -> None:
    """RTP needs a second packet of its source in sequence, or an SDP that named one of its ends."""
    table = Table()
    table.take(rtp(0))
    table.take(rtp(40000))
    table.take(rtp(0, ssrc=5))
    assert table.table.streams() == []
    table.table.name(packed_endpoint(RTP_PROVIDER), MediaKind.RTP)
    assert [stream.packets for stream in table.table.streams()] == [2, 1]


def test_well_known_ports() -> None:
    """DNS can look like RTP; services' ports have no media."""
    table = Table()
    for number in range(5):
        assert not table.take(rtp(number), destination=Endpoint("10.0.0.1", 53))
    assert table.table.streams() == []


def test_udptl_where_sdp_says_so() -> None:
    """UDPTL has no looks of its own: it is what comes to, or from, where an SDP has an image."""
    table = Table()
    assert not table.take(UDPTL)
    sdp = (f"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 1 RTP/AVP 0\r\nm=image {RTP_PROVIDER.port} udptl t38\r\n"
           f"c=IN IP4 {RTP_PROVIDER.host}\r\nm=image 0 udptl t38\r\n")
    table.table.name_from_sdp(sdp.encode())
    assert table.take(UDPTL)
    assert table.take(UDPTL, source=RTP_PROVIDER, destination=RTP_PHONE)
    assert [stream.kind for stream in table.table.streams()] == [MediaKind.UDPTL] * 2


def test_keep_alives() -> None:
    """Anything at an endpoint that was named is counted, so that silence can be told from keep-alives."""
    table = Table()
    table.table.name(packed_endpoint(RTP_PROVIDER), MediaKind.OTHER)
    assert not table.take(b"\r\n\r\n")
    assert not table.take(b"", START + 30)
    assert (table.only().kind, table.only().packets, table.only().end) == (MediaKind.OTHER, 2, START + 30)


def test_places_are_apart() -> None:
    """One packet seen on two interfaces, or going in and out, is of two streams; IPv6 works as IPv4."""
    table = Table()
    for number in range(3):
        for fields in ({"interface": "eth0"}, {"interface": "eth1"}, {"interface": "eth1", "outgoing": True}):
            table.take(rtp(number), source=PHONE6, destination=PROVIDER6, **fields)
    streams = table.table.streams()
    assert [(stream.interface, stream.outgoing, stream.packets) for stream in streams] == [
        ("eth0", None, 3), ("eth1", None, 3), ("eth1", True, 3)]
    assert streams[0].source == PHONE6


def test_table_is_bounded() -> None:
    """Endless new sources drive out lone packets first, then what is silent longest; long streams stay."""
    table = Table()
    for number in range(50):
        table.take(rtp(number), START + number)
    for number in range(3 * media_seen.MOST_ACTIVE):
        table.take(rtp(1, ssrc=number + 10**6), START + 60 + number)
    assert len(table.table._active) <= media_seen.MOST_ACTIVE
    assert table.only().packets == 50
    for number in range(media_seen.MOST_FINISHED + 2 * media_seen.MOST_ACTIVE):
        for sequence in (1, 2):
            table.take(rtp(sequence, ssrc=number + 10**8), START + 10**5 + number * 200)
    assert len(table.table._finished) <= media_seen.MOST_FINISHED
    assert table.table.forgotten > 0
    assert any(stream.packets == 50 for stream in table.table.streams())
    for port in range(1, 60_000):
        table.table.name(port.to_bytes(6, "big"), MediaKind.RTP)
    assert len(table.table._names) <= media_seen.MOST_NAMES


@given(st.lists(st.tuples(st.binary(max_size=40), st.floats(0, 1e12)), max_size=10))
def test_any_octets(packets: list[tuple[bytes, float]]) -> None:
    """No payload makes this raise."""
    table = Table()
    for payload, time in packets:
        table.take(payload, time)
        table.table.name_from_sdp(b"m=audio 99999999 " + payload)
    table.table.streams()
