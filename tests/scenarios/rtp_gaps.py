"""RTP as it arrived at one host: sequence numbers and pauses, from a capture."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.lab.pcap import datagrams_from_pcap
from tests.lab.programs import Capture

if TYPE_CHECKING:
    from tests.lab.lab import Lab

RTP = "udp portrange 10000-10099"       # of baresip, see tests.lab.programs


class Stream(NamedTuple):
    """What one host received from one sender."""

    packets: int
    lost: int               # sequence numbers that are missing between the first and the last
    longest_pause: float    # seconds


def watch(lab: Lab) -> dict[str, Capture]:
    """Capture the RTP at both phones of a call, by host."""
    return {host: lab.start(Capture(host, "", RTP)) for host in ("phone1", "remote1")}


def received_stream(pcap: Path, address: str) -> Stream:
    """Return the RTP stream that arrived at *address*, the one with the most packets."""
    streams: dict[int, list[tuple[float, int]]] = {}
    for datagram in datagrams_from_pcap(pcap):
        if datagram.destination[0] == address and len(datagram.payload) >= 172:
            _, _, sequence, _, source = struct.unpack_from("!BBHII", datagram.payload)
            streams.setdefault(source, []).append((datagram.time, sequence))
    packets = max(streams.values(), key=len, default=[])
    assert packets, f"no RTP arrived at {address}"
    steps = [(after[1] - before[1]) & 0xFFFF for before, after in pairwise(packets)]
    pauses = [after[0] - before[0] for before, after in pairwise(packets)]
    return Stream(len(packets), sum(step - 1 for step in steps if 1 < step < 0x8000), max(pauses))
