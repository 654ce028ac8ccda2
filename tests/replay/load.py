"""A capture of any size, to measure natfix-replay with: `python -m tests.replay.load CALLS FILE [RTP]`.

Phones behind a plain NAT register and call through a provider, each call in seven messages, with RTP
packets in between where that is asked for. The capture is taken inside, on Ethernet.
"""

from __future__ import annotations

import heapq
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from natfix.address import Endpoint
from natfix.replay.gateway import datagram_bytes
from tests.replay.sip import PROVIDER, TO, audio, request, response

PHONES = 200
EVERY = 0.25            # seconds between two calls
TALK = 30.0             # seconds
START = 1_700_000_000.0
NAT = "203.0.113.1"
ETHERNET = b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0"

Packet = tuple[float, Endpoint, Endpoint, bytes]
EXTRA = (
    "Max-Forwards: 70", "User-Agent: Test phone 1.0 with a name as long as they are",
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, INFO", "Supported: replaces, timer, 100rel")


def call_packets(number: int, rtp: int = 0) -> Iterator[Packet]:
    """Yield the packets of one call, in order."""
    phone = Endpoint(f"192.168.{1 + number % PHONES // 100}.{10 + number % 100}", 5060)
    seen_as = Endpoint(NAT, 20000 + number % PHONES)
    media = Endpoint(phone.host, 10000 + number * 4 % 20000)
    far = Endpoint("198.51.100.21", 20000 + number * 4 % 40000)
    start, branch = START + number * EVERY, f"z9hG4bK{number}"
    call_id, tagged = f"{number}@{phone.host}", TO + f";tag=b{number}"
    ask: dict[str, Any] = {"via": phone, "contact": phone, "call_id": call_id, "headers": EXTRA}
    answer: dict[str, Any] = {"via": phone, "call_id": call_id, "branch": branch, "seen_as": seen_as,
                              "to": tagged, "headers": EXTRA}
    yield start, phone, PROVIDER, request(branch=branch, sdp=audio(media), **ask)
    yield start + 0.02, PROVIDER, phone, response(100, **{**answer, "to": TO})
    yield start + 0.3, PROVIDER, phone, response(180, **answer)
    contact: dict[str, Any] = {"contact": f"sip:bob@{PROVIDER}", "sdp": audio(far)}
    yield start + 2, PROVIDER, phone, response(200, **answer, **contact)
    yield start + 2.01, phone, PROVIDER, request("ACK", branch=branch + "a", to=tagged, **ask)
    for place in range(rtp):
        head = struct.pack("!BBHII", 0x80, 0, place & 0xFFFF, place * 160 & 0xFFFFFFFF, number)
        ends = (media, far) if place % 2 else (far, media)
        yield start + 2.02 + place * (TALK - 3) / rtp, *ends, head + bytes(160)
    yield start + TALK, phone, PROVIDER, request(
        "BYE", branch=branch + "b", cseq=2, to=tagged, **ask)
    yield start + TALK + 0.03, PROVIDER, phone, response(
        method="BYE", **{**answer, "branch": branch + "b"}, cseq=2)


def packets(calls: int, rtp: int = 0) -> Iterator[Packet]:
    """Yield the packets of so many calls in the order of time, without holding more than run at once."""
    running: list[tuple[float, int, Packet, Iterator[Packet]]] = []
    for number in range(calls):
        flow = call_packets(number, rtp)
        first = next(flow)
        while running and running[0][0] <= first[0]:
            yield from _step(running)
        heapq.heappush(running, (first[0], number, first, flow))
    while running:
        yield from _step(running)


def _step(running: list[tuple[float, int, Packet, Iterator[Packet]]]) -> Iterator[Packet]:
    _, number, packet, flow = running[0]
    yield packet
    following = next(flow, None)
    if following is None:
        heapq.heappop(running)
    else:
        heapq.heapreplace(running, (following[0], number, following, flow))


def write(file: BinaryIO, calls: int, rtp: int = 0) -> int:
    """Write a pcap file; return how many packets it has."""
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    count = 0
    for count, (time, source, destination, payload) in enumerate(packets(calls, rtp), 1):     # noqa: B007
        data = ETHERNET + datagram_bytes(source, destination, payload)
        seconds = int(time)
        file.write(struct.pack("<IIII", seconds, int((time - seconds) * 1e6), len(data), len(data)) + data)
    return count


if __name__ == "__main__":
    with open(sys.argv[2], "wb") as out:
        print(write(out, int(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 0), "packets")
