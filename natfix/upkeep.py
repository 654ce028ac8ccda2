"""Everything the loop does besides packets: what changed around natfix, what the kernel counted, and
natfix's own rules, which somebody may have flushed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from natfix.address import Endpoint
from natfix.background import Background
from natfix.commands import Flow
from natfix.happenings import Event
from natfix.leak import LeakMeter, open_meters
from natfix.loop import PAUSE, Loop, Source
from natfix.mappings import reversed_flow
from natfix.message_ids import kind
from natfix.queue_reader import QueueReader, queue_counters
from natfix.reports import AddressesChanged, FlowBegan, FlowCounters, FlowDestroyed, PortsInUse

COUNT_EVERY = 20.0          # seconds between two readings of the flows' counters
COUNT_AT_ONCE = 32          # flows looked up between two looks at the queue: some 1 ms
COUNT_ON_DEMAND = 1000      # flows up to which `natfix calls` waits for fresh counters
FLOWS_APART = 0.1           # seconds between two reports of flows that ended
PORTS_EVERY = 30.0          # seconds between two looks at local sockets and the operator's forwards
SETTLE = 0.3                # seconds for changes that come in flocks (a link that comes up)

log = logging.getLogger("natfix")


class RuleEvents(Source, Protocol):
    """Changes of nftables rules by others."""

    def read(self) -> tuple[bool, bool]:
        """Take what waits: has natfix's own table changed, has anybody else's."""


class FlowEvents(Source, Protocol):
    """Conntrack entries that ended, or that began."""

    def read(self) -> Collection[Flow]: ...


class LinkChanges(Source, Protocol):
    """Changes of interfaces, addresses and routes."""

    def drain(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """How to look at the machine; each may take long and is asked in the background."""

    addresses: Callable[[], AddressesChanged]
    ports_in_use: Callable[[AddressesChanged], PortsInUse]
    addresses_every: float = 0.0        # seconds between two looks without an event; 0: none
    follow: Callable[[AddressesChanged], None] = lambda addresses: None     # called before the engine hears


class Upkeep:
    """Keeps the engine informed and natfix's rules in place."""

    def __init__(
        self, loop: Loop, facts: Facts, rules: RuleEvents, ended: FlowEvents, begun: FlowEvents,
        links: LinkChanges, reader: QueueReader, addresses: AddressesChanged,
    ) -> None:
        """*addresses* is what the engine is told at the start."""
        self._loop = loop
        self._facts = facts
        self._rules = rules
        self._flow_ends = ended
        self._flow_starts = begun
        self._links = links
        self._reader = reader
        self._background = Background()
        self._addresses = addresses
        self._ports: PortsInUse | None = None
        self._restored = 0.0
        self._meters: list[LeakMeter] = []
        self._ended: dict[Flow, None] = {}
        self._told = 0.0
        self._lost = 0
        self._entries_refused = 0
        self._uncounted: list[Flow] = []
        self._refused: dict[Endpoint, int] = {}
        self._flooding: dict[str, int] = {}
        self._complaint = ""

    def begin(self, now: float) -> None:
        """Listen from now on."""
        self._loop.listen(self._background, self._background.deliver)
        self._loop.listen(self._rules, self._on_rules)
        self._loop.listen(self._flow_ends, self._on_ends)
        self._loop.listen(self._flow_starts, self._on_starts)
        self._loop.listen(self._links, self._on_links)
        self._loop.call_at(now + COUNT_EVERY, self._count)
        self._loop.call_at(now + PORTS_EVERY, self._look_at_ports)
        self._ask_again(now)

    # rules

    def _on_rules(self) -> None:
        own, others = self._rules.read()
        now = self._loop.clock()
        if own:
            self._meters = self._meters or self._open_meters()
            self._loop.call_at(max(now, self._restored + PAUSE), self._restore)
        if others:
            self._loop.call_at(now + SETTLE, self._look_at_ports)

    def _open_meters(self) -> list[LeakMeter]:
        networks = [network for network, _ in self._addresses.inside]
        return open_meters(self._loop.skeleton.outside_interfaces, networks)

    def _restore(self, now: float) -> None:
        self._restored = now
        self._loop.restore_rules(now)
        log.warning("somebody changed or flushed natfix's own table: it was put back",
                    extra=kind("rules-restored"))
        self._loop.journal.tell([Event("rules-restored", now)])
        meters, self._meters = self._meters, []
        leaked = sum(meter.count() for meter in meters)
        self._loop.counters["leaked"] += leaked
        if leaked:
            log.warning("meanwhile %d packets left with their inside source address", leaked,
                        extra=kind("leaked"))
        self._background.ask("close meters", partial(_close_all, meters), lambda _: None, self._complain)

    # conntrack

    def _on_starts(self) -> None:
        if begun := self._flow_starts.read():
            self._loop.report([FlowBegan(flow) for flow in begun], self._loop.clock())

    def _on_ends(self) -> None:
        wanted = self._loop.engine.flows_of_interest()
        ended = [flow for flow in self._flow_ends.read() if flow in wanted or reversed_flow(flow) in wanted]
        self._tell_later(ended)

    def _tell_later(self, ended: Iterable[Flow]) -> None:
        """Two flows that stand in each other's way would be opened in turns, as fast as events come."""
        self._ended.update(dict.fromkeys(ended))
        if self._ended:
            self._loop.call_at(max(self._loop.clock(), self._told + FLOWS_APART), self._tell_ended)

    def _tell_ended(self, now: float) -> None:
        self._told = now
        ended, self._ended = self._ended, {}
        # Who makes an entry anew ends the one before: only what is gone by now has ended.
        present = self._loop.kernel.counters(ended)
        if gone := [flow for flow in ended if flow not in present]:
            self._loop.report([FlowDestroyed(flow) for flow in gone], now)

    def _count(self, now: float) -> None:
        """Read the counters of the next few flows; between rounds over all of them lie COUNT_EVERY."""
        self._loop.call_at(now + COUNT_EVERY, self._count)
        if not self._uncounted:
            self._begin_round()
            self._report_losses()
        self._count_some(COUNT_AT_ONCE, now)
        if self._uncounted:
            self._loop.call_at(now, self._count)

    def count_now(self, now: float) -> None:
        """Read all counters at once, for a listing; skipped where it would take long."""
        if len(self._loop.engine.flows_of_interest()) <= COUNT_ON_DEMAND:
            self._begin_round()
            self._count_some(COUNT_ON_DEMAND, now)

    def look_at_floods(self, now: float) -> None:
        """Tell the engine who sends too much, for the status."""
        self._flooding = self._loop.kernel.flooding()
        self._loop.report([FlowCounters({}, self._refused, self._flooding)], now)

    @property
    def refused(self) -> dict[Endpoint, int]:
        """Packets of strangers as they were counted last, by outside endpoint."""
        return self._refused

    def count(self, flows: Sequence[Flow], now: float, with_refused: bool) -> None:
        """Read the counters of *flows*, which are few, and, if asked, how many packets were refused."""
        if with_refused:
            self._refused = self._loop.kernel.refused()
        self._count_these(flows, now)

    def _begin_round(self) -> None:
        self._uncounted = list(self._loop.engine.flows_of_interest())
        self._refused = self._loop.kernel.refused()
        self._flooding = self._loop.kernel.flooding()

    def _count_some(self, count: int, now: float) -> None:
        flows, self._uncounted = self._uncounted[:count], self._uncounted[count:]
        self._count_these(flows, now)

    def _count_these(self, flows: Sequence[Flow], now: float) -> None:
        states = self._loop.kernel.counters(flows) if flows else {}
        self._loop.report([FlowCounters(states, self._refused, self._flooding)], now)
        # Events are lost where many flows end at once; the engine knows which of these it still wants.
        self._tell_later(flow for flow in flows if flow not in states)

    def _report_losses(self) -> None:
        """Say it where SIP came faster than natfix treats it, and where conntrack took no more."""
        counters = queue_counters(self._loop.skeleton.queue)
        lost = counters.get("queue_full", 0) + counters.get("socket_full", 0)
        if lost > self._lost:
            log.error("the queue was full: %d SIP packets were dropped", lost - self._lost,
                      extra=kind("queue-full"))
        self._lost = lost
        kernel = self._loop.kernel
        if refused := kernel.entries_refused - self._entries_refused:
            log.warning("conntrack did not take what natfix wanted, %d times: %s", refused,
                        kernel.last_refusal, extra=kind("entry-refused"))
        self._entries_refused = kernel.entries_refused

    # links and sockets

    def _on_links(self) -> None:
        if self._links.drain():
            self._reader.forget_interfaces()
            self._loop.call_at(self._loop.clock() + SETTLE, self._look_at_links)

    def look_again(self) -> None:
        """Look at links and ports anew, soon."""
        now = self._loop.clock()
        self._loop.call_at(now, self._look_at_links)
        self._loop.call_at(now, self._look_at_ports)

    def _look_at_links(self, now: float) -> None:
        self._background.ask("links", self._facts.addresses, self._tell_addresses, self._complain)
        self._ask_again(now)

    def _ask_again(self, now: float) -> None:
        if self._facts.addresses_every:
            self._loop.call_at(now + self._facts.addresses_every, self._look_at_links)

    def _tell_addresses(self, addresses: AddressesChanged) -> None:
        self._complaint = ""
        if addresses == self._addresses:
            return
        before, self._addresses = self._addresses, addresses
        now = self._loop.clock()
        seen = f", seen as {addresses.advertised}" if addresses.advertised else ""
        log.info("the links changed: outside is %s%s", addresses.outside, seen, extra=kind("addresses"))
        self._follow_interface(tuple(addresses.outside), now)
        self._facts.follow(addresses)
        self._loop.report([addresses], now)
        if addresses.advertised and addresses.outside != before.outside:
            self._loop.call_at(now, self._loop.repair)      # the mappings stay, for the link they are others
        self._look_at_ports(now)

    def _follow_interface(self, interfaces: tuple[str, ...], now: float) -> None:
        """Where the default route moved to another link, the rules follow it."""
        if interfaces != self._loop.skeleton.outside_interfaces:
            self._loop.skeleton = replace(self._loop.skeleton, outside_interfaces=interfaces)
            self._loop.restore_rules(now)

    def _look_at_ports(self, now: float) -> None:
        look = partial(self._facts.ports_in_use, self._addresses)
        self._background.ask("ports", look, self._tell_ports, self._complain)
        self._loop.call_at(now + PORTS_EVERY, self._look_at_ports)

    def _tell_ports(self, ports: PortsInUse) -> None:
        if ports != self._ports:
            self._ports = ports
            self._loop.report([ports], self._loop.clock())

    def _complain(self, problem: Exception) -> None:
        """Say once what cannot be found out; what was known before stands, and the next look may succeed."""
        if str(problem) != self._complaint:
            self._complaint = str(problem)
            log.warning("%s", problem, extra=kind("cannot-see"))


def _close_all(meters: Iterable[LeakMeter]) -> None:
    for meter in meters:
        meter.close()
