"""A world for tests of the engine: user agents, a network between them, the fake kernel, and time.

The engine is driven exactly as the live shell drives it: a packet comes to the gateway, is diverted by its
conntrack mark, shown to the engine; the commands are carried out, then the packet goes on through SNAT
and arrives at another agent, or does not. Time passes only in :meth:`World.advance`.

    world = World()
    world.phone.registers()
    call = world.call(world.phone, world.provider)
    world.assert_two_way_audio(call)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import Command, Flow, Kind, Note, Outcome, Verdict
from natfix.config import Inside, Outside, Settings
from natfix.engine import NO_QUIRKS, Engine, Path
from natfix.errors import KernelRefused
from natfix.kernel.advertise import AdvertisedKernel
from natfix.kernel.base import Kernel, Skeleton
from natfix.kernel.fake import Crossing, FakeKernel, Trace
from natfix.kernel.fake_conntrack import turned
from natfix.reports import (
    AddressesChanged,
    FlowBegan,
    FlowCounters,
    FlowDestroyed,
    PortsInUse,
    Report,
    Restored,
)
from natfix.startup import flows_to_adopt
from tests.agent import Agent, Leg, Sip
from tests.datagram import Datagram, packet_bytes, read_packet
from tests.streams import streams_of

START = 1000.0              # seconds; when every world begins
MAX_STEPS = 20_000          # timers in one advance; more means that the engine does not get on
TABLES = {"media", "signalling", "far_end", "gateway", "peers", "domains", "trunks", "statics", "limits"}
PHONE = Endpoint("192.168.1.10", 5060)
OTHER_PHONE = Endpoint("192.168.1.11", 5060)
PROVIDER = Endpoint("198.51.100.20", 5060)
OUTSIDE = "203.0.113.1"


@dataclass(slots=True)
class Delivery:
    """What became of one datagram."""

    at: float
    source: Endpoint                # as sent
    destination: Endpoint
    payload: bytes
    trace: Trace | None = None
    arrived: bytes | None = None    # None: dropped, or nobody is there
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def is_untouched(self) -> bool:
        """The payload arrived as it was sent."""
        return self.arrived == self.payload

    @property
    def dropped(self) -> str:
        """Why it did not arrive, "" where it did."""
        return self.trace.dropped if self.trace else ""

    @property
    def notes(self) -> list[Note]:
        return self.outcome.notes

    def rules(self) -> set[str]:
        """Return the names of the notes' rules."""
        return {note.rule for note in self.notes}

    def changes(self) -> list[str]:
        """Return the lines that natfix changed, as "-old" and "+new"."""
        before, after = (_lines(payload) for payload in (self.payload, self.arrived or b""))
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]

    def __str__(self) -> str:
        first = self.payload.split(b"\r\n")[0].decode(errors="replace")
        seen = f" seen from {self.trace.source}" if self.trace and self.trace.source != self.source else ""
        fate = f" DROPPED: {self.dropped}" if self.dropped else "" if self.arrived is not None else " LOST"
        lines = [f"{self.at:9.2f} {self.source} -> {self.destination}{seen}  {first}{fate}"]
        lines += [f"          {line}" for line in (self.changes() if self.arrived is not None else [])]
        lines += [f"          note {note.rule}: {note.header} {note.old} {note.reason}"
                  for note in self.notes if not note.is_edit]
        lines += [f"          {_short(command)}" for command in self.outcome.commands]
        return "\n".join(lines)


class Call(NamedTuple):
    """Both ends of a call."""

    caller: Leg
    callee: Leg

    def hang_up(self, by: Leg | None = None) -> None:
        """BYE by the caller, or by *by*, and its 200."""
        ends = [self.caller, self.callee]
        leaver = by or self.caller
        stayer = next(leg for leg in ends if leg is not leaver)
        leaver.sends("BYE")
        stayer.agent.replies(stayer.agent.received("BYE")[-1], 200, contact="")


class World:
    """A gateway with natfix, a phone and another phone inside, a provider outside."""

    def __init__(self, settings: Settings | None = None, engine: Any = None, **options: Any) -> None:
        """*options* are tables of the settings (``media=Media(...)``), the rest goes to the kernel."""
        tables = {name: options.pop(name) for name in TABLES & options.keys()}
        self.advertised = options.pop("advertised", "")     # what others see in place of the outside address
        self.kernel = FakeKernel(**options)
        self.shown: Kernel = self.kernel
        if self.advertised:
            self.shown = AdvertisedKernel(self.kernel, self._addresses())
        networks = tuple(self.kernel.networks.values())
        self.settings = settings or Settings(
            inside=Inside(networks=networks), outside=Outside(interface="outside"), **tables)
        self.now = START
        self.log: list[Delivery | str] = []
        self.agents: list[Agent] = []
        self.names: dict[str, str] = {"provider.example": PROVIDER.host}
        self.rows: dict[tuple[str, str], Any] = {}      # what the store would hold
        self.busy_ports: frozenset[int] = frozenset()   # local sockets and the operator's forwards
        self.refusals: list[str] = []                   # by the kernel
        self.kernel.advance(START)
        self.kernel.install(skeleton_of(self.settings))
        self.engine = engine if engine is not None else Engine(self.settings)
        self._introduce()
        self.phone = self.agent("alice", PHONE, Endpoint(PHONE.host, 12000), proxy=PROVIDER)
        self.other_phone = self.agent("carol", OTHER_PHONE, Endpoint(OTHER_PHONE.host, 12000), proxy=PROVIDER)
        self.provider = self.agent("bob", PROVIDER, Endpoint(PROVIDER.host, 40000))

    # Agents and calls

    def agent(self, user: str, endpoint: Endpoint, rtp: Endpoint | None = None,
              proxy: Endpoint | None = None) -> Agent:
        """Add a UA."""
        agent = Agent(self, user, endpoint, rtp, proxy)
        self.agents.append(agent)
        return agent

    def register(self, agent: Agent, expires: int = 3600) -> Leg:
        """REGISTER, 401, REGISTER with credentials, 200 that lists the binding."""
        registrar = self._at(agent.proxy)
        leg = agent.registers(expires)
        registrar.replies(registrar.last, 401, headers={
            "WWW-Authenticate": 'Digest realm="provider.example", nonce="4711"'})
        leg.sends("REGISTER", headers=[("Authorization", _credentials(agent)), ("Expires", str(expires))])
        granted = f"{registrar.last['contact']};expires={expires}" if expires else ""
        registrar.replies(registrar.last, 200, headers={"Date": "Mon, 01 Jan 2024 00:00:00 GMT"},
                          contact=granted)
        return leg

    def registered_uri(self, agent: Agent) -> str:
        """Return the Contact URI that the provider holds for a phone, as it was shown it."""
        registrar = self._at(agent.proxy)
        shown = next(register["contact"] for register in reversed(registrar.received("REGISTER"))
                     if agent.user in register["contact"])
        return shown.partition("<")[2].partition(">")[0]

    def call(self, caller: Agent, callee: Agent, to: Endpoint | None = None) -> Call:
        """INVITE, 100, 180, 200, ACK. A phone is called at its registered Contact."""
        uri, hop = callee.address, to
        if callee.proxy is not None and hop is None:
            uri = self.registered_uri(callee)
            hop = self.resolve_uri(uri)
        caller_leg = caller.invites(uri, hop)
        return self.answer(caller_leg, callee)

    def answer(self, caller_leg: Leg, callee: Agent) -> Call:
        """Go on from an INVITE that *callee* has just received: 100, 180, 200, ACK."""
        request = callee.last
        callee.replies(request, 100, contact="")
        callee_leg = callee.accepts(request, 180)
        callee_leg.answers(200)
        caller_leg.sends("ACK")
        return Call(caller_leg, callee_leg)

    def resolve(self, endpoint: Endpoint) -> Endpoint:
        """Return *endpoint* with its host name looked up."""
        return Endpoint(self.names.get(endpoint.host, endpoint.host), endpoint.port)

    def resolve_uri(self, uri: str) -> Endpoint:
        """Return where requests to *uri* go."""
        host, _, port = uri.rpartition("@")[2].partition(";")[0].partition(":")
        return self.resolve(Endpoint(host, int(port or 5060)))

    def _at(self, endpoint: Endpoint | None) -> Agent:
        return next(agent for agent in self.agents if agent.endpoint == endpoint)

    # The network

    def transmit(self, source: Endpoint, destination: Endpoint, payload: bytes) -> Delivery:
        """Carry one SIP datagram, through the gateway and natfix if that is its way."""
        delivery = Delivery(self.now, source, destination, payload)
        self.log.append(delivery)
        if self.kernel.is_direct(source, destination):
            delivery.trace = Trace(source, destination)
        else:
            crossing = self.kernel.enter(source, destination, self.now)
            if crossing.diverted and not crossing.dropped:
                payload = self._show_to_engine(crossing, delivery)
            delivery.trace = self.kernel.leave(crossing)
            self._report_flows()
        if not delivery.trace.dropped:
            self._arrive(delivery, payload)
        self._send(delivery.outcome)
        return delivery

    def _send(self, outcome: Outcome) -> None:
        """Deliver what natfix sends itself."""
        self.shown.send(outcome.send)
        for packet in outcome.send:
            self.log.append(f"{self.now:9.2f} {packet.source} -> {packet.destination}  natfix's own: "
                            f"{packet.payload.splitlines()[0].decode()}")
            for agent in self.agents:
                if agent.endpoint == packet.destination:
                    agent.receive(packet.payload, packet.source, packet.destination)

    def _show_to_engine(self, crossing: Crossing, delivery: Delivery) -> bytes:
        packet = Datagram(crossing.source, crossing.destination, delivery.payload)
        path = Path(crossing.hook, crossing.in_interface, crossing.out_interface, crossing.entry.mark)
        outcome = delivery.outcome = self.engine.receive_packet(packet_bytes(packet), path, self.now)
        applied = self._apply(outcome.commands)
        self._save()
        if outcome.verdict is Verdict.DROP or not applied:
            crossing.dropped = "natfix" if applied else f"the kernel refused: {self.refusals[-1]}"
        if outcome.packet is None:
            return delivery.payload
        changed = read_packet(outcome.packet)
        addresses = [(each.source, each.destination.host) for each in (changed, packet)]
        assert addresses[0] == addresses[1], "natfix changed an address of the IP header"
        crossing.destination = changed.destination      # another port, by a repair
        return changed.payload

    def _arrive(self, delivery: Delivery, payload: bytes) -> None:
        assert delivery.trace is not None
        for agent in self.agents:
            if agent.endpoint == delivery.trace.destination:
                delivery.arrived = payload
                agent.receive(payload, delivery.trace.source, delivery.trace.destination)

    def trace_rtp(self, source: Endpoint, destination: Endpoint) -> Trace:
        """Send one media packet and tell where it came out."""
        if self.kernel.is_direct(source, destination):
            return Trace(source, destination)
        crossing = self.kernel.enter(source, destination, self.now)
        if crossing.diverted and not crossing.dropped:
            self._show_to_engine(crossing, Delivery(self.now, source, destination, b"\x80\x08 RTP"))
        trace = self.kernel.leave(crossing)
        self.log.append(f"{self.now:9.2f} RTP {source} -> {destination}: {_short(trace)}")
        self._report_flows()
        return trace

    # Time and facts

    def advance(self, seconds: float) -> None:
        """Let time pass: every timer of the engine fires, and everything in the kernel ends, in order."""
        until = self.now + seconds
        for _ in range(MAX_STEPS):
            due = self.engine.next_timeout()
            self.now = max(self.now, min(due if due is not None else until, self.kernel.next_end(), until))
            self.kernel.advance(self.now)
            self._report_flows()
            if due is not None and due <= self.now:
                self._follow(self.engine.handle_timer(self.now))
            elif self.now >= until:
                return
        raise AssertionError(f"the engine's timer stands still: {self.engine.next_timeout()} at {self.now}")

    def report(self, report: Report) -> Outcome:
        """Tell the engine a fact."""
        return self._follow(self.engine.handle_report(report, self.now))

    def poll_counters(self) -> Outcome:
        """Tell the engine what the kernel counted, as the shell does now and then."""
        flows = list(self.engine.flows_of_interest())
        return self.report(FlowCounters(self.shown.counters(flows), self.shown.refused()))

    def change_outside_address(self, address: str) -> Outcome:
        """The provider of the link gives another address (DHCP, PPPoE)."""
        self.kernel.own_addresses = self.kernel.own_addresses - {self.kernel.outside_address} | {address}
        self.kernel.outside_address = address
        return self.report(self._addresses())

    def reload(self, **tables: Any) -> Outcome:
        """natfix takes other settings while it runs, as `natfix reload` has it; *tables* as at the start."""
        self.settings = replace(self.settings, **tables)
        self.kernel.install(skeleton_of(self.settings))
        return self._follow(self.engine.reconfigure(self.settings, NO_QUIRKS, self.now))

    def restart(self) -> None:
        """natfix starts anew; the kernel and the store keep what they hold."""
        self.engine = Engine(self.settings)
        self._introduce()
        rows = [row for row in self.rows.values() if row.row is not None]
        self.report(Restored(tuple(self.shown.mappings()), tuple(rows)))
        for adopted in flows_to_adopt(self.shown.flows(), skeleton_of(self.settings), self._addresses()):
            self.report(adopted)

    def _introduce(self) -> None:
        self.report(self._addresses())
        self.report(PortsInUse(self.busy_ports))

    def _addresses(self) -> AddressesChanged:
        inside = tuple((network, name) for name, network in self.kernel.networks.items())
        return AddressesChanged({"outside": self.kernel.outside_address}, inside,
                                frozenset(self.kernel.own_addresses), self.advertised)

    def _report_flows(self) -> None:
        for flow in map(self._seen, self.kernel.pop_begun()):
            self.report(FlowBegan(flow))
        for flow in map(self._seen, self.kernel.pop_ended()):
            wanted = self.engine.flows_of_interest()
            is_gone = not self.shown.counters([flow])       # it may have been made anew
            if is_gone and (flow in wanted or turned(flow) in wanted):
                self.report(FlowDestroyed(flow))

    def _seen(self, flow: Flow) -> Flow:
        return self.shown.seen_flow(flow) if isinstance(self.shown, AdvertisedKernel) else flow

    def _follow(self, outcome: Outcome) -> Outcome:
        items = [*outcome.notes, *outcome.commands]
        if items:
            what = (f"          {_short(item)}" for item in items)
            self.log.append("\n".join([f"{self.now:9.2f} report or timer", *what]))
        self._apply(outcome.commands)
        self._save()
        self._send(outcome)
        return outcome

    def _apply(self, commands: list[Command]) -> bool:
        if not commands:
            return True
        try:
            self.shown.apply(commands)
        except KernelRefused as problem:
            self.refusals.append(str(problem))
            self.log.append(f"{self.now:9.2f} REFUSED {problem}")
            self.shown.resync(self.engine.desired())
            return False
        return True

    def _save(self) -> None:
        for change in self.engine.pop_changes():
            self.rows[change.table, change.key] = change

    # What tests ask

    def media_mappings(self) -> dict[Endpoint, Endpoint]:
        """Return the media mappings that the kernel holds, inside to outside."""
        return {mapping.inside: mapping.outside for mapping in self.kernel.mappings()
                if mapping.kind is Kind.MEDIA}

    def is_quiet(self) -> bool:
        """Nothing is left of any call: in the kernel, the engine, and the store."""
        rows = [row for (table, _), row in self.rows.items() if table == "calls" and row.row is not None]
        return not (self.media_mappings() or self.engine.calls(self.now) or rows)

    def assert_two_way_audio(self, call: Call) -> None:
        """Each end's audio reaches the other end's own port, from the port that end was told."""
        caller, callee = call.caller.agent, call.callee.agent
        self.assert_hears(callee, caller)
        self.assert_hears(caller, callee)

    def assert_hears(self, receiver: Agent, sender: Agent) -> None:
        """What *sender* sends to where it was told arrives at *receiver*, from where that was told."""
        told, expected = self.told_media(sender), self.told_media(receiver)
        trace = self.trace_rtp(sender.rtp, told)
        assert not trace.dropped, f"{receiver} does not hear {sender}: {trace.dropped}"
        assert trace.destination == receiver.rtp, (
            f"the audio of {sender} arrives at {trace.destination}, not at {receiver.rtp}")
        assert trace.source == expected, (
            f"the audio of {sender} comes from {trace.source}; {receiver} was told {expected}")

    def told_media(self, agent: Agent) -> Endpoint:
        """Return where *agent* was told to send audio, by the newest SDP it has received."""
        messages = [item.message for item in agent.inbox if b"m=audio" in item.message.body]
        assert messages, f"{agent} has received no SDP"
        return self.media_of(messages[-1])

    def media_of(self, message: Sip) -> Endpoint:
        """Return where a message's first audio stream wants its media."""
        return next(stream.rtp for stream in streams_of(message.body) if stream.kind == "audio")

    def story(self) -> str:
        """Return every message, what natfix changed in it and did for it, and every media packet."""
        return "\n".join(map(str, self.log))


def told(world: World) -> Iterator[World]:
    """Lend *world* to a test; pytest shows its story where the test fails."""
    yield world
    print(world.story())


def skeleton_of(settings: Settings) -> Skeleton:
    """Return what the kernel is told of *settings*."""
    signalling = settings.signalling
    return Skeleton((settings.outside.interface or "outside",), signalling.ports, settings.media.ports,
                    signalling.mark, signalling.queue, signalling.on_failure == "pass",
                    own_pbx=settings.gateway.pbx == "local")


def _credentials(agent: Agent) -> str:
    domain = agent.address.partition("@")[2]
    return (f'Digest username="{agent.user}", realm="{domain}", nonce="4711", uri="sip:{domain}", '
            f'response="0123456789abcdef0123456789abcdef"')


def _short(item: object) -> str:
    """Write a command, note or trace without the names that everybody knows."""
    text = re.sub(r"Endpoint\(host='([^']*)', port=(\d+)\)", r"\1:\2", repr(item))
    names = r"\b(?!remote|lifetime|inward|fixed|dropped|reason)[a-z_]+="
    return re.sub(rf"{names}(?:<Kind\.)?|: 'media'>|: 'signalling'>", "", text)


def _lines(payload: bytes) -> list[str]:
    return payload.decode(errors="backslashreplace").split("\r\n")


__all__ = ["Agent", "Call", "Delivery", "Leg", "Sip", "World"]
