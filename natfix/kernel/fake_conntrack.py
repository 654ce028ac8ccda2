"""A conntrack table in memory: UDP entries, their NAT, their timeouts, and the events of their lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from natfix.address import Endpoint
from natfix.commands import Flow, OpenFlow
from natfix.kernel.base import FlowState

UNREPLIED = 30.0        # seconds; net.netfilter.nf_conntrack_udp_timeout
STREAM = 120.0          # seconds; net.netfilter.nf_conntrack_udp_timeout_stream
STREAM_AGE = 2.0        # seconds after which traffic both ways makes a stream (nf_conntrack_proto_udp.c)
FIRST_FREE_PORT = 1024  # where masquerade looks for another port than the sender's

Key = tuple[Endpoint, Endpoint]     # source and destination of the packets of one direction


@dataclass(slots=True, eq=False)
class Entry:
    """One conntrack entry; ``flow.source`` sent the first packet."""

    flow: Flow
    born: float
    ends_at: float = 0.0
    mark: int = 0
    is_confirmed: bool = False
    is_replied: bool = False
    is_fixed: bool = False          # IPS_FIXED_TIMEOUT
    is_made: bool = False           # by natfix, or refreshed by it
    is_forwarded: bool = False      # DNATed by a rule of the operator's, who lets it in as well
    packets: int = 0
    reply_packets: int = 0

    @property
    def keys(self) -> tuple[Key, Key]:
        """The tuples of the original and of the reply direction."""
        flow = self.flow
        return (flow.source, flow.destination), (flow.reply_source, flow.reply_destination)

    @property
    def is_dnated(self) -> bool:
        """Conntrack's status bit of that name."""
        return self.flow.destination != self.flow.reply_source

    def agrees(self, flow: Flow) -> bool:
        """Tell whether this is *flow*, in either orientation."""
        return flow in (self.flow, turned(self.flow))


class ConntrackTable:
    """All entries, each by both of its tuples."""

    def __init__(self) -> None:
        self.earliest_end = float("inf")    # nothing ends before it
        self.ended: list[Flow] = []         # DESTROY events that nobody has taken yet
        self._entries: dict[Key, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return (entry for key, entry in list(self._entries.items()) if key == entry.keys[0])

    def find(self, key: Key) -> Entry | None:
        """Return the entry whose packets, of either direction, look like this."""
        return self._entries.get(key)

    def find_flow(self, flow: Flow) -> Entry | None:
        """Return the entry of *flow*, in either orientation, if it is NATed so."""
        entry = self.find((flow.source, flow.destination))
        return entry if entry is not None and entry.agrees(flow) else None

    def insert(self, entry: Entry) -> None:
        """Enter an entry whose tuples are free."""
        entry.is_confirmed = True
        for key in entry.keys:
            self._entries[key] = entry

    def delete(self, entry: Entry) -> None:
        """Remove an entry, and tell."""
        for key in entry.keys:
            del self._entries[key]
        self.ended.append(entry.flow)

    def count(self, entry: Entry, is_reply: bool, now: float) -> None:
        """Take one packet into account, as conntrack does before any chain sees it."""
        if is_reply:
            entry.reply_packets += 1
            entry.is_replied = True
        else:
            entry.packets += 1
        if not entry.is_fixed:
            is_stream = entry.is_replied and (entry.is_made or now - entry.born > STREAM_AGE)
            self._ends(entry, now + (STREAM if is_stream else UNREPLIED))

    def expire(self, now: float) -> None:
        """Remove the entries whose time is up."""
        if now < self.earliest_end:
            return
        for entry in [entry for entry in self if entry.ends_at <= now]:
            self.delete(entry)
        self.earliest_end = min((entry.ends_at for entry in self), default=float("inf"))

    def open(self, command: OpenFlow, mark: int, now: float) -> None:
        """Refresh the entry of *command*, or make it in place of whatever has its tuples.

        A fixed timeout is fixed for natfix too: such an entry is made anew, and counts from nought.
        """
        entry = self.find_flow(command.flow)
        if entry is None or entry.is_fixed:
            entry = Entry(command.flow, now)
            for key in entry.keys:
                if key in self._entries:
                    self.delete(self._entries[key])
            self.insert(entry)
        entry.is_made, entry.is_replied, entry.is_fixed = True, True, command.fixed
        entry.mark |= mark
        self._ends(entry, now + command.lifetime)

    def close(self, flow: Flow) -> None:
        """Delete what has the outside tuple of *flow*; the inside one may belong to a successor."""
        entry = self.find((flow.reply_source, flow.reply_destination))
        if entry is not None:
            self.delete(entry)

    def free_port(self, source: Endpoint, host: str, target: Endpoint) -> Endpoint:
        """Return how masquerade shows *source*, on *host*, to *target*.

        That is with its own port, with one that its other flows were given, or the next free one.
        """
        ports = [source.port]
        ports += [
            entry.flow.reply_destination.port for entry in self
            if entry.flow.source == source and entry.flow.reply_destination.host == host
        ]
        for port in (*ports, *range(FIRST_FREE_PORT, 65536)):
            if (target, Endpoint(host, port)) not in self._entries:
                return Endpoint(host, port)
        return Endpoint(host, source.port)

    def _ends(self, entry: Entry, when: float) -> None:
        entry.ends_at = when
        self.earliest_end = min(self.earliest_end, when)


def state_of(entry: Entry, now: float) -> FlowState:
    """Return what a back end tells of an entry."""
    return FlowState(entry.flow, entry.ends_at - now, entry.packets, entry.reply_packets,
                     entry.mark, entry.is_replied)


def turned(flow: Flow) -> Flow:
    """Return *flow* as it is when the other party sends first."""
    return Flow(flow.reply_source, flow.reply_destination, flow.source, flow.destination)
