"""Interfaces: which link is outside, and what lies inside, from the kernel's tables or the configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from natfix.address import Network, network_from_text
from natfix.config import Outside, Settings, config_from_text
from natfix.errors import ConfigError, NatfixError
from natfix.interfaces import (
    Links,
    Route,
    addresses_report,
    inside_networks,
    is_own_address,
    links_by_program,
    links_from_rtnetlink,
    links_now,
    outside_address,
    outside_interface,
    outside_links,
)
from natfix.reports import AddressesChanged


class Message(dict[str, Any]):
    """An rtnetlink message as pyroute2 gives it: fields by key, attributes by name."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


NAMES = {1: "lo", 2: "wan0", 3: "lan0", 4: "lan1", 5: "tun0", 6: "idle0"}
ADDRESSES = [
    Message(index=1, IFA_LOCAL="127.0.0.1"), Message(index=2, IFA_LOCAL="203.0.113.1"),
    Message(index=2, IFA_LOCAL="203.0.113.2"), Message(index=3, IFA_LOCAL="192.168.1.1"),
    Message(index=4, IFA_LOCAL="192.168.2.1"),
    Message(index=5, IFA_LOCAL="10.8.0.1", IFA_ADDRESS="10.8.0.2"),
]


def route(destination: str, interface: int | None, kind: int = 1, **more: Any) -> Message:
    """Return the message of one route; *kind* 1 is unicast, 6 blackhole, 5 multicast."""
    host, _, length = destination.partition("/")
    return Message(type=kind, dst_len=int(length), RTA_DST=None if length == "0" else host,
                   RTA_OIF=interface, **more)


ROUTES = [
    route("0.0.0.0/0", 2), route("203.0.113.0/24", 2), route("192.168.1.0/24", 3), route("192.168.2.0/24", 4),
    route("10.8.0.2/32", 5), route("10.20.0.0/16", 3), route("169.254.0.0/16", 3),
    route("10.0.0.0/8", None, 6), route("224.0.0.0/4", 3, 5),
]
GATEWAY = links_from_rtnetlink(NAMES, ADDRESSES, ROUTES)


def with_default(*interfaces: str) -> Links:
    """Return the gateway with default routes by just these interfaces."""
    others = tuple(route for route in GATEWAY.routes if not route.is_default)
    defaults = tuple(Route(network_from_text("0.0.0.0/0"), name) for name in interfaces)
    return GATEWAY._replace(routes=defaults + others)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(network_from_text, texts))


def test_gateway_needs_no_configuration() -> None:
    """One default route: its link is outside, its first address counts, all other routes are inside."""
    assert addresses_report(Settings(), GATEWAY) == AddressesChanged(
        outside={"wan0": "203.0.113.1"},
        inside=tuple(zip(
            networks("192.168.1.0/24", "192.168.2.0/24", "10.8.0.2", "10.20.0.0/16"),
            ("lan0", "lan1", "tun0", "lan0"), strict=True)),
        own=frozenset({"192.168.1.1", "192.168.2.1", "10.8.0.1", "203.0.113.1", "203.0.113.2"}),
    )


def test_several_default_routes_list_the_candidates() -> None:
    """With default routes on two links natfix does not guess."""
    with pytest.raises(ConfigError, match=r"leave by 2 interfaces \(wan0, tun0\): say .* = \"wan0\""):
        outside_interface(with_default("wan0", "tun0"), Outside())


def test_two_default_routes_by_one_link_are_one() -> None:
    """Two routers on the same link leave no doubt."""
    assert outside_interface(with_default("wan0", "wan0"), Outside()) == "wan0"


def test_multipath_route_counts_each_hop() -> None:
    """A multipath default route over two links is two candidates."""
    routes = [route("0.0.0.0/0", None, RTA_MULTIPATH=[{"oif": 2}, {"oif": 4}])]
    links = links_from_rtnetlink(NAMES, ADDRESSES, routes)
    assert links.default_interfaces == ("wan0", "lan1")


def test_vpn_that_takes_both_halves_is_a_candidate() -> None:
    """Routes to 0.0.0.0/1 and 128.0.0.0/1 make their link a candidate, never an inside network."""
    halves = tuple(Route(network, "tun0") for network in networks("0.0.0.0/1", "128.0.0.0/1"))
    links = GATEWAY._replace(routes=GATEWAY.routes + halves)
    assert links.default_interfaces == ("wan0", "tun0")
    assert not any(network.mask.bit_count() < 2 for network, _ in inside_networks(links, Settings(), "wan0"))


def test_no_default_route_lists_the_candidates() -> None:
    """Without any default route the links that have an address are named."""
    with pytest.raises(ConfigError, match=r"one of wan0, lan0, lan1, tun0$"):
        outside_interface(with_default(), Outside())


def test_configured_interface_wins() -> None:
    """What the configuration says needs no default route."""
    assert outside_interface(with_default("wan0", "tun0"), Outside(interface="tun0")) == "tun0"


def test_unknown_interface_is_an_error_with_suggestion() -> None:
    """A configured interface that is not there is an error that names what may have been meant."""
    with pytest.raises(ConfigError, match=r'no interface "wan" .*did you mean "wan0"'):
        outside_interface(GATEWAY, Outside(interface="wan"))
    with pytest.raises(ConfigError, match="there are lo, wan0"):
        outside_interface(GATEWAY, Outside(interface="xyzzy"))


def test_interface_without_address_is_an_error() -> None:
    """A link that is down or has no lease yet gives one clear sentence."""
    with pytest.raises(ConfigError, match="idle0 is outside and has no IPv4 address"):
        outside_address(GATEWAY, Outside(), "idle0")


def test_configured_address_wins() -> None:
    """The configured address is taken, even where it is only routed here."""
    assert outside_address(GATEWAY, Outside(address="198.51.100.1"), "wan0") == "198.51.100.1"


TWO_LINKS = config_from_text('[outside]\ninterface = "wan0"\n[[link]]\ninterface = "tun0"', "natfix.toml")


def test_several_outside_links() -> None:
    """Each has its address, and none of their networks lies inside."""
    report = addresses_report(TWO_LINKS, GATEWAY)
    assert report.outside == {"wan0": "203.0.113.1", "tun0": "10.8.0.1"}
    assert {link for _, link in report.inside} == {"lan0", "lan1"}


def test_one_of_several_links_may_be_missing() -> None:
    """One that is down or not there has no address, the first one, too; without any nothing can be done."""
    assert outside_links(GATEWAY._replace(down=frozenset({"wan0"})), TWO_LINKS) == {
        "wan0": "", "tun0": "10.8.0.1"}
    gone = {name: hosts for name, hosts in GATEWAY.addresses.items() if name != "tun0"}
    assert outside_links(GATEWAY._replace(addresses=gone), TWO_LINKS)["tun0"] == ""
    with pytest.raises(ConfigError, match=r"none of the outside links \(wan0, tun0\) is up"):
        outside_links(GATEWAY._replace(down=frozenset({"wan0", "tun0"})), TWO_LINKS)
    unnamed = config_from_text('[[link]]\ninterface = "tun0"', "natfix.toml")
    with pytest.raises(ConfigError, match="does not name the first outside link"):
        outside_links(GATEWAY, unnamed)


def test_configured_networks_get_their_links() -> None:
    """Each configured network is paired with the link of the longest route that covers it."""
    text = '[inside]\nnetworks = ["192.168.1.128/25", "10.20.0.0/16", "172.16.0.0/12"]'
    settings = config_from_text(text, "natfix.toml")
    assert [link for _, link in inside_networks(GATEWAY, settings, "wan0")] == ["lan0", "lan0", ""]


def test_own_addresses() -> None:
    """The gateway knows its own addresses on every link."""
    assert is_own_address(GATEWAY, "192.168.2.1")
    assert not is_own_address(GATEWAY, "192.168.2.2")


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_reads_a_real_kernel() -> None:
    """A namespace with a gateway's links is read as it is."""
    script = (
        "ip link add wan0 type veth peer name lan0;"
        "ip address add 203.0.113.1/24 dev wan0; ip link set wan0 up;"
        "ip address add 192.168.1.1/24 dev lan0; ip link set lan0 up;"
        "ip route add default via 203.0.113.254; ip route add 10.20.0.0/16 via 192.168.1.254;"
        "ip route add blackhole 10.0.0.0/8; exec "
    )
    program = ("from natfix.config import Settings; from natfix.interfaces import *; "
               "report = addresses_report(Settings(), links_now()); "
               "print(report.outside, sorted(f'{network} {name}' for network, name in report.inside))")
    done = subprocess.run(["unshare", "-n", "sh", "-ec", f"{script} {sys.executable} -c \"{program}\""],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str({"wan0": "203.0.113.1"}) + " " + str(
        ["10.20.0.0/16 lan0", "192.168.1.0/24 lan0"])


def test_this_host_can_be_read() -> None:
    """Reading the real links of this host raises nothing and finds its loopback address."""
    assert "127.0.0.1" in links_now().addresses.get("lo", ("127.0.0.1",))


def test_another_program_says_the_same() -> None:
    """The daemon's way to the links, a program of its own, tells what this process would be told."""
    assert links_by_program() == links_now()


def test_a_program_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is the reason; nothing of Python's own shows."""
    monkeypatch.setattr("natfix.interfaces.__name__", "natfix.no_such_module")
    with pytest.raises(NatfixError, match=r"No module named natfix\.no_such_module"):
        links_by_program()
