"""From octets to sightings: what is a SIP message, and why one cannot be read."""

from __future__ import annotations

from natfix.errors import MalformedMessage
from natfix.replay.model import Datagram, PacketId, Sighting
from natfix.sip.message import Message, message_from_bytes

CUT = "it was cut short when it was captured"
INCOMPLETE = "fragments of it are missing in the capture"
NO_START_LINE = "its first line is none of SIP"
SIP_PORTS = range(5060, 5091)   # where a header alone, or an unreadable text, counts as SIP
SIP_MARK = b"SIP/2.0"
MARK_WITHIN = 4096              # octets


def is_sip_port(datagram: Datagram) -> bool:
    """Tell whether one end is at a port that is SIP's by custom."""
    return datagram.destination.port in SIP_PORTS or datagram.source.port in SIP_PORTS


def is_damaged_sip(datagram: Datagram) -> bool:
    """Tell whether a payload that does not begin as SIP was meant as such."""
    return is_sip_port(datagram) and SIP_MARK in datagram.payload[:MARK_WITHIN]


def sighting_from(datagram: Datagram, problem: str = "") -> Sighting:
    """Return the sighting of a message that a datagram carries alone."""
    return _sighting(datagram, datagram.packets, datagram.payload, problem, datagram.ip)


def sighting_in_stream(datagram: Datagram, packets: tuple[PacketId, ...], payload: bytes,
                       problem: str = "") -> Sighting:
    """Return the sighting of a message out of a TCP connection; *datagram* is its last segment."""
    return _sighting(datagram, packets, payload, problem, b"")


def _sighting(datagram: Datagram, packets: tuple[PacketId, ...], payload: bytes, problem: str,
              ip: bytes) -> Sighting:
    message: Message | None = None
    facts = datagram.facts
    if ip and not problem:
        problem = CUT if facts.cut else INCOMPLETE if facts.incomplete else ""
    if payload and not problem:
        try:
            message = message_from_bytes(payload)
        except MalformedMessage as fault:
            problem = CUT if facts.cut else str(fault)
    return Sighting(
        packets, datagram.time, datagram.stage, datagram.interface, datagram.outgoing, datagram.protocol,
        datagram.source, datagram.destination, payload, message, problem, facts, ip)
