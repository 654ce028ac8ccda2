"""Which link is outside, what its address is, and which networks are inside: read from the kernel's own
tables, unless the configuration says so.

:func:`links_now` asks rtnetlink; all else is arithmetic on what it said.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from natfix.address import UNUSABLE, Network, host_to_int, network_from_text
from natfix.config import Outside, Settings
from natfix.errors import ConfigError, NatfixError
from natfix.expect import suggestion
from natfix.reports import AddressesChanged

TIMEOUT = 60.0                      # seconds; it takes 0.2, and 20 on an emulated machine under load
MAIN_TABLE, UNICAST = 254, 1        # linux/rtnetlink.h: RT_TABLE_MAIN, RTN_UNICAST
CARRIES = 0x1 | 0x10000             # linux/if.h: IFF_UP, IFF_LOWER_UP

# A route to half of all addresses is a default route in disguise (OpenVPN's 0.0.0.0/1 and 128.0.0.0/1).
WIDEST_NETWORK = 4      # bits of the shortest prefix that can be a network behind us


class Route(NamedTuple):
    """Where packets to a network go."""

    network: Network
    interface: str

    @property
    def is_default(self) -> bool:
        return self.network.mask.bit_count() < WIDEST_NETWORK


class Steered(NamedTuple):
    """Where packets with a mark go: a default route in the table that an `ip rule` gives them."""

    mark: int
    mask: int
    interface: str


class Links(NamedTuple):
    """The IPv4 side of this host."""

    addresses: Mapping[str, tuple[str, ...]]    # interface -> its addresses, the primary one first
    routes: tuple[Route, ...]                   # of the main table, unicast only
    down: frozenset[str] = frozenset()          # interfaces that are there, and carry nothing now
    steered: tuple[Steered, ...] = ()           # links_now() alone tells these

    @property
    def default_interfaces(self) -> tuple[str, ...]:
        """The interfaces that some default route leaves by."""
        return tuple(dict.fromkeys(route.interface for route in self.routes if route.is_default))

    @property
    def addressed(self) -> tuple[str, ...]:
        """The interfaces that have an address and are no loopback."""
        return tuple(name for name, addresses in self.addresses.items() if addresses and name != "lo")


def links_now() -> Links:
    """Return the links as they are; raises NatfixError where rtnetlink cannot say."""
    try:
        from pyroute2 import IPRoute  # 0.1 s: only when it is needed
    except ImportError:
        raise NatfixError("the package pyroute2 is missing: pip install 'natfix[live]'") from None
    try:
        with IPRoute() as rtnetlink:
            found = list(rtnetlink.get_links())
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in found}
            addresses = list(rtnetlink.get_addr(family=socket.AF_INET))
            routes = list(rtnetlink.get_routes(family=socket.AF_INET, table=MAIN_TABLE))
            steered = tuple(_steered(rtnetlink, names))
    except OSError as problem:
        raise NatfixError(f"rtnetlink does not tell the links ({problem.strerror})") from None
    down = frozenset(names[link["index"]] for link in found if link["flags"] & CARRIES != CARRIES)
    return links_from_rtnetlink(names, addresses, routes)._replace(down=down, steered=steered)


def _steered(rtnetlink: Any, names: Mapping[int, str]) -> Iterator[Steered]:
    for rule in rtnetlink.get_rules(family=socket.AF_INET):
        mark, table = rule.get_attr("FRA_FWMARK"), rule.get_attr("FRA_TABLE")
        if mark and table:
            mask = rule.get_attr("FRA_FWMASK") or 0xFFFFFFFF
            for route in _routes(names, list(rtnetlink.get_routes(family=socket.AF_INET, table=table))):
                if route.is_default:
                    yield Steered(mark, mask, route.interface)


def links_by_program() -> Links:
    """Return what :func:`links_now` does, asked by a program of its own (this module); raises likewise.

    The daemon must not hold a tenth of its memory, pyroute2, for three lists that it seldom wants.
    """
    try:
        done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True,
                              timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NatfixError(f"the links cannot be asked for ({problem})") from None
    if done.returncode:
        raise NatfixError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return _links_from_json(done.stdout)


def _links_from_json(text: str) -> Links:
    told = json.loads(text)
    routes = (Route(network_from_text(network), interface) for network, interface in told["routes"])
    addresses = {name: tuple(hosts) for name, hosts in told["addresses"].items()}
    return Links(addresses, tuple(routes), frozenset(told["down"]))


def _links_as_json(links: Links) -> str:
    routes = [(str(route.network), route.interface) for route in links.routes]
    return json.dumps({"addresses": dict(links.addresses), "routes": routes, "down": sorted(links.down)})


def links_from_rtnetlink(names: Mapping[int, str], addresses: list[Any], routes: list[Any]) -> Links:
    """Return the links that rtnetlink's messages describe (pyroute2's, or anything like them)."""
    by_name: dict[str, tuple[str, ...]] = dict.fromkeys(names.values(), ())
    for address in addresses:
        name = names[address["index"]]
        by_name[name] = (*by_name[name], address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))
    return Links(by_name, tuple(_routes(names, routes)))


def outside_interface(links: Links, outside: Outside) -> str:
    """Return the name of the link that leads outside.

    Raises ConfigError, with the candidates, where it is not there, or several or none could be meant.
    """
    if outside.interface:
        if outside.interface in links.addresses:
            return outside.interface
        hint = suggestion(outside.interface, tuple(links.addresses))
        raise ConfigError(
            f'there is no interface "{outside.interface}" ([outside] interface); '
            f"{hint or 'there are ' + (', '.join(links.addresses) or 'none')}")
    candidates = links.default_interfaces
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigError(
            f"default routes leave by {len(candidates)} interfaces ({', '.join(candidates)}): "
            f'say in natfix.toml which one is outside, for instance [outside] interface = "{candidates[0]}"')
    raise ConfigError(
        "no default route tells which interface is outside: say it in natfix.toml, [outside] interface "
        f"= one of {', '.join(links.addressed) or '(no interface has an IPv4 address)'}")


def outside_address(links: Links, outside: Outside, interface: str) -> str:
    """Return the address that the phones' packets leave from; raises ConfigError where there is none."""
    if outside.address:
        return outside.address
    for address in links.addresses.get(interface, ()):
        return address
    raise ConfigError(f"{interface} is outside and has no IPv4 address: wait until it is up, or name another "
                      "in natfix.toml, [outside] interface")


def outside_links(links: Links, settings: Settings) -> dict[str, str]:
    """Return each outside link's address, the first link first.

    With [[link]]s one may be missing, down, or without an address: it has "" then. Raises ConfigError like
    :func:`outside_interface` and :func:`outside_address` where none has one.
    """
    outside = settings.outside
    if not settings.links:
        interface = outside_interface(links, outside)
        return {interface: outside_address(links, outside, interface)}
    if not outside.interface:
        raise ConfigError("natfix.toml has a [[link]], and does not name the first outside link: say in it "
                          '[outside] interface = "..."')
    wanted = {outside.interface: outside.address} | {each.interface: each.address for each in settings.links}
    found = {name: _address_now(links, name, address) for name, address in wanted.items()}
    if not any(found.values()):
        raise ConfigError(f"none of the outside links ({', '.join(found)}) is up and has an IPv4 address")
    return found


def _address_now(links: Links, interface: str, configured: str) -> str:
    if interface in links.down or not links.addresses.get(interface):
        return ""
    return configured or links.addresses[interface][0]


def inside_networks(links: Links, settings: Settings, interface: str) -> tuple[tuple[Network, str], ...]:
    """Return the networks behind this gateway, each with the link that leads there ("" where none does).

    *interface* is the outside one. Without configuration: all that is routed by other links.
    """
    if settings.inside.networks:
        return tuple((network, _link_to(links, network)) for network in settings.inside.networks)
    elsewhere = {interface, "lo", *(link.interface for link in settings.links)}
    return tuple(dict.fromkeys(
        (route.network, route.interface) for route in links.routes
        if route.interface not in elsewhere and not (route.is_default or _is_unusable(route.network))
    ))


def addresses_report(settings: Settings, links: Links) -> AddressesChanged:
    """Return what the engine is told of *links*; raises ConfigError like :func:`outside_interface`."""
    outside = outside_links(links, settings)
    own = frozenset(host for name in links.addressed for host in links.addresses[name])
    return AddressesChanged(outside, inside_networks(links, settings, next(iter(outside))), own)


def _routes(names: Mapping[int, str], routes: list[Any]) -> Iterator[Route]:
    for route in routes:
        if route["type"] != UNICAST:
            continue        # blackhole, unreachable, prohibit: leads nowhere
        network = network_from_text(f"{route.get_attr('RTA_DST') or '0.0.0.0'}/{route['dst_len']}")
        hops = route.get_attr("RTA_MULTIPATH") or ()
        for index in [hop["oif"] for hop in hops] or [route.get_attr("RTA_OIF")]:
            if index in names:
                yield Route(network, names[index])


def _link_to(links: Links, network: Network) -> str:
    """Return the interface of the longest route that covers all of *network*, or ""."""
    covering = [
        route for route in links.routes
        if route.network.mask & network.mask == route.network.mask
        and network.base & route.network.mask == route.network.base and not route.is_default
    ]
    return max(covering, key=lambda route: route.network.mask).interface if covering else ""


def _is_unusable(network: Network) -> bool:
    return any(network.base & mask == base for base, mask in UNUSABLE)


def is_own_address(links: Links, host: str) -> bool:
    """Tell whether *host* is an address of this gateway."""
    return any(host_to_int(host) == host_to_int(own) for each in links.addresses.values() for own in each)


def main() -> int:
    """Print the links as JSON, for :func:`links_by_program`; a problem is one sentence on stderr."""
    try:
        print(_links_as_json(links_now()))
    except NatfixError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
