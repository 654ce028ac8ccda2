"""HEPv3 datagrams, and a listener of somebody else's that reads them."""

from __future__ import annotations

from struct import unpack_from

from natfix.address import Endpoint
from natfix.hep import LONGEST, datagram

SOURCE, DESTINATION = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.20", 5062)
MESSAGE = b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"


def chunks(packet: bytes) -> dict[int, bytes]:
    """Take a datagram apart as the specification says."""
    assert packet[:4] == b"HEP3"
    assert unpack_from("!H", packet, 4)[0] == len(packet)
    found, at = {}, 6
    while at < len(packet):
        vendor, kind, length = unpack_from("!HHH", packet, at)
        assert vendor == 0
        found[kind] = packet[at + 6:at + length]
        at += length
    assert at == len(packet)
    return found


def test_every_chunk_says_what_it_should() -> None:
    """Addresses, ports, time, kind, agent, correlation and message are where a listener looks for them."""
    found = chunks(datagram(MESSAGE, 6, SOURCE, DESTINATION, 1700000000.25, 77, "call-1"))
    assert found == {
        1: b"\x02", 2: b"\x06", 3: bytes((192, 168, 1, 10)), 4: bytes((198, 51, 100, 20)),
        7: (5060).to_bytes(2), 8: (5062).to_bytes(2), 9: (1700000000).to_bytes(4), 10: (250000).to_bytes(4),
        11: b"\x01", 12: (77).to_bytes(4), 0x11: b"call-1", 0x0F: MESSAGE,
    }


def test_what_is_too_long_is_cut() -> None:
    """A message that fits no datagram loses its end, and the lengths stay true."""
    packet = datagram(b"x" * 70000, 17, SOURCE, DESTINATION, 0.0, 0, "c" * 1000)
    assert len(packet) == LONGEST
    assert len(chunks(packet)[0x11]) == 255
