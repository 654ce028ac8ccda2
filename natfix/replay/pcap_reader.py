"""Read pcap files: both octet orders, microseconds and nanoseconds.

scapy's RawPcapReader is not used: it ends silently where a file is cut, and importing scapy takes longer
than reading most captures.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from natfix.replay.counts import Counts
from natfix.replay.link import NAMES, PLACES
from natfix.replay.model import Frame
from natfix.replay.source import Source, Unreadable

HEADER = 24                     # octets
LONGEST = 1 << 18               # octets of a record: libpcap's MAXIMUM_SNAPLEN
MICRO, NANO = 1e-6, 1e-9

# By the file's first four octets: octet order, seconds of the fraction's unit, octets of a record's header.
MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", MICRO, 16),
    b"\xd4\xc3\xb2\xa1": ("<", MICRO, 16),
    b"\xa1\xb2\x3c\x4d": (">", NANO, 16),
    b"\x4d\x3c\xb2\xa1": ("<", NANO, 16),
    b"\xa1\xb2\xcd\x34": (">", MICRO, 24),      # Alexey Kuznetsov's, of old Linux distributions
    b"\x34\xcd\xb2\xa1": ("<", MICRO, 24),
}


def is_pcap(start: bytes) -> bool:
    """Tell whether a file that starts so is a pcap file."""
    return start[:4] in MAGICS


def frames(source: Source, counts: Counts, label: str = "") -> Iterator[Frame]:
    """Yield the records of a pcap file; where it is cut or corrupt, ``counts`` says so. Raises Unreadable."""
    start = source.peek(HEADER)
    if len(start) < HEADER:
        raise Unreadable(f"{source.path}: a pcap file that ends within its header.")
    order, unit, size = MAGICS[start[:4]]
    link = Struct(f"{order}I").unpack_from(start, 20)[0] & 0x0FFFFFFF      # above it: FCS length
    counts.links.add(NAMES.get(link, f"link type {link}"))
    place = PLACES.get(link)
    unpack = Struct(f"{order}IIII").unpack_from
    interface, outgoing, new = "", None, tuple.__new__
    buffer, at, number = source.read(), HEADER, 0
    while True:
        if len(buffer) - at < size:
            buffer, at = filled(source, buffer, at, size), 0
            if len(buffer) < size:
                counts.finish(source, len(buffer), number)
                return
        seconds, fraction, captured, length = unpack(buffer, at)
        if captured > LONGEST:
            counts.stop(f"record {number + 1} claims to have {captured:,} octets")
            return
        at += size
        end = at + captured
        if len(buffer) < end:
            buffer, at, end = filled(source, buffer, at, captured), 0, captured
            if len(buffer) < end:
                counts.finish(source, len(buffer) + size, number)
                return
        data = buffer[at:end]
        at = end
        number += 1
        if place is not None:
            interface, outgoing = place(data)
            if interface and interface not in counts.interfaces:
                counts.note_interface(interface)
        yield new(Frame, (number, seconds + fraction * unit, link, data, length, interface, label, outgoing,
                          label, ""))


def filled(source: Source, buffer: bytes, at: int, size: int) -> bytes:
    """Return what is left of *buffer* from *at*, and more: at least *size* octets where there are so many."""
    pieces = [buffer[at:]]
    have = len(pieces[0])
    while have < size:
        piece = source.read()
        if not piece:
            break
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)
