"""Packets and capture files by hand, for the tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from natfix.address import Endpoint
from natfix.replay.ip import packed_host, sum16
from natfix.replay.model import Frame

PHONE = Endpoint("192.168.1.10", 5060)
PROVIDER = Endpoint("198.51.100.20", 5060)
PHONE6 = Endpoint("2001:db8::10", 5060)
PROVIDER6 = Endpoint("2001:db8:1::20", 5060)
RTP_PHONE = Endpoint("192.168.1.10", 4000)
RTP_PROVIDER = Endpoint("198.51.100.20", 6000)
START = 1_700_000_000


def ip(source: str, destination: str, protocol: int, body: bytes, identification: int = 7, fragment: int = 0,
       ttl: int = 64, options: bytes = b"") -> bytes:
    """Return an IPv4 or IPv6 packet; *fragment* is IPv4's field of flags and offset."""
    one, other = packed_host(source.encode()), packed_host(destination.encode())
    if len(one) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + one + other + body
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(body), identification, fragment, ttl,
                       protocol, 0) + one + other + options
    return head[:10] + struct.pack("!H", 0xFFFF - sum16(head)) + head[12:] + body


def udp_segment(source: Endpoint, destination: Endpoint, payload: bytes, length: int = 0) -> bytes:
    """Return a UDP header and payload, checksum right."""
    length = length or 8 + len(payload)
    bare = struct.pack("!HHHH", source.port, destination.port, length, 0) + payload
    ends = packed_host(source.host.encode()) + packed_host(destination.host.encode())
    total = sum16(ends + struct.pack("!HH", 17, length) + bare + bytes(len(bare) & 1))
    return bare[:6] + struct.pack("!H", (0xFFFF - total) or 0xFFFF) + payload


def udp(source: Endpoint, destination: Endpoint, payload: bytes, **fields: int) -> bytes:
    """Return an IP packet with UDP."""
    return ip(source.host, destination.host, 17, udp_segment(source, destination, payload), **fields)  # type: ignore[arg-type]


def tcp(source: Endpoint, destination: Endpoint, sequence: int, payload: bytes = b"",
        flags: int = 16) -> bytes:
    """Return an IP packet with a TCP segment."""
    ports = source.port, destination.port
    head = struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, 0, 0x50, flags, 9999, 0, 0)
    return ip(source.host, destination.host, 6, head + payload)


def ethernet(packet: bytes, tags: bytes = b"") -> bytes:
    """Return an Ethernet frame; *tags* stand before the EtherType."""
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return bytes(range(12)) + tags + kind + packet


def frame(data: bytes, number: int = 1, time: float = START, link: int = 1, **fields: object) -> Frame:
    """Return a captured frame."""
    return Frame(number, time, link, data, len(data), **fields)  # type: ignore[arg-type]


def pcap(packets: Iterable[bytes], link: int = 1, order: str = "<", magic: int = 0xA1B2C3D4,
         step: float = 0.02) -> bytes:
    """Return a pcap file; packets come every *step* seconds."""
    unit = 10**9 if magic == 0xA1B23C4D else 10**6
    records = (
        struct.pack(f"{order}IIII", START + int(number * step), round(number * step % 1 * unit), len(data),
                    len(data)) + data
        for number, data in enumerate(packets))
    return b"".join(chain((struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link),), records))


def written(folder: Path, data: bytes, name: str = "capture") -> str:
    """Write a file and return its name."""
    path = folder / name
    path.write_bytes(data)
    return str(path)


def rtp(sequence: int, ssrc: int = 0x1234, size: int = 160, payload_type: int = 0) -> bytes:
    """Return an RTP packet."""
    return struct.pack("!BBHII", 0x80, payload_type, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc) \
        + bytes(size)


