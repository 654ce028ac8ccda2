"""Interfaces: which link is outside, and what lies inside, from the kernel's tables or the configuration."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from natfix.address import Network, network_from_text
from natfix.config import Outside, Settings, config_from_text
from natfix.errors import ConfigError
from natfix.interfaces import (
    Links,
    Route,
    addresses_report,
    inside_networks,
    is_own_address,
    links_from_json,
    links_now,
    outside_address,
    outside_interface,
)
from natfix.reports import AddressesChanged

# As `ip -j -4 address` and `ip -j -d -4 route` of iproute2 6.1 print it, cut to the keys that matter.
ADDRESSES = '''[
 {"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
 {"ifname":"wan0","addr_info":[{"local":"203.0.113.1","prefixlen":24},{"local":"203.0.113.2","prefixlen":24}]},
 {"ifname":"lan0","addr_info":[{"local":"192.168.1.1","prefixlen":24}]},
 {"ifname":"lan1","addr_info":[{"local":"192.168.2.1","prefixlen":24}]},
 {"ifname":"tun0","addr_info":[{"local":"10.8.0.1","address":"10.8.0.2","prefixlen":32}]},
 {"ifname":"idle0","addr_info":[]}
]'''
ROUTES = '''[
 {"type":"unicast","dst":"default","gateway":"203.0.113.254","dev":"wan0","protocol":"static","flags":[]},
 {"type":"unicast","dst":"203.0.113.0/24","dev":"wan0","protocol":"kernel","scope":"link"},
 {"type":"unicast","dst":"192.168.1.0/24","dev":"lan0","protocol":"kernel","scope":"link"},
 {"type":"unicast","dst":"192.168.2.0/24","dev":"lan1","protocol":"kernel","scope":"link"},
 {"type":"unicast","dst":"10.8.0.2","dev":"tun0","protocol":"kernel","scope":"link"},
 {"type":"unicast","dst":"10.20.0.0/16","gateway":"192.168.1.254","dev":"lan0","protocol":"static"},
 {"type":"unicast","dst":"169.254.0.0/16","dev":"lan0","scope":"link","metric":1000},
 {"type":"blackhole","dst":"10.0.0.0/8"},
 {"type":"multicast","dst":"224.0.0.0/4","dev":"lan0"}
]'''
GATEWAY = links_from_json(json.loads(ADDRESSES), json.loads(ROUTES))


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
    routes = [{"dst": "default", "nexthops": [{"dev": "wan0"}, {"dev": "lan1"}]}]
    links = links_from_json(json.loads(ADDRESSES), routes)
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
    """What `ip` prints in a namespace with a gateway's links is understood."""
    script = (
        "ip link add wan0 type veth peer name lan0;"
        "ip address add 203.0.113.1/24 dev wan0; ip link set wan0 up;"
        "ip address add 192.168.1.1/24 dev lan0; ip link set lan0 up;"
        "ip route add default via 203.0.113.254; ip route add 10.20.0.0/16 via 192.168.1.254;"
        "ip route add blackhole 10.0.0.0/8; ip -j -4 address show; ip -j -d -4 route show table main"
    )
    done = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, text=True, check=True)
    addresses, routes = done.stdout.splitlines()
    report = addresses_report(Settings(), links_from_json(json.loads(addresses), json.loads(routes)))
    assert report.outside == {"wan0": "203.0.113.1"}
    assert set(report.inside) == {(network, "lan0") for network in networks("192.168.1.0/24", "10.20.0.0/16")}


def test_this_host_can_be_read() -> None:
    """Reading the real links of this host raises nothing and finds its loopback address."""
    assert "127.0.0.1" in links_now().addresses.get("lo", ("127.0.0.1",))
