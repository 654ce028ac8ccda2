"""The messages and captures of others, read in place from the data folder (``NATFIX_DATA``).

Absent folder: nothing is found, and the tests that need it say so once.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

DATA = Path(os.environ.get("NATFIX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MISSING = f"no data folder ({DATA}; set NATFIX_DATA)"

ETHERTYPE_IPV4 = b"\x08\x00"
VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")
# Bytes before the EtherType, by link type (tcpdump.org/linktypes.html): Ethernet, Linux "cooked" 1 and 2.
ETHERTYPE_AT = {1: 12, 113: 14, 276: 0}
HEADER_LENGTHS = {1: 14, 113: 16, 276: 20}
RAW_IP = (12, 101, 228)
LOOPBACK = (0, 108)         # four bytes of address family, then IP


class Item(NamedTuple):
    """One message, description or packet, and where it is from."""

    where: str
    raw: bytes


def is_there() -> bool:
    """Tell whether the data folder can be used."""
    return (DATA / "MANIFEST.tsv").is_file()


def messages() -> list[Item]:
    """Return every SIP message that stands in a file of its own, or in a trace of an issue thread."""
    return [*_message_files(), *_traced()]


def torture(rfc: int) -> list[Item]:
    """Return the messages of RFC 4475 or RFC 5118."""
    folder, pattern = {4475: ("rfc4475-resip", "*.dat"), 5118: ("rfc5118", "*.sip")}[rfc]
    paths = sorted((DATA / folder).rglob(pattern))
    return [Item(path.name, path.read_bytes()) for path in paths if path.name != "test.dat"]


@cache
def descriptions() -> tuple[Item, ...]:
    """Return every session description: files, and the inputs of rtpengine's tests."""
    return tuple(_descriptions())


def rtpengine_inputs() -> list[Item]:
    """Return the offers and answers that rtpengine's tests begin with."""
    return [item for item in descriptions() if item.where.startswith("rtpengine-sdp/")]


@cache
def packets() -> tuple[Item, ...]:
    """Return every IPv4 packet of the captures, as captured: fragments, TCP and cut ones as well."""
    return tuple(_packets())


@cache
def captured() -> tuple[Item, ...]:
    """Return every SIP message that the captures hold in one UDP/IPv4 packet."""
    return tuple(
        Item(where, payload) for where, raw in packets()
        if (payload := _udp_payload(raw)) is not None and b"SIP/2.0" in payload.lstrip().partition(b"\n")[0]
    )


def _files(*categories: str) -> Iterator[Path]:
    if not is_there():
        return
    with (DATA / "MANIFEST.tsv").open(newline="") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            if row["category"] in categories and (DATA / row["file"]).is_file():
                yield DATA / row["file"]


def _name(path: Path) -> str:
    return str(path.relative_to(DATA))


def _message_files() -> Iterator[Item]:
    for path in _files("sipmsg", "fuzz"):
        raw = path.read_bytes()
        if raw.startswith(b"expected_error:"):      # libosip2's tests put a remark on top
            raw = raw.partition(b"\n")[2]
        if b"SIP/2.0" in raw:
            yield Item(_name(path), raw)


def _traced() -> Iterator[Item]:
    for path in _files("trace"):
        if path.suffix == ".json":
            for number, message in enumerate(json.loads(path.read_text())["messages"], 1):
                yield Item(f"{_name(path)}:{number}", message["raw"].encode())


def _descriptions() -> Iterator[Item]:
    for path in _files("sdp", "fuzz"):
        if path.suffix == ".jsonl":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield Item(f"{_name(path)}:{number}", json.loads(line).get("sdp_in", "").encode())
        elif path.suffix == ".sdp":
            raw = path.read_bytes()
            yield Item(_name(path), raw[max(raw.find(b"v=0"), 0):])


def _packets() -> Iterator[Item]:
    from scapy.utils import RawPcapReader
    for path in _files("pcap", "pcap-rtp"):
        if path.suffix == ".dat":       # a frame in hexadecimal
            continue
        with RawPcapReader(str(path)) as reader:
            for number, (frame, meta) in enumerate(reader, 1):
                link = getattr(meta, "linktype", None) or getattr(reader, "linktype", None)
                if (packet := _ipv4_of(frame, link)) is not None:
                    yield Item(f"{_name(path)}#{number}", packet)


def _ipv4_of(frame: bytes, link: int | None) -> bytes | None:
    """Return the IPv4 packet in a frame of a link type, None where there is none."""
    if link in RAW_IP or link in LOOPBACK:
        packet = frame[4:] if link in LOOPBACK else frame
        return packet if packet[:1] and packet[0] >> 4 == 4 else None
    if link not in ETHERTYPE_AT:
        return None
    at, start = ETHERTYPE_AT[link], HEADER_LENGTHS[link]
    while frame[at:at + 2] in VLAN_TAGS:
        at, start = start + 2, start + 4
    return frame[start:] if frame[at:at + 2] == ETHERTYPE_IPV4 else None


def _udp_payload(packet: bytes) -> bytes | None:
    """Return what a whole UDP datagram carries, read in the simplest way."""
    if len(packet) < 28 or packet[9] != 17 or packet[6] & 0x3F or packet[7]:
        return None
    start = (packet[0] & 15) * 4
    return packet[start + 8:start + int.from_bytes(packet[start + 4:start + 6], "big")]
