"""Read snoop files (RFC 1761), and what Check Point's ``fw monitor -o`` makes of them.

fw monitor puts into the place of the Ethernet addresses which stage the packet was seen at (i I o O; e E
around a VPN), its place in the chain of modules, and the interface's name. Nothing says so but these
octets themselves: they must fit in every record that can be looked at beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct

from natfix.replay.counts import Counts
from natfix.replay.link import ETHERNET, NAMES
from natfix.replay.model import Frame
from natfix.replay.pcap_reader import filled
from natfix.replay.source import Source, Unreadable

MAGIC = b"snoop\0\0\0"
HEADER, RECORD = 16, 24         # octets
LONGEST = 1 << 18
LOOK = 1 << 18                  # octets in which every record must fit
LINKS = {0: ETHERNET, 4: ETHERNET}
FW_MONITOR = "fw monitor"
STAGES = b"iIoOeE"

_RECORD = Struct("!IIIIII")
_HEADER = Struct("!8xII")
# The name has ten octets, or six before four of a UUID (fw monitor -u, -s).
_LONG_NAME = re.compile(rb"[!-~]{1,10}\0{0,9}")
_SHORT_NAME = re.compile(rb"[!-~]{1,6}\0{0,5}")


def is_snoop(start: bytes) -> bool:
    """Tell whether a file that starts so is a snoop file."""
    return start[:8] == MAGIC


def frames(source: Source, counts: Counts, label: str = "") -> Iterator[Frame]:
    """Yield a snoop file's records; where it is cut or corrupt, ``counts`` says so. Raises Unreadable."""
    start = source.peek(LOOK)
    if len(start) < HEADER:
        raise Unreadable(f"{source.path}: a snoop file that ends within its header.")
    version, kind = _HEADER.unpack_from(start)
    if version != 2 or kind not in LINKS:
        raise Unreadable(f"{source.path}: a snoop file of version {version} and link type {kind}; natfix "
                         "reads version 2 with Ethernet.")
    is_fw_monitor = _is_fw_monitor(start)
    counts.format = FW_MONITOR if is_fw_monitor else "snoop"
    counts.links.add("fw monitor" if is_fw_monitor else NAMES[LINKS[kind]])
    return _frames(source, counts, label, is_fw_monitor)


def _frames(source: Source, counts: Counts, label: str, is_fw_monitor: bool) -> Iterator[Frame]:
    buffer, at, number = source.read(), HEADER, 0
    while True:
        if len(buffer) - at < RECORD:
            buffer, at = filled(source, buffer, at, RECORD), 0
            if len(buffer) < RECORD:
                counts.finish(source, len(buffer), number)
                return
        length, captured, size, _, seconds, microseconds = _RECORD.unpack_from(buffer, at)
        if not RECORD <= size <= LONGEST or captured > size - RECORD:
            counts.stop(f"record {number + 1} claims to have {size:,} octets, {captured:,} of them captured")
            return
        if len(buffer) - at < size:
            buffer, at = filled(source, buffer, at, size), 0
            if len(buffer) < size:
                counts.finish(source, len(buffer), number)
                return
        data = buffer[at + RECORD:at + RECORD + captured]
        at += size
        number += 1
        stage, interface = label, ""
        if is_fw_monitor and data:
            stage, interface = chr(data[0]), _name(data) or ""
            counts.note_interface(interface)
        time = seconds + microseconds * 1e-6
        yield Frame(number, time, ETHERNET, data, length, interface, stage, None, label)


def _is_fw_monitor(start: bytes) -> bool:
    """Tell whether every record at the beginning of a file is one of fw monitor's."""
    at, seen = HEADER, 0
    while at + RECORD + 14 <= len(start):
        captured, size = _RECORD.unpack_from(start, at)[1:3]
        data = start[at + RECORD:at + RECORD + 14]
        if size < RECORD:
            break
        if captured < 14 or data[0] not in STAGES or not _name(data):
            return False
        at += size
        seen += 1
    return seen > 0


def _name(data: bytes) -> str | None:
    """Return the interface's name; None where none stands there."""
    for pattern, end in ((_LONG_NAME, 12), (_SHORT_NAME, 8)):
        if pattern.fullmatch(data, 2, end) is not None:
            return data[2:end].rstrip(b"\0").decode("ascii")
    return None
