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
from natfix.kernel.elements import LONGEST
from natfix.kernel.netlink import (
    CONNTRACK,
    CREATE,
    EXCL,
    NESTED,
    REQUEST,
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
ORIGINAL, REPLY, STATUS, PROTOCOL_STATE, NAT_SOURCE, TIMEOUT, MARK = 1, 2, 3, 4, 6, 7, 8
COUNT, REPLY_COUNT = 9, 10
NAT_DESTINATION, MARK_MASK = 13, 21
NAT_MINIMUM, NAT_MAXIMUM, NAT_PROTOCOL, PORT_MINIMUM, PORT_MAXIMUM = 1, 2, 3, 1, 2
COUNT_PACKETS = 1
# CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_*; struct nf_ct_tcp_flags: flags, mask
OF_TCP, FLAGS_ORIGINAL, FLAGS_REPLY = 1, 4, 5
BE_LIBERAL = 0x08   # IP_CT_TCP_FLAG_BE_LIBERAL: numbers outside the window do not make a packet INVALID

# IPS_*
SEEN_REPLY, ASSURED, CONFIRMED, FIXED_TIMEOUT = 1 << 1, 1 << 2, 1 << 3, 1 << 10
ESTABLISHED = SEEN_REPLY | ASSURED | CONFIRMED

TRIES = 4           # packets may make an entry between our look and our creation
EXCHANGE = 256      # flows of one exchange; the answers must fit the socket's buffer

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

        An entry in the way is refreshed if it is the same flow, else replaced. Raises KernelRefused, for the
        first of them, where entries cannot be had; all others are there by then.
        """
        refused: list[KernelRefused] = []
        for start in range(0, len(commands), EXCHANGE):
            part = commands[start:start + EXCHANGE]
            clashing = self._attempt([(command, [_creation(command, bit)]) for command in part], refused)
            for _ in range(TRIES):
                if not clashing:
                    break
                entries = self._find([command.flow for command in clashing])
                clashing = self._attempt([(command, _cure(command, bit, entries.get(index)))
                                          for index, command in enumerate(clashing)], refused)
            refused += [_refusal(command.flow, errno.EEXIST) for command in clashing]
        if refused:
            raise refused.pop(0)        # were it still in a list of this frame, it would be a garbage cycle

    def _attempt(
        self, plans: Sequence[tuple[OpenFlow, list[Message]]], refused: list[KernelRefused],
    ) -> list[OpenFlow]:
        """Send the messages of all *plans*; return the commands whose last message met another entry.

        Commands that the kernel refuses for another reason are added to *refused*.
        """
        messages: list[Message] = []
        ends: list[int] = []
        for _, steps in plans:
            messages += steps
            ends.append(len(messages) - 1)
        errors = self._connection.exchange(messages).errors
        clashing: list[OpenFlow] = []
        for (command, _), end in zip(plans, ends, strict=True):
            problem = errors.get(end, 0)
            if problem in (errno.EEXIST, errno.ENOENT):
                clashing.append(command)
            elif problem:
                refused.append(_refusal(command.flow, problem))
        return clashing

    def _find(self, flows: Sequence[Flow]) -> dict[int, Entry]:
        """Return the entries that hold the original tuples of *flows*, by index."""
        data = self._connection.exchange([lookup(flow) for flow in flows]).data
        found = {index: entry_from_body(bodies[0]) for index, bodies in data.items()}
        return {index: entry for index, entry in found.items() if entry}

    def close(self, flows: Sequence[Flow]) -> None:
        """Delete the entries of *flows*, in either orientation; absent ones are no error."""
        for start in range(0, len(flows), EXCHANGE):
            part = flows[start:start + EXCHANGE]
            answers = self._connection.exchange([_closing(flow) for flow in part])
            for index, problem in answers.errors.items():
                if problem != errno.ENOENT:
                    raise _refusal(part[index], problem)

    def states(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        """Look up *flows*; those that are absent, or NATed otherwise, are left out."""
        wanted = list(flows)
        found: dict[Flow, FlowState] = {}
        for start in range(0, len(wanted), EXCHANGE):
            part = wanted[start:start + EXCHANGE]
            for index, entry in self._find(part).items():
                if _agrees(entry.state.flow, part[index]):
                    found[part[index]] = entry.state
        return found

    def open_stream(self, source: Endpoint, destination: Endpoint, bit: int) -> Flow | None:
        """Make the TCP entry between *source* and *destination* liberal, and return it as seen from inside.

        Both are the ends of a packet between DNAT and SNAT. An entry that is not fit for natfix loses
        *bit*; None is returned for it, and where there is none.
        """
        # From inside to the peer: in the way out the original tuple's, in the way in the reply's.
        ways = [(destination, source), (source, destination)]
        data = self._connection.exchange([_lookup(*way, socket.IPPROTO_TCP) for way in ways]).data
        for index, (inside, peer) in enumerate(ways):
            entry = entry_from_body(data[index][0], socket.IPPROTO_TCP) if index in data else None
            if entry is not None:
                flow = _from_inside(entry.state.flow, inside, peer)
                if flow and not self._connection.exchange([_liberation(flow)]).errors:
                    return flow
                self.release_streams([entry.state.flow], bit)
        return None

    def release_streams(self, flows: Sequence[Flow], bit: int) -> None:
        """Take *bit* from the marks of the TCP entries of *flows*; absent ones are no error."""
        self._unmark(flows, bit, socket.IPPROTO_TCP)

    def dump(self, protocol: int = socket.IPPROTO_UDP) -> list[Entry]:
        """Return every entry of *protocol*."""
        try:
            bodies = self._connection.dump(GET, head(socket.AF_INET))
        except OSError as problem:
            raise KernelRefused(f"the conntrack table cannot be read: {problem.strerror}") from None
        return [entry for body in bodies if (entry := entry_from_body(body, protocol))]

    def unmark(self, flows: Sequence[Flow], bit: int) -> None:
        """Take *bit* from the marks of UDP *flows*; absent ones are no error."""
        self._unmark(flows, bit, socket.IPPROTO_UDP)

    def _unmark(self, flows: Sequence[Flow], bit: int, protocol: int) -> None:
        for start in range(0, len(flows), EXCHANGE):
            part = flows[start:start + EXCHANGE]
            self._connection.exchange([_unmarking(flow, bit, protocol) for flow in part])


def entry_from_body(body: bytes, protocol: int = socket.IPPROTO_UDP) -> Entry | None:
    """Return the entry that the body of a ctnetlink message describes; None if not of IPv4 and *protocol*."""
    if body[0] != socket.AF_INET:
        return None
    found = attributes(body, 4)
    original, reply = found.get(ORIGINAL, b""), found.get(REPLY, b"")
    if len(original) < TUPLE.size or len(reply) < TUPLE.size:
        return None
    if original[PROTOCOL_AT] != protocol:
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


def _tuple(
    kind: int, source: Endpoint, destination: Endpoint, protocol: int = socket.IPPROTO_UDP,
) -> bytes:
    """Return a CTA_TUPLE_*: nests of addresses (CTA_TUPLE_IP) and of protocol and ports (CTA_TUPLE_PROTO)."""
    return nest(kind, TUPLE.pack(
        20, 1 | NESTED, 8, 1, socket.inet_aton(source.host), 8, 2, socket.inet_aton(destination.host),
        28, 2 | NESTED, 5, 1, protocol,
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


def _cure(command: OpenFlow, bit: int, entry: Entry | None) -> list[Message]:
    """Return what makes *command*'s entry where *entry*, or one with its reply tuple, is in the way."""
    flow = command.flow
    # A fixed timeout is fixed for us too (EPERM): such an entry is made anew.
    if entry and _agrees(entry.state.flow, flow) and not entry.status & FIXED_TIMEOUT:
        return [_update(command, bit, entry.status)]
    return [_deletion(flow.source, flow.destination), _deletion(flow.reply_source, flow.reply_destination),
            _creation(command, bit)]


def _unmarking(flow: Flow, bit: int, protocol: int) -> Message:
    found = _tuple(ORIGINAL, flow.source, flow.destination, protocol)
    return Message(NEW, REQUEST, head(socket.AF_INET) + found + number(MARK, 0) + number(MARK_MASK, bit))


def _liberation(flow: Flow) -> Message:
    """Return the request that takes the TCP entry of *flow* out of window tracking."""
    found = _tuple(ORIGINAL, flow.source, flow.destination, socket.IPPROTO_TCP)
    liberal = bytes((BE_LIBERAL, BE_LIBERAL))
    return Message(NEW, REQUEST, head(socket.AF_INET) + found + nest(PROTOCOL_STATE, nest(
        OF_TCP, attribute(FLAGS_ORIGINAL, liberal), attribute(FLAGS_REPLY, liberal))))


def _from_inside(held: Flow, inside: Endpoint, peer: Endpoint) -> Flow | None:
    """Return *held* as it is written from inside; None where it has no NAT, or more than one."""
    for flow in (held, reverse(held)):
        has_one_nat = flow.destination == flow.reply_source != flow.reply_destination != flow.source
        if has_one_nat and (flow.source, flow.destination) == (inside, peer):
            return flow
    return None


def _settings(command: OpenFlow, bit: int, status: int) -> bytes:
    fixed = FIXED_TIMEOUT if command.fixed else 0
    settings = number(TIMEOUT, max(1, int(min(command.lifetime, LONGEST)))) + number(STATUS, status | fixed)
    if command.kind is Kind.SIGNALLING:
        settings += number(MARK, bit) + number(MARK_MASK, bit)
    return settings


def lookup(flow: Flow) -> Message:
    """Return the request for the entry that holds *flow*'s original tuple, in either orientation."""
    return _lookup(flow.source, flow.destination, socket.IPPROTO_UDP)


def _lookup(source: Endpoint, destination: Endpoint, protocol: int) -> Message:
    return Message(GET, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, source, destination, protocol))


def _closing(flow: Flow) -> Message:
    # By the tuple with the outside endpoint: the one with the inside endpoint may belong to a successor.
    return _deletion(flow.reply_source, flow.reply_destination)


def _deletion(source: Endpoint, destination: Endpoint) -> Message:
    return Message(DELETE, REQUEST, head(socket.AF_INET) + _tuple(ORIGINAL, source, destination))


def _refusal(flow: Flow, problem: int) -> KernelRefused:
    reason = "the conntrack table is full" if problem == errno.ENOMEM else os.strerror(problem)
    return KernelRefused(
        f"the kernel refuses a change of the conntrack entry {flow.source} > {flow.destination}, replies "
        f"{flow.reply_source} > {flow.reply_destination}: {reason}")
