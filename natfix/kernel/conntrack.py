"""Conntrack entries through ctnetlink: made, found and deleted by exact tuple.

An entry that natfix makes passes an ordinary stateful firewall in both directions (SEEN_REPLY, ASSURED:
"established") and needs no rule of anybody's. It carries its NAT, so it also outlives natfix.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import Flow, Kind, OpenFlow
from natfix.errors import KernelRefused
from natfix.kernel.base import FlowState
from natfix.kernel.netlink import (
    CONNTRACK,
    CREATE,
    EXCL,
    NESTED,
    REQUEST,
    Answers,
    Connection,
    Message,
    attribute,
    attributes,
    head,
    nest,
    number,
)

NEW, GET, DELETE = (CONNTRACK << 8 | kind for kind in range(3))     # IPCTNL_MSG_CT_*

# CTA_*
ORIGINAL, REPLY, STATUS, NAT_SOURCE, TIMEOUT, MARK, COUNT, REPLY_COUNT = 1, 2, 3, 6, 7, 8, 9, 10
NAT_DESTINATION, MARK_MASK = 13, 21
NAT_MINIMUM, NAT_MAXIMUM, NAT_PROTOCOL, PORT_MINIMUM, PORT_MAXIMUM = 1, 2, 3, 1, 2
COUNT_PACKETS = 1

# IPS_*
SEEN_REPLY, ASSURED, CONFIRMED, FIXED_TIMEOUT = 1 << 1, 1 << 2, 1 << 3, 1 << 10
ESTABLISHED = SEEN_REPLY | ASSURED | CONFIRMED

TRIES = 4           # packets may make an entry between our look and our creation
LOOKUPS = 128       # of one exchange; their answers must fit the socket's buffer

# The inside of a CTA_TUPLE_*: addresses in one nest, protocol and ports in another.
TUPLE = struct.Struct("=HH HH4s HH4s HH HHB3x HH2s2x HH2s2x")
# The same as the kernel writes it, and has always written it: reading by position takes half the time.
_ENDS = struct.Struct("!8x4s 4x4s 4x8x 4xH2x 4xH2x")
PROTOCOL_AT = 28


class Entry(NamedTuple):
    """A conntrack entry: what others need of it, and its status bits."""

    state: FlowState
    status: int


class Conntrack:
    """The conntrack table of one network namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, commands: Sequence[OpenFlow], bit: int) -> None:
        """Ensure the entries of *commands*; those of SIP flows get *bit* in their mark.

        Raises KernelRefused where one cannot be had; the others are there all the same.
        """
        answers = self._connection.exchange([_creation(command, bit) for command in commands])
        refused: list[str] = []
        for index, problem in answers.errors.items():
            if problem == errno.EEXIST:
                problem = self._settle(commands[index], bit)
            if problem:
                refused.append(f"the kernel refuses the conntrack entry {_shown(commands[index].flow)}: "
                               f"{os.strerror(problem)}")
        if refused:
            raise KernelRefused(refused[0])

    def _settle(self, command: OpenFlow, bit: int) -> int:
        """Deal with the entry that is in the way: refresh it if it is the same flow, else replace it.

        Returns 0, or the errno of the last failure.
        """
        flow = command.flow
        problem = errno.EEXIST
        for _ in range(TRIES):
            entry = self._find(flow)
            if entry and _agrees(entry.state.flow, flow) and not entry.status & FIXED_TIMEOUT:
                problem = _error_of(self._connection.exchange([_update(command, bit, entry.status)]))
            else:
                # A fixed timeout is fixed for us too (EPERM): such an entry is made anew.
                problem = _error_of(self._connection.exchange([
                    _deletion(flow.source, flow.destination),
                    _deletion(flow.reply_source, flow.reply_destination),
                    _creation(command, bit),
                ]), 2)
            if problem not in (errno.EEXIST, errno.ENOENT):
                break
        return problem

    def _find(self, flow: Flow) -> Entry | None:
        answers = self._connection.exchange([_lookup(flow)])
        found = answers.data.get(0)
        return entry_from_body(found[0]) if found else None

    def close(self, flows: Sequence[Flow]) -> None:
        """Delete the entries that hold the original tuples of *flows*, in either orientation."""
        if not flows:
            return
        answers = self._connection.exchange([_deletion(flow.source, flow.destination) for flow in flows])
        for index, problem in answers.errors.items():
            if problem != errno.ENOENT:
                raise KernelRefused(f"the kernel does not delete the conntrack entry {_shown(flows[index])}: "
                                    f"{os.strerror(problem)}")

    def states(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        """Look up *flows*; those that are absent, or NATed otherwise, are left out."""
        wanted = list(flows)
        found: dict[Flow, FlowState] = {}
        for start in range(0, len(wanted), LOOKUPS):
            part = wanted[start:start + LOOKUPS]
            for index, bodies in self._connection.exchange([_lookup(flow) for flow in part]).data.items():
                entry = entry_from_body(bodies[0])
                if entry and _agrees(entry.state.flow, part[index]):
                    found[part[index]] = entry.state
        return found

    def dump(self) -> list[FlowState]:
        """Return every UDP entry."""
        bodies = self._connection.dump(GET, head(socket.AF_INET))
        return [entry.state for entry in map(entry_from_body, bodies) if entry]

    def unmark(self, flows: Sequence[Flow], bit: int) -> None:
        """Take *bit* from the marks of *flows*; absent ones are no error."""
        if flows:
            self._connection.exchange([
                Message(NEW, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, flow.source, flow.destination)
                        + number(MARK, 0) + number(MARK_MASK, bit)) for flow in flows])


def entry_from_body(body: bytes) -> Entry | None:
    """Return the entry that the body of a ctnetlink message describes; None if it is not UDP over IPv4."""
    if body[0] != socket.AF_INET:
        return None
    found = attributes(body, 4)
    original, reply = found.get(ORIGINAL, b""), found.get(REPLY, b"")
    if len(original) < TUPLE.size or len(reply) < TUPLE.size:
        return None
    if original[PROTOCOL_AT] != socket.IPPROTO_UDP:
        return None
    flow = Flow(*_ends(original), *_ends(reply))
    status = int.from_bytes(found.get(STATUS, b""))
    return Entry(FlowState(
        flow, int.from_bytes(found.get(TIMEOUT, b"")), _packets(found, COUNT), _packets(found, REPLY_COUNT),
        int.from_bytes(found.get(MARK, b"")), bool(status & SEEN_REPLY),
    ), status)


def _ends(data: bytes) -> tuple[Endpoint, Endpoint]:
    """Return source and destination of the inside of a CTA_TUPLE_*."""
    source, destination, source_port, destination_port = _ENDS.unpack_from(data)
    return (Endpoint(socket.inet_ntoa(source), source_port),
            Endpoint(socket.inet_ntoa(destination), destination_port))


def reverse(flow: Flow) -> Flow:
    """Return *flow* as the kernel holds it when the other side sent first."""
    return Flow(flow.reply_source, flow.reply_destination, flow.source, flow.destination)


def _agrees(held: Flow, wanted: Flow) -> bool:
    return held == wanted or held == reverse(wanted)


def _packets(found: dict[int, bytes], kind: int) -> int:
    if kind not in found:
        return -1
    return int.from_bytes(attributes(found[kind]).get(COUNT_PACKETS, b""))


def _error_of(answers: Answers, index: int = 0) -> int:
    return answers.errors.get(index, 0)


def _tuple(kind: int, source: Endpoint, destination: Endpoint) -> bytes:
    """Return a CTA_TUPLE_*: nests of addresses (CTA_TUPLE_IP) and of protocol and ports (CTA_TUPLE_PROTO)."""
    return nest(kind, TUPLE.pack(
        20, 1 | NESTED, 8, 1, socket.inet_aton(source.host), 8, 2, socket.inet_aton(destination.host),
        28, 2 | NESTED, 5, 1, socket.IPPROTO_UDP,
        6, 2, source.port.to_bytes(2), 6, 3, destination.port.to_bytes(2),
    ))


def _nat(kind: int, endpoint: Endpoint) -> bytes:
    address, port = socket.inet_aton(endpoint.host), endpoint.port
    return nest(
        kind, attribute(NAT_MINIMUM, address), attribute(NAT_MAXIMUM, address),
        nest(NAT_PROTOCOL, number(PORT_MINIMUM, port, 2), number(PORT_MAXIMUM, port, 2)),
    )


def _creation(command: OpenFlow, bit: int) -> Message:
    flow = command.flow
    # The reply tuple is given as it were without NAT; the kernel derives the real one from the two NATs.
    body = (head(socket.AF_INET) + _tuple(ORIGINAL, flow.source, flow.destination)
            + _tuple(REPLY, flow.destination, flow.source) + _settings(command, bit, ESTABLISHED))
    if flow.reply_destination != flow.source:
        body += _nat(NAT_SOURCE, flow.reply_destination)
    if flow.reply_source != flow.destination:
        body += _nat(NAT_DESTINATION, flow.reply_source)
    return Message(NEW, REQUEST | CREATE | EXCL, body)


def _update(command: OpenFlow, bit: int, status: int) -> Message:
    flow = command.flow
    return Message(NEW, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, flow.source, flow.destination)
                   + _settings(command, bit, status | ESTABLISHED))


def _settings(command: OpenFlow, bit: int, status: int) -> bytes:
    fixed = FIXED_TIMEOUT if command.fixed else 0
    settings = number(TIMEOUT, max(1, int(command.lifetime))) + number(STATUS, status | fixed)
    if command.kind is Kind.SIGNALLING:
        settings += number(MARK, bit) + number(MARK_MASK, bit)
    return settings


def _lookup(flow: Flow) -> Message:
    return Message(GET, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, flow.source, flow.destination))


def _deletion(source: Endpoint, destination: Endpoint) -> Message:
    return Message(DELETE, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, source, destination))


def _shown(flow: Flow) -> str:
    return f"{flow.source} > {flow.destination} (replies {flow.reply_source} > {flow.reply_destination})"
