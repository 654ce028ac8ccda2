"""Record what passes the gateway of a lab, on both of its sides at once, and make the file small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scapy.utils import RawPcapNgReader

from natfix.pcapng import PcapngWriter
from tests.lab.host import Process
from tests.lab.lab import Lab

INTERFACES = ("inside", "outside")      # the gateway's, and so the names in the file
WRITTEN = 0.5           # seconds until dumpcap has written down what was just sent
HEADERS = 54            # octets: Ethernet, IPv4, UDP and RTP headers; what media says is nobody's business


@contextmanager
def recording(lab: Lab, path: Path, interfaces: tuple[str, ...] = INTERFACES) -> Iterator[None]:
    """Write what passes the gateway meanwhile to *path*: pcapng, one interface for each side."""
    whole = lab.path("recording.pcapng")
    options = [word for name in interfaces for word in ("-i", name, "-f", "udp or tcp or icmp")]
    process = lab.gateway.popen(["dumpcap", "-q", "-n", *options, "-w", str(whole)], "dumpcap")
    process.wait_for("Capturing on")
    _wait_for_file(process, whole)
    try:
        yield
    finally:
        time.sleep(WRITTEN)
        process.stop()
        shorten(whole, path)


def _wait_for_file(process: Process, path: Path) -> None:
    deadline = time.monotonic() + 5
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.02)


def shorten(source: Path, target: Path) -> None:
    """Copy a capture in order of time; of media only the headers stay, as a snap length would leave them."""
    with RawPcapNgReader(str(source)) as reader:
        records = sorted(reader, key=lambda record: _nanoseconds(record[1]))
    with PcapngWriter(target.open("wb")) as writer:
        numbers = {name: writer.add_interface(name.decode())
                   for name in dict.fromkeys(facts.ifname for _, facts in records)}
        for data, facts in records:
            kept = data[:HEADERS] if _is_media(data) else data
            writer.add_packet(numbers[facts.ifname], _nanoseconds(facts), kept, facts.wirelen)


def _nanoseconds(facts: Any) -> int:
    return int(((facts.tshigh << 32) + facts.tslow) * 1_000_000_000 // facts.tsresol)


def _is_media(frame: bytes) -> bool:
    """RTP or RTCP (version 2) in an unfragmented UDP datagram that is not SIP."""
    is_udp = len(frame) > HEADERS and frame[12:14] == b"\x08\x00" and frame[23] == 17
    return is_udp and frame[42] >> 6 == 2 and not frame[20] & 0x3F and b"SIP/2.0" not in frame[42:]
