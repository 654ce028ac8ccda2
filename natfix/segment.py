"""IPv4/TCP segments: taken apart into endpoints, numbers and payload, and put together again.

Numbers are those of the wire, 32 bits; :func:`unwrap` makes them comparable. Checksums of what arrives are
the kernel's business; what is written here goes to the network as it is, so both must be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import inet_aton
from struct import Struct
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import SendSegment
from natfix.errors import MalformedPacket
from natfix.packet import (
    DONT_FRAGMENT,
    FRAGMENT,
    IP_HEADER,
    LONGEST,
    OWN_TTL,
    PSEUDO_HEADER,
    checksum,
    endpoint_of,
)

TCP = 6                         # IP protocol number
TCP_HEADER_LENGTH = 20
SHORTEST = 20 + TCP_HEADER_LENGTH
LARGEST_OPTIONS = 40            # bytes

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
ALL_FLAGS = 0x0FFF              # with the four bits that RFC 9293 reserves, one of which is AccECN's

MASK = 0xFFFFFFFF               # sequence numbers and timestamps count modulo 2**32
HALF = 1 << 31

# Kinds of options (IANA, TCP option kind numbers).
END, NOTHING, MSS, SCALE, SACK_PERMITTED, SACK, TIMESTAMPS, MD5, AUTHENTICATION, MULTIPATH = \
    0, 1, 2, 3, 4, 5, 8, 19, 29, 30
SIGNED = frozenset({MD5, AUTHENTICATION, MULTIPATH})    # who changes such a segment breaks the connection
DEFAULT_MSS = 536               # RFC 9293, section 3.7.1
LARGEST_SCALE = 14              # RFC 7323, section 2.3
MOST_SACK_BLOCKS = 4

TCP_HEADER = Struct("!HHIIHHHH")
_STAMPS = bytes((NOTHING, NOTHING, TIMESTAMPS, 10))     # aligned as RFC 7323, appendix A recommends
_STAMPS_LENGTH = 12
_PAIR = Struct("!II")


class Segment(NamedTuple):
    """One whole, unfragmented TCP segment, as it arrived."""

    raw: bytes
    header_length: int          # bytes of IP header, options included
    source: Endpoint
    destination: Endpoint
    sequence: int
    acknowledgement: int
    flags: int                  # FIN to CWR, and the reserved bits above them
    window: int                 # as it stands there, unscaled
    options: bytes
    payload: bytes
    timestamps: tuple[int, int] | None      # TSval, TSecr (RFC 7323)

    @property
    def octets(self) -> int:
        """How far the segment takes the sequence number."""
        return len(self.payload) + (self.flags & FIN) + (self.flags >> 1 & 1)


class Opening(NamedTuple):
    """What a SYN offers by its options."""

    mss: int                    # octets of payload and TCP options that its sender takes
    scale: int | None           # None: not offered (RFC 7323, section 2)
    sack_permitted: bool
    timestamps: bool
    is_signed: bool             # MD5, TCP-AO or Multipath TCP: not to be touched


def segment_from_bytes(raw: bytes) -> Segment:
    """Take an IPv4 packet apart; bytes behind its total length (link-layer padding) are left out.

    Raises MalformedPacket where it is not IPv4 and TCP, is a fragment, arrived cut, or has lengths that
    contradict each other. Options that cannot be read count as none.
    """
    if len(raw) < SHORTEST or raw[0] >> 4 != 4:
        raise MalformedPacket("not an IPv4 packet with a TCP header")
    version_length, _, total, _, fragment, _, protocol, _, source, destination = IP_HEADER.unpack_from(raw)
    header_length = (version_length & 15) * 4
    if protocol != TCP:
        raise MalformedPacket("not TCP")
    if total > len(raw):
        raise MalformedPacket("the packet arrived cut")
    if header_length < 20 or header_length + TCP_HEADER_LENGTH > total:
        raise MalformedPacket("the IP header's lengths contradict each other")
    if fragment & FRAGMENT:
        raise MalformedPacket("a fragment")
    source_port, destination_port, sequence, acknowledgement, offset_flags, window, _, _ = \
        TCP_HEADER.unpack_from(raw, header_length)
    options_start = header_length + TCP_HEADER_LENGTH
    payload_start = header_length + (offset_flags >> 12) * 4
    if payload_start < options_start or payload_start > total:
        raise MalformedPacket("the TCP header's length does not fit the packet")
    options = raw[options_start:payload_start]
    # Segment(...) takes twice as long.
    return tuple.__new__(Segment, (
        raw, header_length, endpoint_of(source, source_port), endpoint_of(destination, destination_port),
        sequence, acknowledgement, offset_flags & ALL_FLAGS, window, options, raw[payload_start:total],
        timestamps_in(options) if options else None,
    ))


def timestamps_in(options: bytes) -> tuple[int, int] | None:
    """Return TSval and TSecr, None where there are none."""
    if options.startswith(_STAMPS) and len(options) >= _STAMPS_LENGTH:
        return _pair(options, 4)
    value = options_by_kind(options).get(TIMESTAMPS, b"")
    return _pair(value, 0) if len(value) == 8 else None


def _pair(data: bytes, at: int) -> tuple[int, int]:
    first, second = _PAIR.unpack_from(data, at)
    return first, second


def options_by_kind(options: bytes) -> dict[int, bytes]:
    """Return the options' values by kind, as far as they can be read; the last of a kind counts."""
    found = {}
    at = 0
    while at < len(options) and (kind := options[at]) != END:
        if kind == NOTHING:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            break
        found[kind] = options[at + 2:at + length]
        at += length
    return found


def opening_of(segment: Segment) -> Opening:
    """Return what a SYN, or SYN and ACK, offers."""
    options = options_by_kind(segment.options)
    mss, scale = options.get(MSS, b""), options.get(SCALE, b"")
    return Opening(
        int.from_bytes(mss) if len(mss) == 2 else DEFAULT_MSS,
        min(scale[0], LARGEST_SCALE) if len(scale) == 1 else None,
        SACK_PERMITTED in options,
        len(options.get(TIMESTAMPS, b"")) == 8,
        not SIGNED.isdisjoint(options),
    )


def options_bytes(
    timestamps: tuple[int, int] | None, blocks: Sequence[tuple[int, int]] = ()
) -> bytes:
    """Return the options of a segment: timestamps, and as many SACK blocks (RFC 2018) as there is room for.

    *blocks* are pairs of the first number and the one behind the last, the most interesting first.
    """
    written = b"" if timestamps is None else _STAMPS + _PAIR.pack(*timestamps)
    if not blocks:
        return written
    room = min(MOST_SACK_BLOCKS, (LARGEST_OPTIONS - len(written) - 4) // 8)
    shown = blocks[:room]
    return b"".join((
        written, bytes((NOTHING, NOTHING, SACK, 2 + 8 * len(shown))),
        *(_PAIR.pack(start & MASK, end & MASK) for start, end in shown)))


def unwrap(number: int, near: int) -> int:
    """Return the position whose lowest 32 bits are *number* and that is nearest to the position *near*."""
    return near + ((number - near + HALF) & MASK) - HALF


def rebuild(
    carrier: Segment, sequence: int, acknowledgement: int, flags: int, window: int, options: bytes,
    payload: bytes, identification: int,
) -> bytes:
    """Return *carrier* with another TCP header and payload; IP header and IP options are kept.

    Numbers may be positions: their lowest 32 bits are written. Nothing is urgent any more, since the urgent
    pointer's octet may stand elsewhere now (RFC 6093 advises against its use). A packet that grew may be
    fragmented, and is given *identification* (1 to 65535) for that (as in :func:`natfix.packet.rebuild`).
    Raises MalformedPacket where the result would be longer than an IPv4 packet can be.
    """
    raw, size = carrier.raw, carrier.header_length
    length = TCP_HEADER_LENGTH + len(options) + len(payload)
    if size + length > LONGEST:
        raise MalformedPacket("with its new payload the packet would be longer than 65,535 bytes")
    first, service, total, old_identification, fragment, ttl, _, _, source, destination = \
        IP_HEADER.unpack_from(raw)
    if fragment & DONT_FRAGMENT and size + length > total:
        fragment &= ~DONT_FRAGMENT
        old_identification = identification
    fields = (first, service, size + length, old_identification, fragment, ttl, TCP)
    ip_options = raw[20:size]
    ip_checksum = checksum(IP_HEADER.pack(*fields, 0, source, destination) + ip_options)
    return b"".join((
        IP_HEADER.pack(*fields, ip_checksum, source, destination), ip_options,
        _tcp(source, destination, carrier.source.port, carrier.destination.port, sequence, acknowledgement,
             flags & ~URG, window, options, payload),
    ))


def datagram(segment: SendSegment) -> bytes:
    """Return a packet of natfix's own; the kernel fills in identification and header checksum (raw(7))."""
    source, destination = inet_aton(segment.source.host), inet_aton(segment.destination.host)
    total = SHORTEST + len(segment.options) + len(segment.payload)
    return IP_HEADER.pack(0x45, 0, total, 0, 0, OWN_TTL, TCP, 0, source, destination) + _tcp(
        source, destination, segment.source.port, segment.destination.port, segment.sequence,
        segment.acknowledgement, segment.flags, segment.window, segment.options, segment.payload)


def reset_for(segment: Segment, source: Endpoint) -> SendSegment:
    """Return the RST that ends the connection for *segment*'s sender (RFC 9293, section 3.10.7.1).

    *source* is the address that its receiver has beyond NAT on the sender's side.
    """
    if segment.flags & ACK:
        return SendSegment(source, segment.source, segment.acknowledgement, 0, RST, 0, b"", b"")
    behind = (segment.sequence + segment.octets) & MASK
    return SendSegment(source, segment.source, 0, behind, RST | ACK, 0, b"", b"")


def _tcp(
    source: bytes, destination: bytes, source_port: int, destination_port: int, sequence: int,
    acknowledgement: int, flags: int, window: int, options: bytes, payload: bytes,
) -> bytes:
    """Return TCP header, options and payload with a right checksum."""
    header_length = TCP_HEADER_LENGTH + len(options)
    fields = (source_port, destination_port, sequence & MASK, acknowledgement & MASK,
              header_length << 10 | flags, window)
    rest = options + payload
    pseudo = PSEUDO_HEADER.pack(source, destination, TCP, header_length + len(payload))
    return TCP_HEADER.pack(*fields, checksum(pseudo + TCP_HEADER.pack(*fields, 0, 0) + rest), 0) + rest
