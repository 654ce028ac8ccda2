"""A gateway with natfix on it, in memory: the live daemon's engine on the fake kernel, by capture time.

It is driven as :mod:`natfix.loop` drives the real one: a packet comes to the gateway, is diverted, shown
to the engine, the commands are carried out, then it goes on through SNAT. Between packets timers run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    Command,
    DeleteMapping,
    Flow,
    Kind,
    Note,
    Outcome,
    Verdict,
)
from natfix.config import Inside, Outside, Settings
from natfix.edits import EditTuple
from natfix.engine import NO_QUIRKS, Engine
from natfix.errors import KernelRefused
from natfix.kernel.base import FlowState, Skeleton
from natfix.kernel.fake import Crossing, FakeKernel
from natfix.kernel.fake_conntrack import turned
from natfix.packet import UDP, Path
from natfix.quirks import Quirks
from natfix.reports import AddressesChanged, FlowAdopted, FlowBegan, FlowDestroyed, Report
from natfix.sip.message import Message

OUTSIDE = "outside"             # the interface's name in here
HEADERS = struct.Struct("!BBHHHBBH4s4sHHHH")
HEADER_LENGTH = HEADERS.size
LONGEST = 65535 - HEADER_LENGTH     # octets of payload
MAX_STEPS = 100_000             # timers between two packets; more means that the engine does not get on
MOST_MAPPINGS = 20_000          # that the result lists
MOST_HOSTS = 65_536             # whose interface is remembered
FORGET = 512                    # turns of the engine between two times that its changes are thrown away
ADOPTED = 120.0                 # seconds; of a flow from before the capture began


class Carried(NamedTuple):
    """What became of one datagram."""

    payload: bytes
    notes: list[Note]
    edits: EditTuple
    source: Endpoint
    destination: Endpoint
    dropped: str                # why it did not go on; "" where it did
    was_shown: bool             # natfix saw it


class QuickKernel(FakeKernel):
    """The fake kernel, which remembers by which interface a host is reached: no link changes here."""

    def __init__(self, inside: Iterable[str], outside: str) -> None:
        super().__init__(inside, outside, dnat_accepted=True)
        self.own_addresses = {outside}      # which inside address is the gateway's, nobody says
        self._known: dict[str, str] = {}

    def _interface(self, host: str) -> str:
        name = self._known.get(host)
        if name is None:
            if len(self._known) >= MOST_HOSTS:
                self._known.clear()
            name = self._known[host] = super()._interface(host)
        return name


class QuickEngine(Engine):
    """The engine, which need not read again what was read already."""

    read: Message | None = None         # a message that was taken apart before

    def read_message(self, payload: bytes) -> tuple[Message | None, str]:
        """Return what was read before, where it is the same."""
        if self.read is not None and self.read.raw == payload:
            return self.read, ""
        return super().read_message(payload)


class Gateway:
    """natfix at work between *inside* (IPv4 prefixes) and *outside* (an address)."""

    def __init__(
        self, settings: Settings, inside: Iterable[str], outside: str, quirks: Quirks = NO_QUIRKS,
    ) -> None:
        self._kernel = QuickKernel(inside, outside)
        networks = tuple(self._kernel.networks.values())
        self.settings = _settings(settings, networks, outside)
        self._engine = QuickEngine(self.settings, quirks)
        self._kernel.install(_skeleton_of(self.settings))
        self._now = 0.0
        self._turns = 0
        self._rows: dict[tuple[Endpoint, Endpoint, Kind], dict[str, Any]] = {}
        self._ended: list[dict[str, Any]] = []
        self.mappings_left_out = 0
        links = tuple((network, name) for name, network in self._kernel.networks.items())
        self._report(AddressesChanged({OUTSIDE: outside}, links))

    def outside_of(self, inside: Endpoint) -> Endpoint | None:
        """Return the outside endpoint that natfix has given *inside*, None where it has none yet."""
        return self._kernel.elements.outside_of(inside)

    def is_diverted(self, source: Endpoint, destination: Endpoint) -> bool:
        """Tell whether SIP between these would be shown to natfix: by a port of [signalling] ports."""
        ports = self.settings.signalling.ports
        return source.port in ports or destination.port in ports or self.outside_of(source) is not None

    def lets_in(self, peer: Endpoint, inside: Endpoint) -> bool:
        """Tell whether a packet from *peer* would reach *inside* now: by a flow, or by an open mapping."""
        outside = self.outside_of(inside)
        if outside is None:
            return False
        has_flow = bool(self._kernel.counters([Flow(inside, peer, peer, outside)]))
        return has_flow or self._kernel.elements.inside_of(outside, peer.host) == inside

    def advance(self, until: float) -> None:
        """Let time pass: every timer of the engine fires, and everything in the kernel ends, in order."""
        if self._now == 0.0:
            self._now = until
        for _ in range(MAX_STEPS):
            due = self._engine.next_timeout()
            end = self._kernel.next_end()
            if (due is None or due > until) and end > until:
                break
            self._now = max(self._now, min(until if due is None else due, end, until))
            self._kernel.advance(self._now)
            self._report_flows()
            if due is not None and due <= self._now:
                self._follow(self._engine.handle_timer(self._now))
        self._now = max(self._now, until)

    def adopt(self, inside: Endpoint, peer: Endpoint) -> None:
        """Take a flow for granted that began before the capture did."""
        outside = self.outside_of(inside) or Endpoint(self._kernel.outside_address, inside.port)
        flow = Flow(inside, peer, peer, outside)
        self._report(FlowAdopted(FlowState(flow, ADOPTED, 0, 0, 0, True)))

    def transmit(self, source: Endpoint, destination: Endpoint, payload: bytes, now: float,
                 message: Message | None = None) -> Carried:
        """Carry one datagram that comes to the gateway at *now*; *message* is what it holds, where known."""
        self._engine.read = message
        self.advance(now)
        now = self._now
        crossing = self._kernel.enter(source, destination, now)
        outcome = Outcome()
        is_shown = crossing.diverted and not crossing.dropped
        if is_shown:
            outcome = self._show(crossing, payload, now)
        trace = self._kernel.leave(crossing)
        self._report_flows()
        after = outcome.packet[HEADER_LENGTH:] if outcome.packet is not None else payload
        return Carried(after, outcome.notes, outcome.edits, trace.source, trace.destination, trace.dropped,
                       is_shown)

    def _show(self, crossing: Crossing, payload: bytes, now: float) -> Outcome:
        self._count_turn()
        raw = datagram_bytes(crossing.source, crossing.destination, payload)
        path = Path(crossing.hook, crossing.in_interface, crossing.out_interface, crossing.entry.mark)
        outcome = self._engine.receive_packet(raw, path, now)
        applied = self._apply(outcome.commands)
        if outcome.verdict is Verdict.DROP or not applied:
            crossing.dropped = "natfix dropped it" if applied else "the kernel refused what it needs"
        return outcome

    def _report_flows(self) -> None:
        for begun in self._kernel.pop_begun():
            self._report(FlowBegan(begun))
        for ended in self._kernel.pop_ended():
            wanted = self._engine.flows_of_interest()
            is_gone = not self._kernel.counters([ended])        # it may have been made anew
            if is_gone and (ended in wanted or turned(ended) in wanted):
                self._report(FlowDestroyed(ended))

    def _report(self, report: Report) -> None:
        self._follow(self._engine.handle_report(report, self._now))

    def _follow(self, outcome: Outcome) -> None:
        self._apply(outcome.commands)
        self._count_turn()

    def _count_turn(self) -> None:
        """The engine collects what the store has to write."""
        self._turns += 1
        if self._turns % FORGET == 0:
            self._engine.forget_changes()

    def _apply(self, commands: list[Command]) -> bool:
        if not commands:
            return True
        try:
            self._kernel.apply(commands)
        except KernelRefused:
            self._kernel.resync(self._engine.desired())
            return False
        for command in commands:
            kind = type(command)
            if kind is AddMapping or kind is DeleteMapping:
                self._note_command(command)
        return True

    def _note_command(self, command: Command) -> None:
        if isinstance(command, AddMapping):
            key = (command.inside, command.outside, command.kind)
            if key not in self._rows:
                self._rows[key] = {
                    "inside": str(command.inside), "outside": str(command.outside),
                    "kind": str(command.kind), "holder": command.owner, "since": self._now, "until": None}
            else:
                self._rows[key]["holder"] = command.owner or self._rows[key]["holder"]
        elif isinstance(command, DeleteMapping):
            row = self._rows.pop((command.inside, command.outside, command.kind), None)
            if row is not None and len(self._ended) < MOST_MAPPINGS:
                self._ended.append({**row, "until": self._now})
            elif row is not None:
                self.mappings_left_out += 1

    def mappings(self) -> list[dict[str, Any]]:
        """Return what natfix held, in the order in which it began to."""
        rows = [*self._ended, *self._rows.values()]
        return sorted(rows, key=lambda row: (row["since"], row["kind"], row["outside"], row["inside"]))


def datagram_bytes(source: Endpoint, destination: Endpoint, payload: bytes) -> bytes:
    """Return the IPv4 packet as it would stand in the queue; natfix reads no checksum there."""
    length = 8 + len(payload)
    return HEADERS.pack(
        0x45, 0, 20 + length, 0, 0, 64, UDP, 0, _packed(source.host), _packed(destination.host),
        source.port, destination.port, length, 0) + payload


@lru_cache(maxsize=8192)
def _packed(host: str) -> bytes:
    return bytes(map(int, host.split(".")))


def _settings(settings: Settings, networks: tuple[Any, ...], outside: str) -> Settings:
    # Nobody in a capture answers what natfix itself would have sent, or repeats what it would have dropped.
    limits = replace(settings.limits, requests_per_host=0, requests_per_peer=0)
    return replace(
        settings, inside=Inside(networks=networks), outside=Outside(interface=OUTSIDE, address=outside),
        far_end=replace(settings.far_end, keep_open="never"), limits=limits)


def _skeleton_of(settings: Settings) -> Skeleton:
    signalling = settings.signalling
    return Skeleton((OUTSIDE,), signalling.ports, settings.media.ports, signalling.mark, signalling.queue,
                    bypass=signalling.on_failure == "pass")
