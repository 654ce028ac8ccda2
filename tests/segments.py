"""IPv4/TCP packets for tests, made and read without any code of natfix's."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from natfix.address import Endpoint
from tests.datagram import DONT_FRAGMENT, IP_HEADER, internet_checksum

TCP_HEADER = struct.Struct("!HHIIHHHH")


class Wire(NamedTuple):
    """One TCP segment and the fields of its IP header that natfix may have to change."""

    source: Endpoint
    destination: Endpoint
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    options: bytes = b""
    payload: bytes = b""
    identification: int = 0
    fragment: int = DONT_FRAGMENT
    urgent: int = 0


def segment_bytes(wire: Wire) -> bytes:
    """Return the IPv4 packet, with right checksums."""
    assert len(wire.options) % 4 == 0
    source, destination = (socket.inet_aton(end.host) for end in wire[:2])
    length = TCP_HEADER.size + len(wire.options) + len(wire.payload)
    fields = (wire.source.port, wire.destination.port, wire.sequence, wire.acknowledgement,
              (5 + len(wire.options) // 4) << 12 | wire.flags, wire.window)
    rest = wire.options + wire.payload
    pseudo = source + destination + struct.pack("!HH", socket.IPPROTO_TCP, length)
    checksum = internet_checksum(pseudo + TCP_HEADER.pack(*fields, 0, wire.urgent) + rest)
    ip_fields = (0x45, 0, IP_HEADER.size + length, wire.identification, wire.fragment, 64, socket.IPPROTO_TCP)
    ip_checksum = internet_checksum(IP_HEADER.pack(*ip_fields, 0, source, destination))
    return IP_HEADER.pack(*ip_fields, ip_checksum, source, destination) \
        + TCP_HEADER.pack(*fields, checksum, wire.urgent) + rest


def read_segment(raw: bytes, own: bool = False) -> Wire:
    """Return what an IPv4 packet holds; AssertionError where a length or a checksum is wrong.

    Of natfix's *own* packets the kernel makes the IP header's checksum.
    """
    header_length = 4 * (raw[0] & 15)
    _, _, total, identification, fragment, _, protocol, _, source, destination = IP_HEADER.unpack_from(raw)
    assert protocol == socket.IPPROTO_TCP
    assert total == len(raw), f"IP length {total}, {len(raw)} bytes"
    assert own or internet_checksum(raw[:header_length]) == 0, "IP checksum"
    source_port, destination_port, sequence, acknowledgement, offset_flags, window, _, urgent = \
        TCP_HEADER.unpack_from(raw, header_length)
    pseudo = source + destination + struct.pack("!HH", protocol, total - header_length)
    assert internet_checksum(pseudo + raw[header_length:]) == 0, "TCP checksum"
    options, payload = header_length + TCP_HEADER.size, header_length + (offset_flags >> 12) * 4
    assert options <= payload <= total, "TCP header length"
    return Wire(
        Endpoint(socket.inet_ntoa(source), source_port),
        Endpoint(socket.inet_ntoa(destination), destination_port),
        sequence, acknowledgement, offset_flags & 0xFFF, window, raw[options:payload], raw[payload:],
        identification, fragment, urgent,
    )
