"""Stands on NFQUEUE 7 and says of each UDP packet whether its checksum is right; --spoil makes it wrong."""

from __future__ import annotations

import struct
import sys
from typing import Any

from netfilterqueue import NetfilterQueue


def checksum_is_right(packet: bytes) -> bool:
    """Tell whether the UDP checksum of an IPv4 *packet* sums up (RFC 768)."""
    datagram = packet[(packet[0] & 15) * 4:]
    data = packet[12:20] + struct.pack("!BBH", 0, 17, len(datagram)) + datagram
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def judge(packet: Any) -> None:
    """Say "right" or "wrong", and let the packet go."""
    raw = packet.get_payload()
    print("right" if checksum_is_right(raw) else "wrong", flush=True)
    if "--spoil" in sys.argv:
        packet.set_payload(raw[:-1] + bytes([raw[-1] ^ 1]))
    packet.accept()


if __name__ == "__main__":
    queue = NetfilterQueue()
    queue.bind(7, judge)
    print("bound", flush=True)
    queue.run()
