"""Read pcapng files: several sections, interfaces of different kinds, directions, comments.

(draft-ietf-opsawg-pcapng.) scapy's RawPcapNgReader is not used: it knows one list of interfaces for all
sections, ends silently where a file is cut, reads a block as large as it claims to be, and takes ten times
as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from natfix.replay.counts import LATEST, Counts
from natfix.replay.link import NAMES, PLACES
from natfix.replay.model import Frame
from natfix.replay.pcap_reader import filled
from natfix.replay.source import Source, Unreadable

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
MAGIC = b"\x0a\x0d\x0d\x0a"
ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
END_OF_OPTIONS, COMMENT, NAME, DESCRIPTION, RESOLUTION, OFFSET, FLAGS = 0, 1, 2, 3, 9, 14, 2
LONGEST = 1 << 24               # octets of a block: name tables and secrets can be large
LONGEST_PACKET = 1 << 18
MOST_INTERFACES = 4096
MOST_OPTIONS = 64
LONGEST_TEXT = 4096             # octets of a name or comment
INBOUND, OUTBOUND = 1, 2
DIRECTIONS = {INBOUND: False, OUTBOUND: True}
MICROSECOND = 1e-6


class Interface(NamedTuple):
    """What an interface description block says."""

    link: int
    snap_length: int            # octets; 0: no limit
    name: str
    unit: float                 # seconds
    offset: int                 # seconds that are to be added to its times


@dataclass(frozen=True, slots=True)
class _Order:
    """The structures of a section, in its octet order."""

    order: str
    u32: Struct
    pair: Struct
    option: Struct
    packet: Struct
    old_packet: Struct
    interface: Struct
    offset: Struct


def _order(order: str) -> _Order:
    kinds = ("I", "II", "HH", "IIIII", "HHIIII", "HHI", "q")
    return _Order(order, *(Struct(order + fields) for fields in kinds))


_ORDERS = {magic: _order(order) for magic, order in ORDERS.items()}


def is_pcapng(start: bytes) -> bool:
    """Tell whether a file that starts so is a pcapng file."""
    return start[:4] == MAGIC


def frames(source: Source, counts: Counts, label: str = "") -> Iterator[Frame]:
    """Yield a pcapng file's packets; where it is cut or corrupt, ``counts`` says so. Raises Unreadable."""
    if source.peek(12)[8:12] not in ORDERS:
        raise Unreadable(f"{source.path}: a pcapng file that ends within its header, or has none.")
    return _Blocks(source, counts, label).frames()


class _Blocks:
    """A pcapng file that is being read."""

    def __init__(self, source: Source, counts: Counts, label: str) -> None:
        self._source, self._counts, self._label = source, counts, label
        self._interfaces: list[Interface] = []
        self._order = _ORDERS[b"\x4d\x3c\x2b\x1a"]
        self._number = 0

    def frames(self) -> Iterator[Frame]:
        """Yield the packets."""
        buffer, at = b"", 0
        take_packet = {
            ENHANCED_PACKET: self._enhanced, OLD_PACKET: self._old, SIMPLE_PACKET: self._simple}
        while True:
            if len(buffer) - at < 12:
                buffer, at = filled(self._source, buffer, at, 12), 0
                if len(buffer) < 12:
                    self._counts.finish(self._source, len(buffer), self._number)
                    return
            if buffer[at:at + 4] == MAGIC and not self._begin_section(buffer[at + 8:at + 12]):
                return
            kind, size = self._order.pair.unpack_from(buffer, at)
            if not self._is_size(size):
                return
            if len(buffer) - at < size:
                buffer, at = filled(self._source, buffer, at, size), 0
                if len(buffer) < size:
                    self._counts.finish(self._source, len(buffer), self._number)
                    return
            take = take_packet.get(kind)
            if take is not None:
                self._number += 1
                frame = take(buffer, at + 8, at + size - 4)
                if frame is not None:
                    yield frame
            elif kind == INTERFACE:
                self._add_interface(buffer[at + 8:at + size - 4])
            at += size

    def _begin_section(self, magic: bytes) -> bool:
        """Begin a section: it has its own octet order and interfaces."""
        order = _ORDERS.get(magic)
        if order is None:
            self._counts.stop("a section of it begins with no octet order")
            return False
        self._order, self._interfaces = order, []
        return True

    def _is_size(self, size: int) -> bool:
        if 12 <= size <= LONGEST and size % 4 == 0:
            return True
        self._counts.stop(f"the block behind packet {self._number} claims to have {size:,} octets")
        return False

    def _add_interface(self, body: bytes) -> None:
        if len(body) < 8 or len(self._interfaces) >= MOST_INTERFACES:
            return
        link, _, snap_length = self._order.interface.unpack_from(body)
        options = self._options(body, 8, len(body))
        name = options.get(NAME) or options.get(DESCRIPTION, b"")
        offset = options.get(OFFSET, b"")
        self._interfaces.append(Interface(
            link, snap_length, _text(name), _unit(options.get(RESOLUTION, b"")),
            self._order.offset.unpack(offset)[0] if len(offset) == 8 else 0))
        self._counts.links.add(NAMES.get(link, f"link type {link}"))
        if name:
            self._counts.note_interface(_text(name))

    def _enhanced(self, buffer: bytes, at: int, end: int) -> Frame | None:
        if end - at < 20:
            return None
        interface, high, low, captured, length = self._order.packet.unpack_from(buffer, at)
        return self._frame(buffer, at + 20, end, interface, (high, low), captured, length)

    def _old(self, buffer: bytes, at: int, end: int) -> Frame | None:
        if end - at < 20:
            return None
        interface, _, high, low, captured, length = self._order.old_packet.unpack_from(buffer, at)
        return self._frame(buffer, at + 20, end, interface, (high, low), captured, length)

    def _simple(self, buffer: bytes, at: int, end: int) -> Frame | None:
        """Read a packet without a time, which is the first interface's."""
        if end - at < 4 or not self._interfaces:
            return None
        (length,) = self._order.u32.unpack_from(buffer, at)
        captured = min(length, self._interfaces[0].snap_length or length, end - at - 4)
        return self._frame(buffer, at + 4, end, 0, (0, 0), captured, length)

    def _frame(self, buffer: bytes, at: int, end: int, number: int, time: tuple[int, int], captured: int,
               length: int) -> Frame | None:
        stop = at + captured
        if number >= len(self._interfaces) or stop > end or captured > LONGEST_PACKET:
            self._counts.left_out["their pcapng blocks contradict themselves"] += 1
            return None
        link, _, name, unit, offset = self._interfaces[number]
        data = buffer[at:stop]
        outgoing, comment = None, ""
        place = PLACES.get(link)
        if place is not None:
            inner, outgoing = place(data)
            name = name if name and name != "any" else inner or name
        stop += -captured % 4
        if end - stop >= 4:
            options = self._options(buffer, stop, end)
            comment = _text(options.get(COMMENT, b""))
            flags = options.get(FLAGS, b"")
            if len(flags) == 4:
                outgoing = DIRECTIONS.get(self._order.u32.unpack(flags)[0] & 3, outgoing)
        seconds = (time[0] << 32 | time[1]) * unit + offset
        return tuple.__new__(Frame, (
            self._number, seconds if 0.0 <= seconds < LATEST else 0.0, link, data, length, name, self._label,
            outgoing, self._label, comment))

    def _options(self, buffer: bytes, at: int, end: int) -> dict[int, bytes]:
        """Read the options between two places; of those that come several times, the first."""
        found: dict[int, bytes] = {}
        unpack = self._order.option.unpack_from
        for _ in range(MOST_OPTIONS):
            if end - at < 4:
                break
            code, size = unpack(buffer, at)
            at += 4
            if code == END_OF_OPTIONS or at + size > end:
                break
            found.setdefault(code, buffer[at:at + size])
            at += (size + 3) & ~3
        return found


def _text(value: bytes) -> str:
    return value[:LONGEST_TEXT].rstrip(b"\0").decode("utf-8", "replace")


def _unit(resolution: bytes) -> float:
    """Return how long one tick is, from if_tsresol: a power of ten, or of two."""
    if len(resolution) != 1:
        return MICROSECOND
    power = resolution[0] & 0x7F
    return float((2 if resolution[0] & 0x80 else 10) ** -power)
