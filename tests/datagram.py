"""IPv4/UDP packets for tests, made and read without any code of natfix's."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from natfix.address import Endpoint

DONT_FRAGMENT = 0x4000
IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
UDP_HEADER = struct.Struct("!HHHH")


class Datagram(NamedTuple):
    """One UDP datagram and the fields of its IP header that natfix may have to change."""

    source: Endpoint
    destination: Endpoint
    payload: bytes
    identification: int = 0
    flags: int = DONT_FRAGMENT      # flags and fragment offset


def packet_bytes(datagram: Datagram) -> bytes:
    """Return the IPv4 packet, with right checksums."""
    source, destination = (socket.inet_aton(end.host) for end in datagram[:2])
    length = UDP_HEADER.size + len(datagram.payload)
    ports = datagram.source.port, datagram.destination.port
    pseudo = source + destination + struct.pack("!HH", socket.IPPROTO_UDP, length)
    bare = UDP_HEADER.pack(*ports, length, 0) + datagram.payload
    udp = UDP_HEADER.pack(*ports, length, internet_checksum(pseudo + bare) or 0xFFFF) + datagram.payload
    fields = (0x45, 0, IP_HEADER.size + length, datagram.identification, datagram.flags, 64, 17)
    checksum = internet_checksum(IP_HEADER.pack(*fields, 0, source, destination))
    return IP_HEADER.pack(*fields, checksum, source, destination) + udp


def read_packet(raw: bytes) -> Datagram:
    """Return what an IPv4 packet holds; AssertionError where a length or a checksum is wrong."""
    header_length = 4 * (raw[0] & 15)
    _, _, length, identification, flags, _, _, _, source, destination = IP_HEADER.unpack_from(raw)
    assert length == len(raw), f"IP length {length}, {len(raw)} bytes"
    assert internet_checksum(raw[:header_length]) == 0, "IP checksum"
    source_port, destination_port, udp_length, checksum = UDP_HEADER.unpack_from(raw, header_length)
    assert udp_length == len(raw) - header_length, f"UDP length {udp_length}"
    pseudo = source + destination + struct.pack("!HH", socket.IPPROTO_UDP, udp_length)
    assert checksum == 0 or internet_checksum(pseudo + raw[header_length:]) == 0, "UDP checksum"
    return Datagram(
        Endpoint(socket.inet_ntoa(source), source_port),
        Endpoint(socket.inet_ntoa(destination), destination_port),
        raw[header_length + UDP_HEADER.size:], identification, flags,
    )


def internet_checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that holds its own right checksum."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
