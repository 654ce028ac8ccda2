"""From frames to IP datagrams: tunnels are looked into, fragments put together."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from natfix.address import Endpoint
from natfix.replay.fragments import Fragments, Whole
from natfix.replay.ip import (
    ICMP,
    ICMPV6,
    TCP,
    TUNNELS,
    UDP,
    UDP_TUNNELS,
    Header,
    head_of,
    header_at,
    host_of,
    is_checksum_wrong,
    whole_packet,
)
from natfix.replay.model import Datagram, Frame, IpFacts, PacketId

MOST_LAYERS = 8                 # of IP headers in one frame
PROTOCOLS = {UDP: "udp", TCP: "tcp", ICMP: "icmp", ICMPV6: "icmp"}
UDP_HEADER, TCP_HEADER = 8, 20  # octets
_PORTS = Struct("!HH")
_UDP = Struct("!HHH")


class Datagrams:
    """Takes frames, gives whole datagrams."""

    def __init__(self) -> None:
        self._fragments = Fragments()

    def take(self, frame: Frame, at: int) -> Datagram | None:
        """Return the innermost datagram of a frame whose first IP header is at *at*.

        None where it is neither UDP, TCP nor ICMP, where it is malformed, or where pieces are to come.
        """
        data, whole = frame.data, None
        for _ in range(MOST_LAYERS):
            header = header_at(data, at)
            if header is None:
                return None
            if header.is_fragment:
                whole = self._add(frame, data, header)
                if whole is None:
                    return None
                data = whole_packet(whole.head, whole.body)
                header = header_at(data, 0)
                if header is None:
                    return None
            at = _inner(data, header)
            if at < 0:
                return _datagram(frame, data, header, whole)
        return None

    @property
    def has_incomplete(self) -> bool:
        """Whether :meth:`incomplete` would yield something."""
        return bool(self._fragments.given_up)

    def incomplete(self) -> Iterator[Datagram]:
        """Yield the beginnings of datagrams that were given up, because a piece never came."""
        return _beginnings(self._fragments.take_given_up())

    def rest(self) -> Iterator[Datagram]:
        """Yield the beginnings of what still waits for pieces at the end of the input."""
        return _beginnings(self._fragments.rest())

    def _add(self, frame: Frame, data: bytes, header: Header) -> Whole | None:
        body = data[header.payload:header.end]
        is_whole = len(body) == header.end - header.payload
        key = (header.source, header.destination, header.identification, header.protocol, frame.stage,
               frame.interface, frame.outgoing)
        # Behind a piece that the snap length cut, nothing is ever whole.
        is_last = not header.has_more and is_whole
        return self._fragments.add(key, head_of(data, header), header.offset, is_last, body, frame)


def _inner(data: bytes, header: Header) -> int:
    """Return where the IP header in a tunnel packet begins; -1 for what is no tunnel."""
    tunnel = TUNNELS.get(header.protocol)
    if tunnel is not None:
        return tunnel(data, header.payload)
    if header.protocol == UDP:
        tunnel = UDP_TUNNELS.get(data[header.payload + 2:header.payload + 4])
        if tunnel is not None:
            return tunnel(data, header.payload + UDP_HEADER)
    return -1


def _beginnings(wholes: list[Whole]) -> Iterator[Datagram]:
    for whole in wholes:
        data = whole_packet(whole.head, whole.body)
        header = header_at(data, 0)
        if header is not None and _inner(data, header) < 0:
            datagram = _datagram(whole.frame, data, header, whole)
            if datagram is not None:
                yield datagram


def _datagram(frame: Frame, data: bytes, header: Header, whole: Whole | None) -> Datagram | None:
    """Build a datagram of the packet with *header* in *data*; None where it is no UDP, TCP or ICMP."""
    protocol = PROTOCOLS.get(header.protocol)
    start, end = header.payload, min(header.end, len(data))
    if protocol is None or end < start + UDP_HEADER:
        return None
    is_incomplete = whole is not None and whole.incomplete
    is_cut = header.end > len(data) and not is_incomplete
    source_port = destination_port = 0
    checksum_wrong = length_wrong = False
    if protocol == "udp":
        source_port, destination_port, length = _UDP.unpack_from(data, start)
        payload_end = start + length
        length_wrong = payload_end != header.end and length > 0 and not is_incomplete
        if not is_cut and not length_wrong and not is_incomplete:
            checksum_wrong = is_checksum_wrong(data, header, end)
        payload = data[start + UDP_HEADER:min(end, payload_end) if length >= UDP_HEADER else end]
    else:
        payload = data[start:end]
        if protocol == "tcp":
            source_port, destination_port = _PORTS.unpack_from(data, start)
    facts = IpFacts(
        header.ttl, header.identification, header.dont_fragment, len(whole.packets) if whole else 1,
        header.end - header.start, is_cut, checksum_wrong, length_wrong, is_incomplete)
    return Datagram(
        whole.packets if whole else (PacketId(frame.number, frame.file),),
        frame.time, frame.stage, frame.interface, frame.outgoing, protocol,
        Endpoint(host_of(header.source), source_port),
        Endpoint(host_of(header.destination), destination_port),
        payload, data[header.start:end], facts)
