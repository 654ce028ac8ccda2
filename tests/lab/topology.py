"""Networks of the lab as data: which host sits on which subnet, at which address, behind which router.

A topology is a table; :mod:`tests.lab.namespaces` builds it. Outside hosts send what they cannot
reach to a router that swallows it, as the Internet does with packets for private addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

INSIDE = "inside"           # the gateway's interface into 192.168.1.0/24, and that subnet's name
INSIDE2 = "inside2"         # the same for 192.168.2.0/24
OUTSIDE = "outside"         # the same for 203.0.113.0/24
OUTSIDE2 = "outside2"       # the same for 198.51.100.0/24, a second provider's

GATEWAY_ADDRESS = "203.0.113.1"
PROVIDER_ADDRESS = "203.0.113.50"
PBX_ADDRESS = "192.168.1.5"
VOID_ADDRESS = "203.0.113.254"      # the router of the outside hosts: it drops everything


class Link(NamedTuple):
    """One interface of a host."""

    interface: str
    subnet: str
    address: str


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host: its links, and the address of its default router ("" for none)."""

    name: str
    links: tuple[Link, ...]
    router: str = ""
    forwards: bool = False
    nat: str = ""           # the kind of far NAT that it is, see tests.lab.far_nat


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts; ``subnets`` gives each subnet's prefix length and its drop-everything router ("" none)."""

    name: str
    subnets: dict[str, tuple[int, str]]
    hosts: tuple[HostRow, ...] = field(default=())

    def host(self, name: str) -> HostRow:
        """Return the row of host *name*; raises KeyError where there is none."""
        return {row.name: row for row in self.hosts}[name]


def _row(name: str, subnet: str, address: str, router: str) -> HostRow:
    return HostRow(name, (Link("eth0", subnet, address),), router)


def gateway_topology(phones: int = 2, second_phones: int = 0, remotes: int = 1,
                     two_links: bool = False) -> Topology:
    """One masquerading gateway: phones and a PBX inside, a provider and remote phones outside.

    Phones are ``phone1``... (192.168.1.10 and up), those of the second inside subnet ``second1``...
    (192.168.2.10 and up), those outside ``remote1``... (203.0.113.60 and up, at most 39). With *two_links*
    the gateway is 198.51.100.1 at a second provider, where ``other`` is 198.51.100.60; it is also the router
    from there to the first one's network.
    """
    gateway = HostRow("gateway", (
        Link(INSIDE, INSIDE, "192.168.1.1"),
        Link(INSIDE2, INSIDE2, "192.168.2.1"),
        *((Link(OUTSIDE2, OUTSIDE2, "198.51.100.1"),) if two_links else ()),
        Link(OUTSIDE, OUTSIDE, GATEWAY_ADDRESS),
    ), VOID_ADDRESS, forwards=True)
    rows = [
        gateway,
        _row("pbx", INSIDE, PBX_ADDRESS, "192.168.1.1"),
        _row("provider", OUTSIDE, PROVIDER_ADDRESS, VOID_ADDRESS),
        _row("stranger", OUTSIDE, "203.0.113.99", VOID_ADDRESS),
    ]
    rows += [_row(f"phone{n + 1}", INSIDE, f"192.168.1.{10 + n}", "192.168.1.1") for n in range(phones)]
    rows += [_row(f"second{n + 1}", INSIDE2, f"192.168.2.{10 + n}", "192.168.2.1")
             for n in range(second_phones)]
    rows += [_row(f"remote{n + 1}", OUTSIDE, f"203.0.113.{60 + n}", VOID_ADDRESS) for n in range(remotes)]
    subnets = {INSIDE: (24, ""), INSIDE2: (24, ""), OUTSIDE: (24, VOID_ADDRESS)}
    if two_links:
        rows.append(HostRow("other", (
            Link("eth1", OUTSIDE, "203.0.113.61"), Link("eth0", OUTSIDE2, "198.51.100.60"),
        ), forwards=True))
        subnets[OUTSIDE2] = (24, "")
    return Topology("gateway", subnets, tuple(rows))


def far_topology(kinds: tuple[str, ...] = ("port-restricted",), phones: int = 2, deep: bool = False,
                 inside_phones: int = 1) -> Topology:
    """The gateway with a PBX inside, and far sites: phones behind NATs of their own.

    Site 1 is ``nat1`` (203.0.113.71) with ``far1a``, ``far1b``; site 2 ``nat2`` with ``far2a``...; all use
    192.168.1.10 and up, as the inside phones do. *deep* adds a NAT behind that of site 1, with ``deep``.
    """
    near = gateway_topology(phones=inside_phones)
    rows, subnets = list(near.hosts), dict(near.subnets)
    for number, kind in enumerate(kinds, start=1):
        subnet = f"far{number}"
        subnets[subnet] = (24, "")
        rows.append(HostRow(f"nat{number}", (
            Link("inside", subnet, "192.168.1.1"), Link(OUTSIDE, OUTSIDE, f"203.0.113.{70 + number}"),
        ), VOID_ADDRESS, forwards=True, nat=kind))
        rows += [_row(f"{subnet}{chr(ord('a') + n)}", subnet, f"192.168.1.{10 + n}", "192.168.1.1")
                 for n in range(phones)]
    if deep:
        subnets["deep"] = (24, "")
        rows.append(HostRow("natdeep", (
            Link("inside", "deep", "10.0.3.1"), Link("outside", "far1", "192.168.1.20"),
        ), "192.168.1.1", forwards=True, nat="port-restricted"))
        rows.append(_row("deep", "deep", "10.0.3.10", "10.0.3.1"))
    return Topology("far", subnets, tuple(rows))


def pbx_on_gateway_topology(kinds: tuple[str, ...] = ("port-restricted",), phones: int = 1,
                            inside_phones: int = 1) -> Topology:
    """The far sites and inside phones of :func:`far_topology`; the PBX is for the gateway to run."""
    far = far_topology(kinds, phones, inside_phones=inside_phones)
    return Topology("pbx-on-gateway", far.subnets, tuple(row for row in far.hosts if row.name != "pbx"))


def pbx_inside_topology(kinds: tuple[str, ...] = ("port-restricted",), phones: int = 1,
                        inside_phones: int = 1, dmz: bool = False) -> Topology:
    """Far sites, inside phones, and the PBX beside those; with *dmz* in the second inside subnet."""
    far = far_topology(kinds, phones, inside_phones=inside_phones)
    pbx = _row("pbx", INSIDE2, "192.168.2.5", "192.168.2.1") if dmz else far.host("pbx")
    return Topology("pbx-inside", far.subnets,
                    tuple(pbx if row.name == "pbx" else row for row in far.hosts))


def double_nat_topology(kinds: tuple[str, ...] = ("port-restricted",), phones: int = 1,
                        inside_phones: int = 1) -> Topology:
    """The same with one more NAT, ``upstream`` (203.0.113.7), between the gateway (10.0.0.2) and outside."""
    near = pbx_inside_topology(kinds, phones, inside_phones)
    gateway = near.host("gateway")
    hidden = HostRow("gateway", (*gateway.links[:-1], Link(OUTSIDE, "between", "10.0.0.2")), "10.0.0.1",
                     forwards=True)
    upstream = HostRow("upstream", (
        Link("inside", "between", "10.0.0.1"), Link(OUTSIDE, OUTSIDE, "203.0.113.7"),
    ), VOID_ADDRESS, forwards=True)
    rows = [hidden if row is gateway else row for row in near.hosts]
    return Topology("double-nat", {**near.subnets, "between": (24, "")}, (*rows, upstream))


def hidden_server_topology(kinds: tuple[str, ...] = ("port-restricted",), phones: int = 1,
                           inside_phones: int = 1) -> Topology:
    """A server ("gateway", 192.168.1.5, one link) among its phones, behind ``upstream`` (203.0.113.7), a NAT
    that is not its own."""
    far = far_topology(kinds, phones, inside_phones=inside_phones)
    server = HostRow("gateway", (Link(OUTSIDE, INSIDE, "192.168.1.5"),), "192.168.1.1", forwards=True)
    upstream = HostRow("upstream", (
        Link("inside", INSIDE, "192.168.1.1"), Link(OUTSIDE, OUTSIDE, "203.0.113.7"),
    ), VOID_ADDRESS, forwards=True)
    rows = [server if row.name == "gateway" else row for row in far.hosts if row.name != "pbx"]
    return Topology("hidden-server", far.subnets, (*rows, upstream))


TOPOLOGIES: dict[str, Callable[..., Topology]] = {
    "gateway": gateway_topology,
    "far": far_topology,
    "pbx-inside": pbx_inside_topology,
    "double-nat": double_nat_topology,
    "hidden-server": hidden_server_topology,
    "pbx-on-gateway": pbx_on_gateway_topology,
}
