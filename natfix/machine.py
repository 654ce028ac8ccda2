"""How the live shell looks at this machine: links, kernel, sockets of programs, rules of the operator.

Each of these asks programs or reads much, so only the start waits for them; later they are asked beside
the loop. Tests put other answers in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from natfix.address import Endpoint
from natfix.errors import NatfixError
from natfix.firewall import Facts, Ruleset
from natfix.firewall_now import forwarded_udp_ports, ruleset_now
from natfix.interfaces import Links, links_now
from natfix.kernel.probe import Capabilities, probe
from natfix.reports import AddressesChanged, PortsInUse
from natfix.watch import local_udp_ports

# Kernels before 6.0 could attach helpers by themselves, by the port alone.
AUTO_ASSIGNMENT = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
HELPER_MODULE = Path("/sys/module/nf_conntrack_sip")
UDP: Facts = {"proto": frozenset({"udp"}), "nfproto": frozenset({"ipv4"})}

log = logging.getLogger("natfix")


def helpers_among(
    ruleset: Ruleset, sysctl: Path = AUTO_ASSIGNMENT, module: Path = HELPER_MODULE,
) -> list[str]:
    """Return every place that attaches the kernel's own SIP helper to flows, in the operator's words."""
    places = [
        f'"ct helper" in {chain.table} {chain.name} {rule.handle}'.rstrip()
        for chain, rule, effect in ruleset.effects("helper", UDP) if effect.value == "sip"
    ]
    if module.exists() and _reads(sysctl) == "1":
        places.append("the sysctl net.netfilter.nf_conntrack_helper = 1")
    return places


def _reads(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def sip_helpers() -> Sequence[str]:
    """Return where the kernel's SIP helper is attached now; nothing where the rules cannot be read."""
    try:
        return helpers_among(ruleset_now())
    except NatfixError as problem:
        log.warning("whether the kernel's SIP helper is in the way cannot be seen: %s", problem)
        return ()


def ports_in_use(addresses: AddressesChanged) -> PortsInUse:
    """Return the UDP ports of the outside address that local programs or the operator's forwards have."""
    hosts = tuple(addresses.outside.values())
    local = local_udp_ports(hosts)
    try:
        return PortsInUse(local, _forwards(ruleset_now(), tuple(addresses.outside), hosts))
    except NatfixError as problem:
        log.warning("the operator's own port forwards cannot be seen: %s", problem)
        return PortsInUse(local)


def _forwards(
    ruleset: Ruleset, interfaces: Iterable[str], hosts: Collection[str],
) -> dict[int, Endpoint | None]:
    """Return the ports that the operator forwards; where they lead is not known."""
    ports = [port for interface in interfaces for port in forwarded_udp_ports(ruleset, interface, hosts)]
    return dict.fromkeys(ports)


@dataclass(frozen=True, slots=True)
class Machine:
    """The ways to look at it."""

    links: Callable[[], Links] = links_now
    capabilities: Callable[[], Capabilities] = probe
    helpers: Callable[[], Sequence[str]] = sip_helpers
    ports_in_use: Callable[[AddressesChanged], PortsInUse] = ports_in_use
