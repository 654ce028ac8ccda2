"""What an input holds, in the order of its packets: SIP messages, ICMP errors, TCP's troubles, log lines.

SIP is told by its first line, on whatever port. Most packets of a large capture are media: those are told
by a few octets and counted in the table of streams before any object is built (:meth:`Reader._is_done`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from natfix.replay.capture import opened
from natfix.replay.counts import Counts
from natfix.replay.datagrams import Datagrams
from natfix.replay.icmp import error_from_datagram
from natfix.replay.ip import TCP, UDP, UDP_TUNNELS, host_of, packed_endpoint, packed_ends
from natfix.replay.link import ETHERNET, NAMES, TYPE_IPV4, ip_offset
from natfix.replay.media_seen import MediaTable
from natfix.replay.messages import SIP_PORTS, is_damaged_sip, is_sip_port, sighting_from
from natfix.replay.model import (
    Datagram,
    Frame,
    IcmpError,
    LogLine,
    MediaKind,
    Sighting,
    TcpReset,
    TlsFlow,
)
from natfix.replay.tcp import TcpStreams
from natfix.sip.message import is_sip

TICK = 4096                     # packets between two questions whether to go on
# What a start line begins with, or the empty lines before it.
TEXT_START = frozenset(b"\r\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# IP protocols that cannot lead to SIP: ESP, AH's IPv6 next header is looked into, OSPF, PIM, VRRP, ...
DULL = frozenset({2, 50, 88, 89, 103, 112, 132})
_SIP_PORTS = frozenset(port.to_bytes(2, "big") for port in SIP_PORTS)

Seen = Sighting | IcmpError | TcpReset | TlsFlow | LogLine


class Reader:
    """Reads one input: iterate it. What it yields comes in file order; media goes into ``media``.

    ``counts`` is filled meanwhile; ``share`` says how much of the file is done (0 to 1).
    """

    def __init__(self, path: str, label: str = "", media: MediaTable | None = None,
                 goes_on: Callable[[], bool] = lambda: True) -> None:
        """Open *path* ("-": standard input); *label* names the packets' file where there are several.

        ``goes_on`` is called every TICK packets, since hours of media yield nothing: False ends the reading.
        Raises Unreadable, here or while it is read, where it is no capture.
        """
        self._goes_on = goes_on
        self.media = MediaTable() if media is None else media
        self.counts = Counts(path)
        self._source, self._records = opened(path, label, self.counts)
        self._datagrams = Datagrams()
        self._tcp = TcpStreams()

    @property
    def share(self) -> float:
        """How much of the file has been read; 0.0 where nobody knows its size."""
        size = self._source.size
        return min(self._source.position / size, 1.0) if size else 0.0

    def __iter__(self) -> Iterator[Seen]:
        try:
            for number, record in enumerate(self._records):
                if number % TICK == 0 and not self._goes_on():
                    break
                if type(record) is Frame:
                    self._count(record.time)
                    if not self._is_done(record):
                        yield from self._counted(self._take_frame(record))
                elif isinstance(record, LogLine):
                    yield record
                elif isinstance(record, Datagram):
                    self._count(record.time)
                    yield from self._counted(self._take_datagram(record))
            yield from self._counted(self._take_rest())
        finally:
            self._source.close()

    def _count(self, time: float) -> None:
        counts = self.counts
        counts.packets += 1
        if time > counts.end:
            counts.end = time
        if time and (time < counts.start or not counts.start):
            counts.start = time

    def _counted(self, items: Iterator[Seen]) -> Iterator[Seen]:
        for item in items:
            if isinstance(item, Sighting):
                self.counts.sip += 1
                self._name(item)
            yield item

    def _is_done(self, frame: Frame) -> bool:
        """Tell whether a frame needs no more than this: it is media, or of no interest."""
        data, link = frame.data, frame.link
        if frame.length > len(data):
            self.counts.cut += 1
        at = 14 if link == ETHERNET and data[12:14] == TYPE_IPV4 else ip_offset(link, data)
        if len(data) < at + 28:
            return True
        if at < 0:
            if link not in NAMES:
                self.counts.left_out[f"link type {link} is not known"] += 1
            return True
        if data[at] == 0x45:
            if data[at + 6] & 0x3F or data[at + 7]:
                return False                                # a fragment
            protocol, ends, header = data[at + 9], at + 12, at + 20
        elif data[at] >> 4 == 6:
            protocol, ends, header = data[at + 6], at + 8, at + 40
        else:
            return False
        if protocol == UDP:
            return self._is_done_udp(frame, data, ends, header)
        if protocol == TCP:
            return not self._tcp.wants(data, ends, header)
        return protocol in DULL

    def _is_done_udp(self, frame: Frame, data: bytes, ends: int, header: int) -> bool:
        payload = header + 8
        if len(data) < payload:
            return True
        ports = data[header:header + 2], data[header + 2:header + 4]
        if data[payload:payload + 1] and data[payload] < 0x80:
            if ports[1] in UDP_TUNNELS or ports[0] in _SIP_PORTS or ports[1] in _SIP_PORTS:
                return False
            if data[payload] in TEXT_START and is_sip(data[payload:]):
                return False
        size = int.from_bytes(data[header + 4:header + 6], "big") - 8
        self.counts.media += self.media.take(frame, data[ends:header + 4], payload, size)
        return True

    def _take_frame(self, frame: Frame) -> Iterator[Seen]:
        at = ip_offset(frame.link, frame.data)
        datagram = self._datagrams.take(frame, at)
        if datagram is not None:
            for item in self._take_datagram(datagram, frame):
                if type(item) is Sighting and frame.link == ETHERNET and _begins_with(frame, at, datagram):
                    self.counts.note_neighbour(datagram.source.host, frame.data[6:12])
                yield item
        if self._datagrams.has_incomplete:
            for beginning in self._datagrams.incomplete():
                yield from self._take_datagram(beginning)

    def _take_rest(self) -> Iterator[Seen]:
        for beginning in self._datagrams.rest():
            yield from self._take_datagram(beginning)
        yield from self._tcp.rest()

    def _take_datagram(self, datagram: Datagram, frame: Frame | None = None) -> Iterator[Seen]:
        if datagram.protocol == "udp":
            if is_sip(datagram.payload) or is_damaged_sip(datagram) or _is_bare_sip(datagram):
                yield sighting_from(datagram)
            else:
                self._take_media(datagram)
        elif not datagram.ip:
            # A text shows what went over TCP message by message, not segment by segment.
            if is_sip(datagram.payload) or _is_bare_sip(datagram):
                yield sighting_from(datagram)
        elif datagram.protocol == "tcp":
            yield from self._tcp.take(datagram)
        else:
            error = error_from_datagram(datagram)
            if error is not None:
                yield error

    def _take_media(self, datagram: Datagram) -> None:
        """Count a datagram that was fragmented, or came through a tunnel, or as text."""
        ends = packed_ends(datagram.source, datagram.destination)
        if ends and datagram.ip:
            packet = datagram.packets[0]
            frame = Frame(
                packet.number, datagram.time, 0, datagram.payload, len(datagram.payload), datagram.interface,
                datagram.stage, datagram.outgoing, packet.file)
            self.counts.media += self.media.take(frame, ends, 0, len(datagram.payload))

    def _name(self, sighting: Sighting) -> None:
        """Tell the table of streams what a message says: where media is expected, where keep-alives go."""
        if sighting.transport == "udp":
            for endpoint in (sighting.source, sighting.destination):
                packed = packed_endpoint(endpoint)
                if packed:
                    self.media.name(packed, MediaKind.OTHER)
        message = sighting.message
        if message is not None and message.body[1] > message.body[0]:
            self.media.name_from_sdp(sighting.payload[message.body[0]:message.body[1]])


def _is_bare_sip(datagram: Datagram) -> bool:
    """Tell whether a record that is only a header line is taken for SIP: by its port."""
    return not datagram.ip and not datagram.payload and is_sip_port(datagram)


def _begins_with(frame: Frame, at: int, datagram: Datagram) -> bool:
    """Tell whether a datagram is the frame's own packet, and not one in a tunnel."""
    return frame.data[at] >> 4 == 4 and host_of(frame.data[at + 12:at + 16]) == datagram.source.host
