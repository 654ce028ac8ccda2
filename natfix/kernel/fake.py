"""A working kernel in memory: what netfilter does with ``nft/natfix.nft`` behind a real gateway's rules.

Replay and the tests ask it ``trace(source, destination, now)``: where does a UDP packet come out, or
what dropped it? As in the kernel, the first packet of a flow decides its NAT for good, so a packet that
comes too early pins a wrong entry here too. The way of a packet, in the order of the real hooks:

    enter:  conntrack    finds the entry, in either direction; otherwise the packet begins one
            prerouting   natfix marks SIP flows; DNAT by natfix's maps, else by the operator's forwards
            routing      to the gateway itself (input), or through it (forward)
            learn        at input, the first packets of a relayed stream go to natfix
        guard        drops at input what no mapping waits for, before it can leave an entry
            divert       a marked flow goes to natfix; what that changes in the kernel counts from here on
    leave:  filter       the operator's chains, policy drop: established, from inside, perhaps DNATed
            postrouting  SNAT by natfix's maps, else the operator's masquerade, which moves taken ports
            confirm      the entry enters the table, unless another one took a tuple of it meanwhile
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from natfix.address import Endpoint, Network, contains, network_from_text
from natfix.commands import AddMapping, CloseFlow, Command, Flow, Kind, OpenFlow, OwnPacket, ReleaseStream
from natfix.errors import KernelRefused
from natfix.kernel.base import FlowState, HeldElement, KernelMapping, Skeleton
from natfix.kernel.fake_conntrack import ConntrackTable, Entry, state_of
from natfix.kernel.fake_elements import Elements


@dataclass(slots=True)
class Crossing:
    """A packet at the point where natfix may see it: after DNAT, before SNAT."""

    source: Endpoint
    destination: Endpoint
    entry: Entry
    is_reply: bool
    is_new: bool            # conntrack's state: no reply was seen yet
    hook: str               # "forward", "input" or "output"
    in_interface: str       # "" at output
    out_interface: str      # "" at input
    diverted: bool = False
    dropped: str = ""       # why; "" where it goes on


class Trace(NamedTuple):
    """Where a packet came out, or (``dropped``) why it did not and what its addresses were there."""

    source: Endpoint
    destination: Endpoint
    dropped: str = ""
    diverted: bool = False  # natfix saw it
    hook: str = ""          # "" where the packet never came to the gateway


class FakeKernel:
    """The back end of :class:`natfix.kernel.base.Kernel` that needs no kernel.

    *inside* names the networks behind the gateway, on interfaces ``inside``, ``inside2``...; the gateway
    has the first address of each, and *outside_address* on ``outside``. *dnat_accepted* says whether the
    operator's forward chain has the documented line ``ct status dnat accept``; *forwards* are the
    operator's own DNAT rules, *listens* what his input chain accepts.
    """

    def __init__(
        self,
        inside: Iterable[str] = ("192.168.1.0/24",),
        outside_address: str = "203.0.113.1",
        dnat_accepted: bool = False,
        forwards: Mapping[Endpoint, Endpoint] | None = None,
        listens: Iterable[Endpoint] = (),
    ) -> None:
        self.outside_address = outside_address
        self.dnat_accepted = dnat_accepted
        self.forwards = dict(forwards or {})
        self.listens = frozenset(listens)
        self.networks = {
            f"inside{number if number > 1 else ''}": network_from_text(text)
            for number, text in enumerate(inside, start=1)
        }
        self.own_addresses = {outside_address, *map(_first_address, self.networks.values())}
        self.skeleton: Skeleton | None = None   # None: natfix's table is not there
        self.fail_next_apply = ""               # a sentence: the next transaction is refused with it
        self.refuse_entries = ""                # a sentence: no conntrack entry can be made meanwhile
        self.entries_refused = 0
        self.last_refusal = ""
        self.sent: list[OwnPacket] = []        # natfix's own; they meet no NAT
        self.elements = Elements()
        self.now = 0.0
        # TCP connections, which nothing here traces: flows written from inside, by both ends of the SYN-ACK.
        self.streams: dict[tuple[Endpoint, Endpoint], Flow] = {}
        self.opened_streams: set[Flow] = set()  # whose numbers conntrack does not look at
        self.released: list[Flow] = []          # whose packets natfix sees no more
        self._table = ConntrackTable()
        self._refused: dict[Endpoint, int] = {}
        self.floods: dict[str, int] = {}
        self._begun: list[Flow] = []            # NEW events that nobody has taken yet

    # The interface of every back end

    def install(self, skeleton: Skeleton) -> None:
        """Put natfix's table in place; what its maps already hold stays."""
        self.skeleton = skeleton

    def apply(self, commands: Sequence[Command]) -> None:
        """Carry out *commands*: all elements or none, then the conntrack entries, in order."""
        self._transact(commands, from_nothing=False)

    def resync(self, commands: Sequence[Command]) -> None:
        """Make the maps hold just what *commands* add, then open their flows."""
        self._transact(commands, from_nothing=True)

    def mappings(self) -> list[KernelMapping]:
        """Read back every mapping."""
        return self.elements.mappings(self.now)

    def flows(self) -> list[FlowState]:
        """Read back every conntrack entry."""
        return [state_of(entry, self.now) for entry in self._table]

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        """Look up *flows* in either orientation; those that are not there as given are left out."""
        found = ((flow, self._table.find_flow(flow)) for flow in flows)
        return {flow: state_of(entry, self.now) for flow, entry in found if entry is not None}

    def find_elements(self, commands: Iterable[Command]) -> list[HeldElement]:
        """Look up the mappings among *commands*; permissions are there whenever they were given."""
        present = {(each.inside, each.outside): each.lifetime for each in self.mappings()}
        return [
            HeldElement(f"{command.kind.value}_out", f"{command.inside.host} . {command.inside.port}",
                        f"{command.outside.host} . {command.outside.port}",
                        (command.inside, command.outside) in present,
                        present.get((command.inside, command.outside), 0.0))
            for command in commands if isinstance(command, AddMapping)
        ]

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        """Open what *streams* has for a SYN-ACK between these."""
        flow = self.streams.get((source, destination))
        if flow is not None:
            self.opened_streams.add(flow)
        return flow

    def refused(self) -> dict[Endpoint, int]:
        """Packets that the guard dropped, by outside endpoint."""
        return dict(self._refused)

    def flooding(self) -> dict[str, int]:
        """What a test says in ``floods``: this kernel bounds no rate."""
        return dict(self.floods)

    def send(self, packets: Sequence[OwnPacket]) -> int:
        """Keep *packets* in ``sent``."""
        self.sent += packets
        return 0

    def remove(self) -> None:
        """Delete natfix's table, the entries it made or that NAT by its mappings, and its mark on others."""
        mapped = {mapping.outside for mapping in self.mappings()}
        for entry in self._table:
            if entry.is_made or mapped & {entry.flow.destination, entry.flow.reply_destination}:
                self._table.delete(entry)
            elif self.skeleton is not None:
                entry.mark &= ~self.skeleton.mark
        self.flush_ruleset()

    # What time and others than natfix do

    def advance(self, now: float) -> None:
        """Let time pass: elements and entries whose time is up end. It never runs backwards."""
        self.now = max(self.now, now)
        self.elements.expire(self.now)
        self._table.expire(self.now)

    def next_end(self) -> float:
        """Return a time before which nothing ends by itself (seconds; infinity where nothing ever does)."""
        return min(self._table.earliest_end, self.elements.earliest_end)

    def flush_ruleset(self) -> None:
        """``nft flush ruleset``: natfix's table is gone, conntrack entries stay (as does masquerade here)."""
        self.skeleton = None
        self.elements.clear()
        self._refused.clear()

    def flush_flows(self) -> None:
        """``conntrack -F``: every entry is gone."""
        for entry in self._table:
            self._table.delete(entry)

    def pop_ended(self) -> list[Flow]:
        """Return the flows that ended since the last call, however they did."""
        ended, self._table.ended = self._table.ended, []
        return ended

    def pop_begun(self) -> list[Flow]:
        """Return the flows at ports of the media pool that packets began since the last call."""
        begun, self._begun = self._begun, []
        return begun

    # A packet's way

    def trace(self, source: Endpoint, destination: Endpoint, now: float) -> Trace:
        """Send one UDP packet, which natfix does not hold up, and tell what became of it."""
        if self.is_direct(source, destination):
            return Trace(source, destination)
        return self.leave(self.enter(source, destination, now))

    def is_direct(self, source: Endpoint, destination: Endpoint) -> bool:
        """Tell whether a packet never comes to the gateway, as both ends are on the same network."""
        return self._interface(source.host) == self._interface(destination.host) != "lo"

    def enter(self, source: Endpoint, destination: Endpoint, now: float) -> Crossing:
        """Take a packet to the point where natfix sees it, if it is diverted."""
        self.advance(now)
        entry = self._table.find((source, destination))
        if entry is None:
            crossing = self._begin(source, destination)
        else:
            is_reply = (source, destination) == entry.keys[1]
            self._table.count(entry, is_reply, self.now)
            target = entry.flow.source if is_reply else entry.flow.reply_source
            crossing = self._route(source, target, entry, is_reply)
        if self._is_to_be_learnt(crossing, destination):
            crossing.diverted = True
        elif self._is_guarded(crossing):
            self._refused[destination] = self._refused.get(destination, 0) + 1
            crossing.dropped = "guard: no mapping waits for this packet"
        elif self.skeleton is not None and self._is_seen(crossing, self.skeleton):
            crossing.diverted = bool(crossing.entry.mark & self.skeleton.mark)
        return crossing

    def _is_seen(self, crossing: Crossing, skeleton: Skeleton) -> bool:
        """Tell whether natfix sees SIP here: at forward, and the gateway's own where that is configured."""
        is_crossing = "outside" in (crossing.in_interface, crossing.out_interface)
        if crossing.hook == "forward":
            return is_crossing or crossing.entry.is_dnated
        return skeleton.own_pbx and is_crossing

    def leave(self, crossing: Crossing) -> Trace:
        """Take a packet on from :meth:`enter`: the operator's filter, SNAT, confirmation."""
        if not crossing.dropped and not self._is_accepted(crossing):
            crossing.dropped = f"{crossing.hook} policy: new, and from outside"
        if not crossing.dropped and not crossing.entry.is_confirmed:
            self._confirm(crossing)
        flow = crossing.entry.flow
        source = flow.destination if crossing.is_reply else flow.reply_destination
        if crossing.dropped:
            source = crossing.source
        return Trace(source, crossing.destination, crossing.dropped, crossing.diverted, crossing.hook)

    def _interface(self, host: str) -> str:
        if host in self.own_addresses:
            return "lo"
        names = (name for name, network in self.networks.items() if contains((network,), host))
        return next(names, "outside")

    def _begin(self, source: Endpoint, destination: Endpoint) -> Crossing:
        came_by = self._interface(source.host)
        target = None       # what the gateway itself sends never comes by prerouting
        if came_by != "lo":
            target = self.elements.inside_of(destination, source.host, from_inside=came_by != "outside")
        is_forwarded = target is None and destination in self.forwards
        target = target or self.forwards.get(destination, destination)
        entry = Entry(Flow(source, destination, target, source), self.now, is_forwarded=is_forwarded)
        if self.skeleton is not None and self._is_signalling(source, destination, target):
            entry.mark = self.skeleton.mark
        return self._route(source, target, entry, is_reply=False)

    def _is_signalling(self, source: Endpoint, destination: Endpoint, target: Endpoint) -> bool:
        ports = self.skeleton.sip_ports if self.skeleton else ()
        by_port = source.port in ports or destination.port in ports
        return by_port or self.elements.is_signalling(source, destination, target)

    def _route(self, source: Endpoint, target: Endpoint, entry: Entry, is_reply: bool) -> Crossing:
        came_by, goes_by = self._interface(source.host), self._interface(target.host)
        hook = "output" if came_by == "lo" else "input" if goes_by == "lo" else "forward"
        return Crossing(
            source, target, entry, is_reply, is_new=not entry.is_replied, hook=hook,
            in_interface="" if hook == "output" else came_by,
            out_interface="" if hook == "input" else goes_by,
        )

    def _is_to_be_learnt(self, crossing: Crossing, destination: Endpoint) -> bool:
        is_learning = self.elements.is_learning(destination, crossing.source.host)
        return is_learning and self.skeleton is not None and crossing.hook == "input" and crossing.is_new

    def _is_guarded(self, crossing: Crossing) -> bool:
        arrives = crossing.hook == "input" or crossing.out_interface == "lo"    # by loopback, after output
        is_stray = arrives and crossing.is_new and not crossing.entry.is_dnated
        return is_stray and self._is_media_port(crossing.destination)

    def _is_media_port(self, endpoint: Endpoint) -> bool:
        first, last = self.skeleton.media_ports if self.skeleton else (0, -1)
        return first <= endpoint.port <= last

    def _is_accepted(self, crossing: Crossing) -> bool:
        if not crossing.is_new or crossing.in_interface != "outside":
            return True
        entry = crossing.entry
        if crossing.hook == "input" and crossing.destination in self.listens:
            return True
        return entry.is_forwarded or (entry.is_dnated and self.dnat_accepted)

    def _confirm(self, crossing: Crossing) -> None:
        """Choose the SNAT of a new flow and enter it into the table."""
        entry = crossing.entry
        entry.flow = entry.flow._replace(reply_destination=self._snat(crossing))
        original, reply = (self._table.find(key) for key in entry.keys)
        # Opened by natfix while it held this very packet: the two are merged (nf_ct_resolve_clash), but only
        # in the same orientation. Else, before Linux 6.13, the packet's source port was moved just now.
        if original is not None and original.flow == entry.flow:
            self._table.count(original, is_reply=False, now=self.now)
        elif reply is not None:
            crossing.dropped = f"clash: this flow has the reply tuple (insert_failed): {reply.flow}"
        elif original is None:
            self._table.count(entry, is_reply=False, now=self.now)
            self._table.insert(entry)
            if self._is_media_port(entry.flow.destination) \
                    or self._is_media_port(entry.flow.reply_destination):
                self._begun.append(entry.flow)

    def _snat(self, crossing: Crossing) -> Endpoint:
        is_leaving = crossing.out_interface == "outside"
        if is_leaving or crossing.entry.is_dnated:
            shown = self.elements.outside_of(crossing.source)
            if shown is not None:
                return shown
        host = self.outside_address if is_leaving else crossing.source.host
        return self._table.free_port(crossing.source, host, crossing.destination)

    # What commands do

    def _transact(self, commands: Sequence[Command], from_nothing: bool) -> None:
        reason, self.fail_next_apply = self.fail_next_apply, ""
        if reason or self.skeleton is None:
            raise KernelRefused(reason or "natfix's table is not there")
        self.elements.transact(commands, self.now, from_nothing)
        for command in commands:
            if isinstance(command, OpenFlow):
                self._open(command)
            elif isinstance(command, CloseFlow):
                self._table.close(command.flow)
            elif isinstance(command, ReleaseStream):
                self.released.append(command.flow)

    def _open(self, command: OpenFlow) -> None:
        if self.refuse_entries:
            self.entries_refused += 1
            self.last_refusal = self.refuse_entries
            return
        is_signalling = command.kind is Kind.SIGNALLING and self.skeleton is not None
        self._table.open(command, self.skeleton.mark if is_signalling and self.skeleton else 0, self.now)


def _first_address(network: Network) -> str:
    return ".".join(str(octet) for octet in (network.base + 1).to_bytes(4, "big"))
