"""IP headers, and what of tunnels stands between two of them, by offsets into the captured octets."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.replay.link import TYPE_IPV4, TYPE_IPV6, ethernet, ppp

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
IP_IN_IP, IPV6_IN_IP, GRE = 4, 41, 47
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
MOST_EXTENSIONS = 8
VXLAN_PORT, TZSP_PORT = 4789, 37008     # RFC 7348; TZSP as MikroTik streams it

DONT_FRAGMENT, MORE, OFFSET = 0x4000, 0x2000, 0x1FFF
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_IPV6_FRAGMENT = Struct("!BxHI")
_U16 = Struct("!H")


@lru_cache(maxsize=8192)
def host_of(packed: bytes) -> str:
    """Return an address of 4 or 16 octets as text."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def packed_host(host: bytes) -> bytes:
    """Return an address as 4 or 16 octets; b"" for what is none."""
    try:
        return inet_pton(AF_INET6 if b":" in host else AF_INET, host.decode("ascii"))
    except (OSError, ValueError):
        return b""


@lru_cache(maxsize=8192)
def packed_endpoint(endpoint: Endpoint) -> bytes:
    """Return an endpoint as it stands in packets, address and port; b"" where its host is no address."""
    host = packed_host(endpoint.host.encode("latin-1", "replace"))
    return host + _U16.pack(endpoint.port) if host else b""


def packed_ends(source: Endpoint, destination: Endpoint) -> bytes:
    """Return two endpoints as they stand in packets, addresses first; b"" where one is no address."""
    one, other = packed_endpoint(source), packed_endpoint(destination)
    return one[:-2] + other[:-2] + one[-2:] + other[-2:] if one and len(one) == len(other) else b""


class Header(NamedTuple):
    """An IP header; offsets are into the octets that it was read from."""

    start: int
    payload: int            # where it ends: behind options, or extension headers
    end: int                # of the packet, by its own length; may be more than was captured
    protocol: int
    source: bytes
    destination: bytes
    ttl: int
    identification: int
    dont_fragment: bool
    offset: int             # of this fragment, octets
    has_more: bool          # fragments behind it

    @property
    def is_fragment(self) -> bool:
        return self.has_more or self.offset > 0


def header_at(data: bytes, at: int) -> Header | None:
    """Read the IP header at *at*; None where there is none, or its lengths contradict each other."""
    if at < 0 or len(data) <= at:
        return None
    version = data[at] >> 4
    if version == 4:
        return _ipv4(data, at)
    return _ipv6(data, at) if version == 6 else None


def _ipv4(data: bytes, at: int) -> Header | None:
    if len(data) < at + 20:
        return None
    first, _, total, identification, fragment, ttl, protocol, _, source, destination = \
        _IPV4.unpack_from(data, at)
    payload = at + (first & 15) * 4
    # Segmentation offload leaves 0 where the length does not fit.
    end = at + total if total else len(data)
    if payload < at + 20 or end < payload:
        return None
    return Header(at, payload, end, protocol, source, destination, ttl, identification,
                  bool(fragment & DONT_FRAGMENT), (fragment & OFFSET) * 8, bool(fragment & MORE))


def _ipv6(data: bytes, at: int) -> Header | None:
    if len(data) < at + 40:
        return None
    _, length, protocol, ttl, source, destination = _IPV6.unpack_from(data, at)
    payload = at + 40
    end = payload + length if length else len(data)
    identification = offset = 0
    has_more = False
    for _ in range(MOST_EXTENSIONS):
        if protocol not in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS) or offset:
            break
        if len(data) < payload + 8:
            return None
        if protocol == FRAGMENT:
            protocol, fragment, identification = _IPV6_FRAGMENT.unpack_from(data, payload)
            offset, has_more = fragment & ~7, bool(fragment & 1)
            payload += 8
            if has_more or offset:
                break
        else:
            size = (data[payload + 1] + 2) * 4 if protocol == AUTHENTICATION else data[payload + 1] * 8 + 8
            protocol, payload = data[payload], payload + size
    if end < payload:
        return None
    return Header(at, payload, end, protocol, source, destination, ttl, identification & 0xFFFF, False,
                  offset, has_more)


def head_of(data: bytes, header: Header) -> bytes:
    """Return the header alone; of IPv6 without extension headers, the fragment header among them."""
    if data[header.start] >> 4 == 4:
        return data[header.start:header.payload]
    return data[header.start:header.start + 6] + bytes((header.protocol,)) + \
        data[header.start + 7:header.start + 40]


def whole_packet(head: bytes, body: bytes) -> bytes:
    """Return the packet that has *head* of its first fragment and *body*: lengths and checksum are right."""
    if head[0] >> 4 == 6:
        return head[:4] + _U16.pack(len(body)) + head[6:] + body
    total = min(len(head) + len(body), 0xFFFF)
    bare = head[:2] + _U16.pack(total) + head[4:6] + bytes(2) + head[8:10] + bytes(2) + head[12:]
    return bare[:10] + _U16.pack(0xFFFF - sum16(bare)) + bare[12:] + body


def sum16(data: bytes) -> int:
    """Return the ones' complement sum of 16-bit words (RFC 1071); 0 stands for 0xFFFF, too."""
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) & 1 else number) % 0xFFFF


def is_checksum_wrong(data: bytes, header: Header, end: int) -> bool:
    """Tell whether a UDP checksum is wrong on the wire.

    Zero is none at all. The sum over the pseudo header alone is what the network card had still to
    finish when the packet was captured on its way out.
    """
    start = header.payload
    (checksum,) = _U16.unpack_from(data, start + 6)
    if checksum == 0:
        return False
    pseudo = header.source + header.destination + bytes((0, UDP)) + data[start + 4:start + 6]
    return sum16(pseudo + bytes(len(pseudo) & 1) + data[start:end]) != 0 \
        and checksum % 0xFFFF != sum16(pseudo)


def _behind_gre(data: bytes, at: int) -> int:
    """Return where the IP header in a GRE packet (RFC 2784, RFC 2890, ERSPAN) begins; -1 for none."""
    if len(data) < at + 4 or data[at + 1] & 7 > 1:
        return -1
    flags, kind = data[at], data[at + 2:at + 4]
    has_sequence = bool(flags & 0x10)
    size = 4 + 4 * sum(map(bool, (flags & 0xC0, flags & 0x20, has_sequence, data[at + 1] & 0x80)))
    at += size
    if kind in (TYPE_IPV4, TYPE_IPV6):
        return at
    if kind == b"\x88\x0b":                         # PPTP (RFC 2637)
        return ppp(data, at)
    if kind == b"\x65\x58":                         # transparent Ethernet bridging
        return ethernet(data, at)
    if kind == b"\x88\xbe":                         # ERSPAN, type II where there is a sequence number, else I
        return ethernet(data, at + 8 * has_sequence)
    if kind == b"\x22\xeb" and len(data) >= at + 12:      # ERSPAN, type III
        return ethernet(data, at + (20 if data[at + 11] & 1 else 12))
    return -1


# Where the inner IP header begins, by protocol number, from where the outer one ends.
TUNNELS: dict[int, Callable[[bytes, int], int]] = {
    IP_IN_IP: lambda data, at: at,
    IPV6_IN_IP: lambda data, at: at,
    GRE: _behind_gre,
}


def _behind_vxlan(data: bytes, at: int) -> int:
    return ethernet(data, at + 8) if data[at:at + 1] == b"\x08" and data[at + 7:at + 8] == b"\0" else -1


def _behind_tzsp(data: bytes, at: int) -> int:
    """Return where the IP header begins behind a TZSP header and its tags; -1 where it is none."""
    if data[at:at + 1] != b"\x01" or data[at + 2:at + 4] != b"\0\x01":      # version 1, Ethernet
        return -1
    at += 4
    for _ in range(32):
        tag = data[at:at + 2]
        if tag[:1] == b"\x01":
            return ethernet(data, at + 1)
        if len(tag) < 2:
            return -1
        at += 1 if tag[0] == 0 else 2 + tag[1]
    return -1


# The same for tunnels over UDP, by destination port as it stands in the header, from the UDP payload on.
UDP_TUNNELS: dict[bytes, Callable[[bytes, int], int]] = {
    _U16.pack(VXLAN_PORT): _behind_vxlan,
    _U16.pack(TZSP_PORT): _behind_tzsp,
}
