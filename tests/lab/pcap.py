"""Read UDP datagrams from a pcap file as tcpdump writes it; the demo's proof needs no tshark."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

ETHERNET = 14       # bytes of header
UDP = 17            # IP protocol number


class Datagram(NamedTuple):
    """One UDP datagram that was captured whole, in one IP packet."""

    time: float         # seconds since 1970
    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes


def datagrams_from_pcap(path: Path) -> list[Datagram]:
    """Return the unfragmented UDP datagrams of *path*; a last record that is cut off ends the list."""
    raw = path.read_bytes()
    order = "<" if raw[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    found, offset = [], 24
    while offset + 16 <= len(raw):
        seconds, micros, size, _ = struct.unpack_from(f"{order}IIII", raw, offset)
        frame = raw[offset + 16:offset + 16 + size]
        offset += 16 + size
        if len(frame) == size and (datagram := _datagram(seconds + micros / 1e6, frame)):
            found.append(datagram)
    return found


def sip_messages(path: Path) -> list[Datagram]:
    """Return the datagrams of *path* that are SIP messages."""
    return [datagram for datagram in datagrams_from_pcap(path)
            if b"SIP/2.0" in datagram.payload.partition(b"\n")[0]]


def _datagram(time: float, frame: bytes) -> Datagram | None:
    packet = frame[ETHERNET:]
    if frame[12:14] != b"\x08\x00" or len(packet) < 28 or packet[9] != UDP:
        return None
    start = (packet[0] & 15) * 4
    if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:     # a fragment
        return None
    sport, dport, length = struct.unpack_from("!HHH", packet, start)
    return Datagram(time, (socket.inet_ntoa(packet[12:16]), sport), (socket.inet_ntoa(packet[16:20]), dport),
                    packet[start + 8:start + length])
