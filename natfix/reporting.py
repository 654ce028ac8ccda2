"""What follows from the shell's reports: of links, ports, conntrack, and the state from before a restart."""

from __future__ import annotations

from collections import Counter

from natfix.address import SIP_PORT, Endpoint
from natfix.callflow import CallFlow
from natfix.commands import CloseFlow, Kind, Note
from natfix.config import Settings, Trunk
from natfix.errors import LimitReached
from natfix.expect import endpoint_from_setting
from natfix.kernel.base import FlowState
from natfix.links import OutsideLinks
from natfix.mappings import NOT_COUNTED, Mapping, Mappings, OpenedFlow, reversed_flow
from natfix.media import MediaKeeper
from natfix.memory import Memory
from natfix.policies import Policies
from natfix.realms import Realms
from natfix.registrations import Registrations
from natfix.reports import (
    AddressesChanged,
    FlowAdopted,
    FlowBegan,
    FlowCounters,
    FlowDestroyed,
    NamesResolved,
    PortsInUse,
    Report,
    Restored,
)
from natfix.signalling import Signalling


class Reporting:
    """Takes each report to the tables that it concerns."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, registrations: Registrations,
        signalling: Signalling, media: MediaKeeper, flow: CallFlow, memory: Memory, policies: Policies,
        links: OutsideLinks, counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._realms = realms
        self._mappings = mappings
        self._registrations = registrations
        self._signalling = signalling
        self._media = media
        self._flow = flow
        self._memory = memory
        self._policies = policies
        self._links = links
        self._counters = counters
        self._notes: list[Note] = []
        self.refused: dict[Endpoint, int] = {}      # packets that the guard dropped, by outside endpoint
        self.flooding: dict[str, int] = {}          # packets over their host's rate, by host

    def take(self, report: Report, now: float) -> list[Note]:
        """Do what follows from *report* (see :mod:`natfix.reports`); return the notes."""
        self._notes = []
        if isinstance(report, AddressesChanged):
            self._on_addresses(report, now)
        elif isinstance(report, PortsInUse):
            self._signalling.taken, self._signalling.forwards = report.ports, report.forwards
            self._media.pool.excluded = report.ports | report.forwards.keys()
        elif isinstance(report, FlowAdopted):
            self._on_adopted(report.state, now)
        elif isinstance(report, FlowBegan):
            self._mappings.learn_flow(report.flow)
        elif isinstance(report, FlowDestroyed):
            if not self._mappings.reopen_flow(report.flow, now):
                self._mappings.reopen_flow(reversed_flow(report.flow), now)
        elif isinstance(report, FlowCounters):
            self._on_counters(report, now)
        elif isinstance(report, NamesResolved):
            self._notes += self._policies.take_names(report.hosts, self._realms)
            self._mappings.admit(self._policies.admitted)
        elif isinstance(report, Restored):
            self._counters["damaged rows"] += self._memory.restore(report, now)
        return self._notes

    def _on_addresses(self, report: AddressesChanged, now: float) -> None:
        """A new outside address ends all mappings of the old one (design, section 8)."""
        before, lost = self._realms.hosts, self._realms.lost
        has_changed = self._realms.update(report)
        self._mappings.links = self._realms.links
        if has_changed:
            self._leave_addresses(before, now)
        for host in sorted(self._realms.lost - lost):
            calls = self._links.tell_calls(host, "down", now)
            self._notes.append(Note("outside-link", "", host, host, f"the link of {host} is down: {calls}"))
        for host in sorted((lost - self._realms.lost) & self._realms.link_hosts):
            self._notes.append(Note("outside-link", "", host, host, f"the link of {host} is back"))
        self._notes += self._policies.judge(self._realms)
        self._mappings.admit(self._policies.admitted)
        self._open_trunks(now)

    def follow(self, settings: Settings, now: float) -> list[Note]:
        """Take other settings: trunks that are new are opened, those that are gone are closed."""
        self._notes = []
        before, self._settings = self._settings, settings
        for trunk in before.trunks:
            if trunk not in settings.trunks:
                for inside in self._ends_of(trunk):
                    self._signalling.close_trunk(inside, now)
        self._notes += self._policies.judge(self._realms)
        self._mappings.admit(self._policies.admitted)
        self._open_trunks(now)
        return self._notes

    def _open_trunks(self, now: float) -> None:
        for trunk in self._settings.trunks:
            try:
                for inside in self._ends_of(trunk):
                    self._signalling.open_for_trunk(inside, trunk.peers, trunk.outside_port, now)
            except LimitReached as problem:
                self._notes.append(Note("trunk", "", trunk.inside, trunk.inside, str(problem)))

    def _ends_of(self, trunk: Trunk) -> list[Endpoint]:
        """The provider may call by each outside link that has an address."""
        inside = endpoint_from_setting(trunk.inside, SIP_PORT)
        ends = [inside._replace(link=link) for link in self._realms.links]
        return [end for end in ends if self._realms.outside_of(end.host, end.link)] or [inside]

    def _leave_addresses(self, before: dict[str, str], now: float) -> None:
        after = self._realms.hosts
        for link, old in before.items():
            if old and old != after.get(link):
                calls = self._links.tell_calls(old, "gone", now)
                self._notes.append(Note("outside-address", "", old, after.get(link, ""),
                                        f"the outside address changed; its mappings ended: {calls}"))
        for mapping in self._mappings:
            if not self._realms.still_shows(mapping.inside, mapping.outside.host):
                self._mappings.remove(mapping, now)
        for binding in self._registrations:
            if self._mappings.find(binding.key.reached_at) is None:
                self._registrations.remove(binding.key)

    def _on_adopted(self, state: FlowState, now: float) -> None:
        """Keep the outside port of a flow that was NATed before natfix started."""
        flow = state.flow
        inside = flow.source._replace(link=self._realms.link_at(flow.reply_destination.host))
        if not self._realms.is_inside(inside.host) \
                or flow.reply_destination.host != self._realms.outside_of(inside.host, inside.link):
            return
        mapping = self._signalling.adopt(inside, flow.reply_destination.port, now)
        if mapping is None or mapping.outside != flow.reply_destination:
            self._notes.append(Note("adopt", "", str(flow.source), str(flow.source),
                                    "another flow has its outside port: it begins anew with its own"))
            self._mappings.commands.append(CloseFlow(flow))
            return
        self._mappings.keep_flow(mapping, flow, ("flow",), now + state.lifetime, now)
        self._notes.append(Note("adopt", "", str(flow.source), str(mapping.outside),
                                "a flow from before natfix started keeps its port"))

    def _on_counters(self, report: FlowCounters, now: float) -> None:
        self.refused = report.refused
        self._on_floods(report.flooding)
        for flow, state in report.states.items():
            mapping = self._mappings.by_flow.get(flow)
            if mapping is None:
                continue
            opened = mapping.flows[flow]
            packets = (state.packets, state.reply_packets)
            if state.flow.source != flow.source:
                packets = packets[::-1]
            flowed = packets != opened.packets and sum(packets) > 0
            opened.packets = packets
            if packets != NOT_COUNTED:
                self._tell_calls(mapping, opened, flowed, now)

    def _on_floods(self, flooding: dict[str, int]) -> None:
        """Say who still sends faster than the kernel lets through, which is never shown to the engine."""
        self._notes += [Note("rate", "", host, host, f"[limits] packets_per_host is reached by {host}")
                        for host, packets in flooding.items() if packets > self.flooding.get(host, 0)]
        self.flooding = flooding

    def _tell_calls(self, mapping: Mapping, opened: OpenedFlow, flowed: bool, now: float) -> None:
        """A phone uses a port again: a call whose BYE never came must not live by the media of another."""
        if mapping.kind is not Kind.SIGNALLING:
            for holder in mapping.holders if opened.began_by_itself else opened.holders:
                if holder[0] == "call":
                    self._flow.on_media(holder, flowed, now)
