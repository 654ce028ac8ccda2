"""The mapping table: which inside endpoint is which outside endpoint, who holds it, who may use it.

A mapping is endpoint-independent (RFC 4787, section 4.1): one inside endpoint has one outside
endpoint, in every dialog and fork, for as long as anyone holds it. Everything that changes here is
collected as kernel commands in :attr:`Mappings.commands`, which the engine takes after each packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    CloseFlow,
    Command,
    DeleteMapping,
    DismissPeer,
    Flow,
    ForbidRemote,
    Kind,
    OpenFlow,
)
from natfix.deadlines import NEVER, Deadlines
from natfix.errors import LimitReached

Holder = tuple[str, ...]    # ("flow",), ("registration", ...), ("call", ...), ("trunk", ...), ("restored",)

LIFETIME = 300.0            # seconds an element outlives the daemon (design, section 6: lifetimes)
REFRESH_MARGIN = 150.0      # seconds before its end at which an element that is still held is refreshed
NOT_COUNTED = (-1, -1)
ANY_REMOTE = "0.0.0.0"      # media accept_from = "any"
SOURCES_APART = 1.0         # seconds between two sources of one relayed stream
FLOW: Holder = ("flow",)    # holds the outgoing half of a signalling mapping alone
TRAFFIC: Holder = ("traffic",)      # holds a flow that began by itself, and nothing else
MOST_BEGUN = 16             # flows of one mapping that are remembered so; the kernel's timeouts end the rest
MOST_SENT_TO = 8            # likewise, of the peers that a signalling endpoint sent to
MOST_PERMISSIONS = 1 << 20  # what each of the kernel's sets of remotes takes (nft/natfix.nft)
SPARE_PERMISSIONS = 1 << 13     # kept for the mappings that are there


@dataclass(slots=True, eq=False)
class OpenedFlow:
    """A conntrack entry that natfix keeps for a mapping."""

    flow: Flow
    fixed: bool
    holders: dict[Holder, float]    # -> until when it is to be kept
    kernel_until: float = 0.0       # when the entry ends, unless traffic keeps it
    packets: tuple[int, int] = NOT_COUNTED      # from inside, from outside

    @property
    def began_by_itself(self) -> bool:
        """Tell an entry that the kernel's maps have made from one that natfix asks for."""
        return TRAFFIC in self.holders


@dataclass(slots=True, eq=False)
class Relay:
    """What a mapping of the kind RELAY is for: media of a UA that sits behind a NAT of its own."""

    far_host: str                   # the address that its packets come from
    told: Endpoint                  # where it wants its media, by its own word
    source: Endpoint | None = None  # where it really sends from, once that is learnt
    learnt_at: float = -NEVER


@dataclass(slots=True, eq=False)
class Mapping:
    """An inside endpoint and the outside endpoint that stands for it.

    Of the kind RELAY the "inside" endpoint is a far UA's, which nobody can send to: its host is no address,
    and the kernel holds no element for it.
    """

    kind: Kind
    inside: Endpoint
    outside: Endpoint
    inward: bool = False
    holders: dict[Holder, float] = field(default_factory=dict)          # -> until when
    remotes: dict[str, tuple[Holder, ...]] = field(default_factory=dict)    # addresses that may come in
    flows: dict[Flow, OpenedFlow] = field(default_factory=dict)
    shown: frozenset[str] = frozenset()             # kinds of header that natfix replaced it in
    agent: str = ""                                 # User-Agent or Server of the UA behind it
    listens_at: int = 0                             # the UA's port for answers, where that is another one
    kernel_until: float = 0.0                       # when the kernel's element ends; 0: it holds none
    sent_to: tuple[Endpoint, ...] = ()              # peers that it may have conntrack entries to
    mark: int = 0                                   # of its packets, where there are several outside links
    relay: Relay | None = None
    faces: dict[str, Endpoint] = field(default_factory=dict)    # a far UA's address -> its relay's outside

    def note_sent(self, peer: Endpoint) -> None:
        """Remember that a packet went to *peer*; of too many the oldest is forgotten."""
        if peer not in self.sent_to:
            self.sent_to = (*self.sent_to[1 - MOST_SENT_TO:], peer)

    @property
    def is_own(self) -> bool:
        """Tell an endpoint of a PBX on the gateway itself, which stands for itself: the kernel translates
        nothing, and whom to let in is the operator's business."""
        return self.inside == self.outside

    @property
    def permission(self) -> Kind:
        """The kind of its permissions: where a far UA sends from has to be learnt."""
        return Kind.RELAY if self.faces or self.relay is not None else self.kind

    @property
    def is_stream(self) -> bool:
        """Tell one end of a TCP connection: the kernel has made its NAT, and nobody else comes in by it."""
        return bool(self.inside.stream)

    @property
    def has_elements(self) -> bool:
        """Tell whether the kernel's maps hold it."""
        return not (self.is_own or self.is_stream or self.kind is Kind.RELAY)

    @property
    def needs_permissions(self) -> bool:
        """Tell whether the kernel has to know who may send to it."""
        return self.has_elements or self.permission is Kind.RELAY

    @property
    def until(self) -> float:
        """When the last holder lets go."""
        return max(self.holders.values(), default=0.0)


class Mappings:
    """All mappings, by either endpoint and by flow."""

    def __init__(
        self, limit: int, limit_per_host: int, deadlines: Deadlines,
        on_removed: Callable[[Mapping, float], None] = lambda mapping, now: None,
    ) -> None:
        self.commands: list[Command] = []
        self.links: tuple[str, ...] = ()    # the outside links, where there are several
        self.by_flow: dict[Flow, Mapping] = {}
        self._admitted: frozenset[str] = frozenset()
        self._inside: dict[Endpoint, Mapping] = {}
        self._outside: dict[Endpoint, Mapping] = {}
        self._per_host: Counter[str] = Counter()
        self.permissions = 0            # remotes of all mappings: about what the kernel's sets hold
        self.spare = range(0)           # see watch_spare()
        self._spare_used: Counter[str] = Counter()
        self.limit = limit
        self._limit_per_host = limit_per_host
        self._deadlines = deadlines
        self._on_removed = on_removed       # the port pool gets its port back

    def follow(self, limit: int, limit_per_host: int) -> None:
        """Take other limits; what is above them stays and ends by itself."""
        self.limit, self._limit_per_host = limit, limit_per_host

    def watch_spare(self, first: int, last: int) -> None:
        """Count from now on how many signalling mappings have an outside port from *first* to *last*."""
        self.spare = range(first, last + 1)
        self._spare_used.clear()
        for mapping in self._inside.values():
            self._count_spare(mapping, 1)

    @property
    def spare_used(self) -> int:
        """How many these are, of the outside address that has most."""
        return max(self._spare_used.values(), default=0)

    def _count_spare(self, mapping: Mapping, one: int) -> None:
        if mapping.kind is Kind.SIGNALLING and mapping.outside.port in self.spare:
            self._spare_used[mapping.outside.host] += one

    def __iter__(self) -> Iterator[Mapping]:
        return iter(list(self._inside.values()))

    def __len__(self) -> int:
        return len(self._inside)

    def find(self, inside: Endpoint) -> Mapping | None:
        """Return the mapping of an inside endpoint."""
        return self._inside.get(inside)

    def siblings(self, inside: Endpoint) -> list[Mapping]:
        """Return the mappings that *inside* has at other outside links."""
        found = (self._inside.get(inside._replace(link=link)) for link in self.links if link != inside.link)
        return [mapping for mapping in found if mapping is not None]

    def find_outside(self, outside: Endpoint) -> Mapping | None:
        """Return the mapping that an outside endpoint stands for."""
        return self._outside.get(outside)

    def count(self, host: str) -> int:
        """Return how many mappings count for *host*."""
        return self._per_host[host]

    def has_room(self, host: str, count: int) -> bool:
        """Tell whether *host* may have *count* mappings more by its own quota."""
        return self._per_host[host] + count <= self._limit_per_host

    def check_quota(self, host: str, count: int = 1) -> None:
        """Raise LimitReached where *host*, or all together, cannot have *count* mappings more."""
        host = host.partition("/")[0]
        if len(self._inside) + count > self.limit:
            raise LimitReached("[limits] mappings is reached")
        if self.permissions > MOST_PERMISSIONS - SPARE_PERMISSIONS:
            raise LimitReached("the kernel's sets of who may send are full")
        if not self.has_room(host, count):
            raise LimitReached(f"[limits] mappings_per_host is reached by {host}")

    def add(self, kind: Kind, inside: Endpoint, outside: Endpoint) -> Mapping:
        """Enter a mapping that does not exist yet; the kernel learns of it when it is first held."""
        assert inside not in self._inside
        assert outside not in self._outside
        mapping = Mapping(kind, inside, outside)
        if kind is Kind.RELAY:
            mapping.relay = relay_from_key(inside)
        self._inside[inside] = mapping
        self._outside[outside] = mapping
        self._per_host[payer_of(inside)] += 1
        self._count_spare(mapping, 1)
        return mapping

    def hold(self, mapping: Mapping, holder: Holder, until: float, now: float) -> None:
        """Keep *mapping* for *holder* until *until* (NEVER: until it is released)."""
        mapping.holders[holder] = until
        self._refresh(mapping, now)
        self._deadlines.bring_forward(("mapping", mapping.inside), until)

    def open_inward(self, mapping: Mapping, now: float) -> None:
        """Let those who are allowed reach the inside endpoint."""
        if not mapping.inward:
            mapping.inward = True
            self._tell(mapping, now)

    def allow(self, mapping: Mapping, remote: str, holder: Holder, now: float) -> None:
        """Let *remote* use the inward half for as long as *holder* wants it."""
        holders = mapping.remotes.get(remote)
        if holders is not None:
            if holder not in holders:
                mapping.remotes[remote] = (*holders, holder)
            return
        mapping.remotes[remote] = (holder,)
        self.permissions += 1
        lifetime = max(mapping.kernel_until - now, 1.0)
        if mapping.needs_permissions:
            self.commands.append(
                AllowRemote(mapping.permission, mapping.outside, remote, lifetime, is_new=True))

    def forbid(self, mapping: Mapping, remote: str, holder: Holder) -> None:
        """Take *holder*'s permission back; the last one closes the door."""
        holders = mapping.remotes.get(remote)
        if holders is None:
            return
        mapping.remotes[remote] = others = tuple(other for other in holders if other != holder)
        if not others:
            del mapping.remotes[remote]
            self.permissions -= 1
            if mapping.needs_permissions:
                self.commands.append(ForbidRemote(mapping.permission, mapping.outside, remote))
            for flow in [flow for flow, opened in mapping.flows.items()
                         if opened.began_by_itself and flow.reply_source.host == remote]:
                self._close(mapping, flow)

    def admit(self, remotes: frozenset[str]) -> None:
        """Let *remotes*, and of those before only these, use the inward half of all signalling mappings."""
        before, self._admitted = self._admitted, remotes
        self.commands += map(AdmitPeer, sorted(remotes - before))
        self.commands += map(DismissPeer, sorted(before - remotes))

    def face(self, mapping: Mapping, relays: dict[str, Endpoint], now: float) -> None:
        """Let what the far UAs in *relays* (address -> outside endpoint) send to *mapping* be learnt from."""
        if relays == mapping.faces:
            return
        before, mapping.faces = mapping.permission, relays
        if mapping.permission is not before:
            lifetime = max(mapping.kernel_until - now, 1.0)
            for remote in mapping.remotes:
                self.commands.append(ForbidRemote(before, mapping.outside, remote))
                if mapping.needs_permissions:
                    self.commands.append(AllowRemote(mapping.permission, mapping.outside, remote, lifetime))
        for flow in [flow for flow, opened in mapping.flows.items()
                     if opened.began_by_itself and flow.reply_source.host in relays]:
            self._close(mapping, flow)      # it began before anybody knew, and leads past the relay

    def learn_source(self, mapping: Mapping, source: Endpoint, now: float) -> Mapping | None:
        """Take where a far UA sends to *mapping* from; return its relay if that is news.

        Another source replaces the first one at most once in SOURCES_APART seconds: a far NAT may have
        forgotten its mapping, but two senders must not take a stream from each other packet by packet.
        """
        found = self._outside.get(mapping.faces.get(source.host, mapping.outside))
        relay = found.relay if found is not None and found is not mapping else None
        if found is None or relay is None or relay.source == source or now < relay.learnt_at + SOURCES_APART:
            return None
        relay.source, relay.learnt_at = source, now
        return found

    def learn_flow(self, flow: Flow) -> None:
        """Take up an entry that the maps have made for media: it ends with its mapping, or its permission."""
        mapping = self._outside.get(flow.reply_destination)
        if mapping is None:
            mapping, flow = self._outside.get(flow.destination), reversed_flow(flow)
        if mapping is None or mapping.kind is not Kind.MEDIA or flow in mapping.flows \
                or sum(opened.began_by_itself for opened in mapping.flows.values()) >= MOST_BEGUN:
            return
        mapping.flows[flow] = OpenedFlow(flow, False, {TRAFFIC: NEVER})
        self.by_flow[flow] = mapping

    def keep_flow(
        self, mapping: Mapping, flow: Flow, holder: Holder, until: float, now: float, fixed: bool = False
    ) -> None:
        """Have the kernel hold a conntrack entry for *flow* until *until*."""
        opened = mapping.flows.get(flow)
        if opened is None:
            opened = mapping.flows[flow] = OpenedFlow(flow, fixed, {})
            self.by_flow[flow] = mapping
        opened.holders.pop(TRAFFIC, None)
        opened.holders[holder] = until
        if opened.kernel_until < min(until, now + REFRESH_MARGIN):
            self._open(mapping, opened, now)

    def drop_flow(self, mapping: Mapping, flow: Flow, holder: Holder) -> None:
        """Let go of an entry; the last holder has it deleted."""
        opened = mapping.flows.get(flow)
        if opened is None:
            return
        opened.holders.pop(holder, None)
        if not opened.holders:
            self._close(mapping, flow)

    def reopen_flow(self, flow: Flow, now: float) -> bool:
        """Make an entry anew that ended or was flushed while someone holds it; False where none does."""
        mapping = self.by_flow.get(flow)
        if mapping is None:
            return False
        opened = mapping.flows[flow]
        if opened.began_by_itself:
            del mapping.flows[flow], self.by_flow[flow]
            return True
        opened.packets = NOT_COUNTED        # the new entry counts from nought
        self._open(mapping, opened, now)
        return True

    def release(self, mapping: Mapping, holder: Holder, now: float) -> bool:
        """Let go of all that *holder* has of *mapping*; True where that was the end of it."""
        mapping.holders.pop(holder, None)
        if not mapping.holders:
            self.remove(mapping, now)
            return True
        for remote in [remote for remote, holders in mapping.remotes.items() if holder in holders]:
            self.forbid(mapping, remote, holder)
        for flow in [flow for flow, opened in mapping.flows.items() if holder in opened.holders]:
            self.drop_flow(mapping, flow, holder)
        if mapping.inward and mapping.kind is Kind.SIGNALLING and mapping.holders.keys() == {FLOW}:
            mapping.inward = False      # a peer may use any that is open, so this one is closed
            self._tell(mapping, now)
        return False

    def remove(self, mapping: Mapping, now: float) -> None:
        """End *mapping* and all that the kernel holds for it, whoever holds it."""
        self._on_removed(mapping, now)
        del self._inside[mapping.inside]
        del self._outside[mapping.outside]
        self.permissions -= len(mapping.remotes)
        self._count_spare(mapping, -1)
        payer = payer_of(mapping.inside)
        self._per_host[payer] -= 1
        if not self._per_host[payer]:
            del self._per_host[payer]
        self._deadlines.set(("mapping", mapping.inside), NEVER)
        for remote in mapping.remotes if mapping.needs_permissions else ():
            self.commands.append(ForbidRemote(mapping.permission, mapping.outside, remote))
        if mapping.has_elements:
            self.commands.append(DeleteMapping(mapping.kind, mapping.inside, mapping.outside, mapping.mark))
            begun = [Flow(mapping.inside.on_wire, peer, peer, mapping.outside) for peer in mapping.sent_to]
            self.commands += [CloseFlow(flow) for flow in begun if flow not in mapping.flows]
            for sibling in self.siblings(mapping.inside):
                self._tell(sibling, now)    # they share an element
        for flow in list(mapping.flows):
            self._close(mapping, flow)

    def handle_deadline(self, inside: Endpoint, now: float) -> None:
        """Release the holders of *inside* that are due, and refresh the mapping for the rest."""
        mapping = self._inside.get(inside)
        if mapping is None:
            return
        for holder in [holder for holder, until in mapping.holders.items() if until <= now]:
            if self.release(mapping, holder, now):
                return
        self._refresh(mapping, now)
        refresh_at = max(mapping.kernel_until - REFRESH_MARGIN, now + 1)
        self._deadlines.set(("mapping", inside), min(refresh_at, *mapping.holders.values()))

    def restate(self, now: float) -> list[Command]:
        """Return the commands that put everything this table holds into an empty kernel."""
        taken, self.commands = self.commands, []
        self.commands += map(AdmitPeer, sorted(self._admitted))
        for mapping in self._inside.values():
            mapping.kernel_until = 0.0
            self._refresh(mapping, now)
            for opened in mapping.flows.values():
                if not opened.began_by_itself:
                    opened.kernel_until = 0.0
                    self._open(mapping, opened, now)
        restated, self.commands = self.commands, taken
        return restated

    def _refresh(self, mapping: Mapping, now: float) -> None:
        """Have the kernel keep *mapping* on, where what it was told ends before the holders want."""
        if mapping.kernel_until < now + REFRESH_MARGIN and mapping.kernel_until < mapping.until:
            self._tell(mapping, now)

    def _tell(self, mapping: Mapping, now: float) -> None:
        until = mapping.until
        lifetime = LIFETIME if until == NEVER else max(until - now, LIFETIME)
        if mapping.has_elements:
            self.commands.append(AddMapping(
                mapping.kind, mapping.inside, mapping.outside, lifetime, mapping.inward, owner_of(mapping),
                is_new=not mapping.kernel_until, mark=mapping.mark))
        mapping.kernel_until = now + lifetime
        for remote in mapping.remotes if mapping.needs_permissions else ():
            self.commands.append(AllowRemote(mapping.permission, mapping.outside, remote, lifetime))
        for opened in mapping.flows.values():
            if opened.fixed and opened.kernel_until < now + REFRESH_MARGIN:
                self._open(mapping, opened, now)    # traffic does not keep these; others end by event
        self._deadlines.bring_forward(("mapping", mapping.inside), mapping.kernel_until - REFRESH_MARGIN)

    def _open(self, mapping: Mapping, opened: OpenedFlow, now: float) -> None:
        finite = [until for until in opened.holders.values() if until != NEVER]
        lifetime = max(max(finite, default=0.0) - now, LIFETIME)
        opened.kernel_until = now + lifetime
        self.commands.append(OpenFlow(mapping.kind, opened.flow, lifetime, opened.fixed))

    def _close(self, mapping: Mapping, flow: Flow) -> None:
        del mapping.flows[flow]
        self.by_flow.pop(flow, None)
        self.commands.append(CloseFlow(flow))


def relay_key(far_host: str, told: Endpoint) -> Endpoint:
    """Return what a relay has for its inside endpoint: nobody can send there."""
    return Endpoint(f"{far_host}/{told.host}", told.port)


def relay_from_key(inside: Endpoint) -> Relay | None:
    """Return the relay that :func:`relay_key` has named, None for an endpoint that is really inside."""
    if not is_relay_key(inside):
        return None
    far_host, _, host = inside.host.partition("/")
    return Relay(far_host, Endpoint(host, inside.port))


def is_relay_key(inside: Endpoint) -> bool:
    """Tell an endpoint that :func:`relay_key` has named from one that is really inside."""
    return "/" in inside.host


def payer_of(inside: Endpoint) -> str:
    """Return the host whose quota a mapping counts for: of a relay the far UA's address."""
    return inside.host.partition("/")[0] if is_relay_key(inside) else inside.host


def owner_of(mapping: Mapping) -> str:
    """Return the element's comment: the last holder's name, cut to what the kernel takes."""
    holder = next(reversed(mapping.holders), ("",))
    return " ".join(holder)[:120]


def reversed_flow(flow: Flow) -> Flow:
    """Return the same conntrack entry as seen when the other side had sent first."""
    return Flow(flow.reply_source, flow.reply_destination, flow.source, flow.destination)
