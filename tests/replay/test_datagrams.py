"""From frames to datagrams: tunnels, fragments, facts."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay.datagrams import Datagrams
from natfix.replay.link import ip_offset
from natfix.replay.model import Datagram, Frame, PacketId
from tests.replay.wire import PHONE, PHONE6, PROVIDER, PROVIDER6, ethernet, frame, ip, tcp, udp, udp_segment

TEXT = b"hello world " * 100


def take(data: bytes, link: int = 1) -> Datagram | None:
    return Datagrams().take(frame(data, 3, link=link, file="f"), ip_offset(link, data))


@pytest.mark.parametrize(("source", "destination"), [(PHONE, PROVIDER), (PHONE6, PROVIDER6)])
def test_udp(source, destination) -> None:  # type: ignore[no-untyped-def]
    """A UDP datagram has its ends, payload, IP packet and facts; the frame's padding is not of it."""
    packet = udp(source, destination, TEXT)
    got = take(ethernet(packet) + b"padding")
    assert got is not None
    assert (got.protocol, got.source, got.destination, got.payload) == ("udp", source, destination, TEXT)
    assert (got.packets, got.ip) == ((PacketId(3, "f"),), packet)
    assert (got.facts.ttl, got.facts.length, got.facts.fragments) == (64, len(packet), 1)
    assert not any((got.facts.cut, got.facts.checksum_wrong, got.facts.udp_length_wrong))


def test_layers() -> None:
    """Tunnels in tunnels are looked into; without end they are not."""
    packet = udp(PHONE, PROVIDER, TEXT)
    inner = ip("10.0.0.1", "10.0.0.2", 4, ip("10.1.0.1", "10.1.0.2", 47, b"\0\0\x08\0" + packet))
    got = take(ethernet(inner))
    assert got is not None
    assert (got.source, got.ip) == (PHONE, packet)
    for _ in range(20):
        packet = ip("10.0.0.1", "10.0.0.2", 4, packet)
    assert take(ethernet(packet)) is None


def test_vxlan() -> None:
    """A UDP tunnel is looked into as well."""
    inner = udp(PHONE, PROVIDER, TEXT)
    outer = udp(PHONE._replace(port=1000), PROVIDER._replace(port=4789), b"\x08" + bytes(7) + ethernet(inner))
    got = take(ethernet(outer))
    assert got is not None
    assert got.ip == inner


def fragments4(body: bytes, size: int = 480) -> list[bytes]:
    return [
        ip(PHONE.host, PROVIDER.host, 17, body[at:at + size],
           fragment=(0x2000 if at + size < len(body) else 0) | at // 8)
        for at in range(0, len(body), size)]


def fragments6(body: bytes, size: int = 480) -> list[bytes]:
    return [
        ip(PHONE6.host, PROVIDER6.host, 44,
           struct.pack("!BBHI", 17, 0, at | (at + size < len(body)), 99) + body[at:at + size])
        for at in range(0, len(body), size)]


@pytest.mark.parametrize(("make", "source", "destination"), [
    (fragments4, PHONE, PROVIDER), (fragments6, PHONE6, PROVIDER6)])
def test_fragments(make, source, destination) -> None:  # type: ignore[no-untyped-def]
    """Fragments of both IP versions make one datagram, whose IP packet is whole and right."""
    table = Datagrams()
    pieces = [frame(ethernet(piece), number) for number, piece in
              enumerate(make(udp_segment(source, destination, TEXT)), 1)]
    got = [table.take(piece, 14) for piece in reversed(pieces)]
    assert got[:-1] == [None] * (len(pieces) - 1)
    whole = got[-1]
    assert whole is not None
    assert (whole.payload, whole.facts.fragments) == (TEXT, len(pieces))
    assert whole.ip == udp(source, destination, TEXT)
    assert sorted(whole.packets) == [PacketId(number) for number in range(1, len(pieces) + 1)]


def test_missing_fragment() -> None:
    """A datagram whose end is missing shows its beginning, and says so."""
    table = Datagrams()
    first = fragments4(udp_segment(PHONE, PROVIDER, TEXT))[0]
    assert table.take(frame(ethernet(first)), 14) is None
    (got,) = table.rest()
    assert got.facts.incomplete
    assert not got.facts.cut
    assert TEXT.startswith(got.payload)


def test_tunnelled_fragments() -> None:
    """The outer packets of a tunnel may be fragments."""
    table = Datagrams()
    inner = udp(PHONE, PROVIDER, TEXT)
    got = [table.take(frame(ethernet(ip("10.0.0.1", "10.0.0.2", 4, inner[at:at + 800],
                                        fragment=(0x2000 if at == 0 else 0) | at // 8))), 14)
           for at in (0, 800)]
    assert got[1] is not None
    assert got[1].ip == inner


def test_facts() -> None:
    """What is cut, has a wrong checksum, or lengths that differ, is marked."""
    packet = udp(PHONE, PROVIDER, TEXT)
    cut = take(ethernet(packet)[:500])
    assert cut is not None
    assert cut.facts.cut
    assert not cut.facts.checksum_wrong
    wrong = take(ethernet(packet[:-1] + b"?"))
    assert wrong is not None
    assert wrong.facts.checksum_wrong
    longer = take(ethernet(ip(PHONE.host, PROVIDER.host, 17, udp_segment(PHONE, PROVIDER, TEXT) + b"more")))
    assert longer is not None
    assert longer.facts.udp_length_wrong
    assert longer.payload == TEXT


def test_tcp_and_others() -> None:
    """TCP's payload begins with its header; other protocols, and stubs, are none."""
    got = take(ethernet(tcp(PHONE, PROVIDER, 1, b"data")))
    assert got is not None
    assert (got.protocol, got.source, len(got.payload)) == ("tcp", PHONE, 24)
    assert take(ethernet(ip("10.0.0.1", "10.0.0.2", 89, bytes(50)))) is None
    assert take(ethernet(ip("10.0.0.1", "10.0.0.2", 17, b"stub"))) is None


@given(st.binary(max_size=120), st.sampled_from([4, 6, 17, 41, 47, 1, 58]), st.integers(0, 0xFFFF))
def test_any_octets(body: bytes, protocol: int, fragment: int) -> None:
    """No packet makes this raise."""
    table = Datagrams()
    for data in (ip("10.0.0.1", "10.0.0.2", protocol, body, fragment=fragment),
                 ip("2001:db8::1", "2001:db8::2", protocol, body),
                 ip("2001:db8::1", "2001:db8::2", 44, body)):
        table.take(Frame(1, 0.0, 101, data, len(data)), 0)
    assert len(list(table.rest())) <= 2
