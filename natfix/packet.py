"""IPv4/UDP datagrams: taken apart into endpoints and payload, and put together again.

What a verdict hands back to the kernel is not checksummed there: both checksums must be right here.
"""

from __future__ import annotations

from functools import lru_cache
from socket import inet_aton, inet_ntoa
from struct import Struct
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import MalformedPacket

UDP = 17                        # IP protocol number
UDP_HEADER_LENGTH = 8
SHORTEST = 20 + UDP_HEADER_LENGTH
LONGEST = 0xFFFF                # bytes; RFC 791, section 3.1, total length

OWN_TTL = 64

DONT_FRAGMENT = 0x4000
FRAGMENT = 0x3FFF               # more fragments, and the fragment offset

IP_HEADER = Struct("!BBHHHBBH4s4s")
UDP_HEADER = Struct("!HHHH")
PSEUDO_HEADER = Struct("!4s4sHH")   # RFC 768; the length follows the protocol
UDP_START = Struct("!HHH")


@lru_cache(maxsize=8192)
def endpoint_of(address: bytes, port: int) -> Endpoint:
    """Return the same object for the same endpoint: tables keep them by the ten thousand."""
    return Endpoint(_host(address), port)


_host = lru_cache(maxsize=4096)(inet_ntoa)


class Path(NamedTuple):
    """Where the kernel handed a packet over."""

    hook: str = "forward"       # "forward", "input", "output"
    in_interface: str = ""
    out_interface: str = ""
    mark: int = 0


class Packet(NamedTuple):
    """One whole, unfragmented UDP datagram, as it arrived."""

    raw: bytes
    header_length: int          # bytes of IP header, options included
    source: Endpoint
    destination: Endpoint
    payload: bytes


def packet_from_bytes(raw: bytes) -> Packet:
    """Take an IPv4 packet apart; bytes behind its total length (link-layer padding) are left out.

    Raises MalformedPacket where it is not IPv4 and UDP, is a fragment, arrived cut, or has lengths that
    contradict each other.
    """
    if len(raw) < SHORTEST or raw[0] >> 4 != 4:
        raise MalformedPacket("not an IPv4 packet with a UDP header")
    version_length, _, total, _, fragment, _, protocol, _, source, destination = IP_HEADER.unpack_from(raw)
    header_length = (version_length & 15) * 4
    payload_start = header_length + UDP_HEADER_LENGTH
    if protocol != UDP:
        raise MalformedPacket("not UDP")
    if total > len(raw):
        raise MalformedPacket("the packet arrived cut")
    if header_length < 20 or payload_start > total:
        raise MalformedPacket("the IP header's lengths contradict each other")
    if fragment & FRAGMENT:
        raise MalformedPacket("a fragment")
    source_port, destination_port, length = UDP_START.unpack_from(raw, header_length)
    if length < UDP_HEADER_LENGTH or header_length + length > total:
        raise MalformedPacket("the UDP length does not fit the packet")
    return Packet(
        raw,
        header_length,
        endpoint_of(source, source_port),
        endpoint_of(destination, destination_port),
        raw[payload_start:header_length + length],
    )


def rebuild(packet: Packet, payload: bytes, identification: int) -> bytes:
    """Return *packet* with another payload: lengths and checksums made right, IP options kept.

    A packet that grew may exceed an MTU that its sender obeyed, so it loses "don't fragment". Linux
    gives such packets the identification 0, which would mix up the fragments of several (RFC 6864,
    section 4): it is replaced by *identification* (1 to 65535, another one each time).
    Raises MalformedPacket where the result would be longer than an IPv4 packet can be.
    """
    raw, size = packet.raw, packet.header_length
    length = UDP_HEADER_LENGTH + len(payload)
    if size + length > LONGEST:
        raise MalformedPacket("with its new payload the packet would be longer than 65,535 bytes")
    first, service, _, old_identification, fragment, ttl, _, _, source, destination = \
        IP_HEADER.unpack_from(raw)
    if fragment & DONT_FRAGMENT and len(payload) > len(packet.payload):
        fragment &= ~DONT_FRAGMENT
        old_identification = identification
    fields = (first, service, size + length, old_identification, fragment, ttl, UDP)
    options = raw[20:size]
    ip_checksum = checksum(IP_HEADER.pack(*fields, 0, source, destination) + options)
    source_port, destination_port = packet.source.port, packet.destination.port
    bare = UDP_HEADER.pack(source_port, destination_port, length, 0) + payload
    udp_checksum = checksum(PSEUDO_HEADER.pack(source, destination, UDP, length) + bare)
    return b"".join((
        IP_HEADER.pack(*fields, ip_checksum, source, destination),
        options,
        UDP_HEADER.pack(source_port, destination_port, length, udp_checksum or 0xFFFF),     # RFC 768
        payload,
    ))


def datagram(source: Endpoint, destination: Endpoint, payload: bytes) -> bytes:
    """Return a packet of natfix's own; the kernel fills in identification and header checksum (raw(7))."""
    length = UDP_HEADER_LENGTH + len(payload)
    addresses = inet_aton(source.host), inet_aton(destination.host)
    bare = UDP_HEADER.pack(source.port, destination.port, length, 0) + payload
    udp_checksum = checksum(PSEUDO_HEADER.pack(*addresses, UDP, length) + bare)
    return b"".join((
        IP_HEADER.pack(0x45, 0, 20 + length, 0, 0, OWN_TTL, UDP, 0, *addresses),
        UDP_HEADER.pack(source.port, destination.port, length, udp_checksum or 0xFFFF), payload,
    ))


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data* (RFC 1071), which must not be all zeros.

    The ones' complement sum of 16-bit words is the number that the bytes make, modulo 65535.
    """
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return 0xFFFF - (number % 0xFFFF or 0xFFFF)
