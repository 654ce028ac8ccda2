"""What the engine is told besides packets: facts about links, ports, flows, and its own past."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from natfix.address import Endpoint, Network
from natfix.commands import Flow
from natfix.kernel.base import FlowState, KernelMapping


class Change(NamedTuple):
    """One row of the state that the kernel cannot hold; ``row`` None means it is gone."""

    table: str                      # "registrations", "dialogs", "ports"
    key: str
    row: dict[str, Any] | None      # JSON-able


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """The links as they are now; sent at start and after every change."""

    outside: dict[str, str]                         # interface -> its address; "" where it has none now
    inside: tuple[tuple[Network, str], ...]         # connected and routed inside networks, with interface
    own: frozenset[str] = frozenset()               # all addresses of the gateway, but for loopback's
    advertised: str = ""                            # what others see; "": the address itself


@dataclass(frozen=True, slots=True)
class PortsInUse:
    """UDP ports of the outside address that belong to others."""

    ports: frozenset[int]                               # local sockets
    forwards: dict[int, Endpoint | None] = field(default_factory=dict)
    """Ports that the operator's own DNAT rules take, with where they lead (None: several, or unknown)."""


@dataclass(frozen=True, slots=True)
class FlowAdopted:
    """A SIP flow that was NATed before natfix started keeps the outside port it has."""

    state: FlowState


@dataclass(frozen=True, slots=True)
class FlowBegan:
    """The kernel's maps have made a conntrack entry, as for media from a port that nobody announced."""

    flow: Flow              # as the kernel has it; of whomever: the engine knows its own


@dataclass(frozen=True, slots=True)
class FlowDestroyed:
    """A conntrack entry ended: its time was up, or somebody flushed the table."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The NAT of a TCP connection, whose SYN-ACK is the next packet."""

    flow: Flow              # written from inside, whoever opened the connection


@dataclass(frozen=True, slots=True)
class FlowCounters:
    """What the kernel counted, in answer to :meth:`natfix.engine.Engine.flows_of_interest`."""

    states: dict[Flow, FlowState]
    refused: dict[Endpoint, int]
    flooding: dict[str, int] = field(default_factory=dict)      # packets over their host's rate, by host


@dataclass(frozen=True, slots=True)
class NamesResolved:
    """What DNS says, or said last, of the names of peers and domains: all names, each time."""

    hosts: dict[str, tuple[str, ...]]       # name in small letters -> IPv4 addresses of its servers


@dataclass(frozen=True, slots=True)
class Restored:
    """State from before a restart: the kernel's mappings and the stored rows."""

    mappings: tuple[KernelMapping, ...]
    rows: tuple[Change, ...]


Report = (
    AddressesChanged | PortsInUse | FlowAdopted | FlowBegan | FlowDestroyed | FlowCounters | NamesResolved
    | Restored | StreamOpened
)
