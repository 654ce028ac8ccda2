"""The one interface between natfix and a kernel: netfilter, or the fake that tests and replay use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from natfix.address import Endpoint, Network
from natfix.commands import Command, Flow, Kind, OwnPacket


class KernelMapping(NamedTuple):
    """A mapping as the kernel holds it, read back after a restart."""

    kind: Kind
    inside: Endpoint
    outside: Endpoint
    inward: bool
    lifetime: float     # seconds left
    owner: str          # the element's comment


class HeldElement(NamedTuple):
    """An element that natfix wants in one of its maps or sets, and what the kernel says of it."""

    name: str               # of the map or set
    key: str                # as nft writes it: "203.0.113.1 . 30000"
    value: str              # of a map's element
    is_present: bool
    lifetime: float         # seconds left


class FlowState(NamedTuple):
    """A conntrack entry as the kernel holds it. Packet counts are -1 where accounting is off."""

    flow: Flow              # as the kernel has it: ``source`` sent the first packet
    lifetime: float         # seconds left
    packets: int            # in the original direction
    reply_packets: int
    mark: int
    replied: bool           # IPS_SEEN_REPLY


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What the static part of the rule set needs to know."""

    outside_interfaces: tuple[str, ...]
    sip_ports: tuple[int, ...]
    media_ports: tuple[int, int]        # first and last port of the pool, inclusive
    mark: int                           # the one bit of the conntrack mark that diverts a flow
    queue: int                          # NFQUEUE number
    bypass: bool                        # on_failure = "pass": SIP passes unfixed while nobody listens
    divert: str = "auto"                # "auto" (probe), "queue" (nft statement) or "nfqueue" (xt target)
    own_pbx: bool = False               # SIP of the gateway's own is diverted, too
    intranet: tuple[Network, ...] = ()  # behind the outside interface, without NAT: left alone
    pace: int = 1000                    # packets a second of one host; 0: no bound
    trial: float = 0.0                  # seconds that the rules are in force; 0: without end


class Kernel(Protocol):
    """What a back end can do. Every method raises KernelRefused with one sentence where it cannot."""

    @property
    def entries_refused(self) -> int:
        """Times that conntrack did not take what natfix wanted."""

    @property
    def last_refusal(self) -> str:
        """What it said the last time, in one sentence."""

    def install(self, skeleton: Skeleton) -> None:
        """Put natfix's own table in place, in one transaction; what its maps already hold stays."""

    def apply(self, commands: Sequence[Command]) -> None:
        """Carry out *commands* in order: all elements in one transaction, then the entries.

        Raises KernelRefused for the elements only. An entry that cannot be had is counted in
        ``entries_refused``: the elements are there for that case.
        """

    def resync(self, commands: Sequence[Command]) -> None:
        """Make the maps hold just what *commands* add, in one transaction, then open their flows."""

    def mappings(self) -> list[KernelMapping]:
        """Read back every mapping (a dump: only at start)."""

    def flows(self) -> list[FlowState]:
        """Read back every UDP conntrack entry (a dump: only at start)."""

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        """Look up *flows* one by one, in either orientation; absent ones are left out."""

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        """Take the TCP connection whose SYN-ACK goes from *source* to *destination* out of window tracking.

        Both as the packet has them between DNAT and SNAT. Conntrack then takes whatever sequence numbers
        natfix makes. Returns the connection as a flow written from inside, whichever side opened it; None
        where there is no such entry with one NAT, or it cannot be done: its packets have to stay as they are.
        """

    def find_elements(self, commands: Iterable[Command]) -> list[HeldElement]:
        """Look up, one by one, the elements that *commands* would add; a dump would take long."""

    def refused(self) -> dict[Endpoint, int]:
        """Packets from strangers that the guard dropped, by outside endpoint."""

    def flooding(self) -> dict[str, int]:
        """Packets that were dropped since their host sent more than its rate allows, by host."""

    def send(self, packets: Sequence[OwnPacket]) -> int:
        """Send *packets* as they are, past conntrack and NAT; return how many failed."""

    def remove(self) -> None:
        """Delete natfix's table and every conntrack entry that natfix made; absence is no error."""
