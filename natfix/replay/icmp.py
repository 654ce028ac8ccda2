"""ICMP errors, and the packets that they are about (RFC 792, RFC 4443)."""

from __future__ import annotations

from struct import Struct

from natfix.address import Endpoint
from natfix.replay.ip import TCP, UDP, header_at, host_of
from natfix.replay.model import Datagram, IcmpError, Side

QUOTE = 8                       # octets: where the packet that the error is about begins
PROTOCOLS = {UDP: "udp", TCP: "tcp"}
FRAGMENTATION_NEEDED, PACKET_TOO_BIG = (3, 4), 2
_PORTS = Struct("!HH")
_MTU, _MTU6 = Struct("!6xH"), Struct("!4xI")

UNREACHABLE = {
    0: "net-unreachable", 1: "host-unreachable", 2: "protocol-unreachable", 3: "port-unreachable",
    4: "fragmentation-needed", 5: "source-route-failed", 6: "net-unknown", 7: "host-unknown",
    9: "net-prohibited", 10: "host-prohibited", 11: "net-unreachable-for-tos", 12: "host-unreachable-for-tos",
    13: "admin-prohibited", 14: "precedence-violation", 15: "precedence-cutoff",
}
UNREACHABLE6 = {
    0: "no-route", 1: "admin-prohibited", 2: "beyond-scope", 3: "host-unreachable", 4: "port-unreachable",
    5: "policy-failed", 6: "route-rejected",
}
# By the type: the names of its codes, and one for codes that have none.
TIME_EXCEEDED = ({0: "ttl-exceeded", 1: "reassembly-timeout"}, "time-exceeded")
ERRORS = {3: (UNREACHABLE, "unreachable"), 11: TIME_EXCEEDED, 12: ({}, "parameter-problem")}
ERRORS6 = {1: (UNREACHABLE6, "unreachable"), PACKET_TOO_BIG: ({}, "packet-too-big"), 3: TIME_EXCEEDED,
           4: ({}, "parameter-problem")}


def error_from_datagram(datagram: Datagram) -> IcmpError | None:
    """Return the error that an ICMP message reports; None for others, or about other than UDP and TCP."""
    payload = datagram.payload
    if len(payload) < QUOTE:
        return None
    is_ipv6 = ":" in datagram.source.host
    kind, code = payload[0], payload[1]
    known = (ERRORS6 if is_ipv6 else ERRORS).get(kind)
    header = header_at(payload, QUOTE)
    if known is None or header is None or header.offset or header.protocol not in PROTOCOLS:
        return None
    if len(payload) < header.payload + 4:
        return None
    names, other = known
    source_port, destination_port = _PORTS.unpack_from(payload, header.payload)
    mtu = 0
    if is_ipv6 and kind == PACKET_TOO_BIG:
        (mtu,) = _MTU6.unpack_from(payload)
    elif (kind, code) == FRAGMENTATION_NEEDED and not is_ipv6:
        (mtu,) = _MTU.unpack_from(payload)
    return IcmpError(
        datagram.packets, datagram.time, datagram.stage, Side.UNKNOWN, datagram.source.host,
        names.get(code, other), PROTOCOLS[header.protocol],
        Endpoint(host_of(header.source), source_port),
        Endpoint(host_of(header.destination), destination_port), mtu)
