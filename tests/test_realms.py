"""Inside, outside, and who can reach whom."""

from dataclasses import replace

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.config import Gateway, Media, Outside, Settings, Static
from natfix.realms import Realms, is_usable
from natfix.reports import AddressesChanged

LINKS = AddressesChanged(
    {"wan": "203.0.113.1"},
    ((network_from_text("192.168.1.0/24"), "lan1"), (network_from_text("192.168.2.0/24"), "lan2")),
)


def realms(release: str = "subnet") -> Realms:
    made = Realms(Settings(media=Media(release=release)))
    assert made.update(LINKS)
    return made


def test_inside_is_what_the_links_say_but_never_the_gateway_itself() -> None:
    """Inside networks come with the links; the outside address is never inside."""
    assert realms().is_inside("192.168.2.9")
    assert not realms().is_inside("203.0.113.1")
    assert not realms().is_inside("phone.example")


def test_only_a_new_outside_address_is_a_change() -> None:
    """The same links again change nothing; another address does."""
    made = realms()
    assert not made.update(LINKS)
    assert made.update(AddressesChanged({"wan": "203.0.113.2"}, LINKS.inside))
    assert made.outside_host == "203.0.113.2"


def test_an_outside_address_of_its_own() -> None:
    """1:1 NAT: one inside host is shown at its own address, all others at the link's."""
    made = Realms(Settings(statics=(Static("192.168.1.5", "203.0.113.5"),)))
    made.update(LINKS)
    assert made.outside_of("192.168.1.5") == "203.0.113.5"
    assert made.outside_of("192.168.1.6") == "203.0.113.1"
    assert made.has_own_outside("192.168.1.5")
    assert not made.has_own_outside("192.168.1.6")
    assert "203.0.113.5" in made.own_hosts


@pytest.mark.parametrize("pbx", ["local", "none"])
def test_an_advertised_address(pbx: str) -> None:
    """It is what is shown; the link's own is the gateway's, or a PBX's that needs help as one inside does."""
    made = Realms(Settings(gateway=Gateway(pbx=pbx)))
    assert made.update(replace(LINKS, advertised="198.51.100.9"))
    assert made.outside_host == "198.51.100.9"
    assert made.seen(Endpoint("203.0.113.1", 30000)) == Endpoint("198.51.100.9", 30000)
    assert made.seen(Endpoint("203.0.113.2", 30000)) == Endpoint("203.0.113.2", 30000)
    assert ("203.0.113.1" in made.own_hosts, made.is_inside("203.0.113.1")) == (pbx == "none", pbx == "local")
    assert not made.update(replace(LINKS, advertised="198.51.100.9", outside={"wan": "203.0.113.2"}))


@pytest.mark.parametrize("pbx", ["local", "none"])
def test_where_a_pbx_on_the_gateway_may_be(pbx: str) -> None:
    """At any address of the gateway, if there is one at all."""
    made = Realms(Settings(gateway=Gateway(pbx=pbx)))
    made.update(AddressesChanged(LINKS.outside, LINKS.inside, frozenset({"192.168.1.1"})))
    assert made.gateway_hosts == ({"192.168.1.1", "203.0.113.1"} if pbx == "local" else set())


@pytest.mark.parametrize(("release", "same", "other"), [
    ("subnet", True, False), ("routed", True, True), ("never", False, False),
])
def test_release_asks_for_one_prefix_unless_told_otherwise(release: str, same: bool, other: bool) -> None:
    """Two hosts of one subnet may talk directly; across subnets only where the operator says so."""
    made = realms(release)
    assert made.may_talk_directly("192.168.1.10", "192.168.1.11") is same
    assert made.may_talk_directly("192.168.1.10", "192.168.2.10") is other
    assert not made.may_talk_directly("192.168.1.10", "198.51.100.7")


@pytest.mark.parametrize(("path", "crosses"), [
    (("lan1", "wan"), True), (("wan", "lan1"), True), (("lan1", "vpn0"), False), (("", ""), True),
])
def test_a_path_past_the_outside_interface_is_not_ours(path: tuple[str, str], crosses: bool) -> None:
    """What leaves by a VPN link is not NATed there, so it must not be rewritten."""
    assert realms().crosses(*path) is crosses


def test_usable_addresses() -> None:
    """No mapping leads to loopback, multicast or nothing."""
    assert [host for host in ("127.0.0.1", "239.0.0.1", "0.0.0.0", "169.254.1.1", "", "8.8.8.8")
            if is_usable(host)] == ["8.8.8.8"]


def test_the_way_from_inside() -> None:
    """Inside is told the link's own address of what others see; everything else is what it is."""
    made = Realms(Settings())
    made.update(replace(LINKS, advertised="198.51.100.9"))
    assert made.on_link(Endpoint("198.51.100.9", 30000)) == Endpoint("203.0.113.1", 30000)
    assert made.on_link(Endpoint("198.51.100.8", 30000)) == Endpoint("198.51.100.8", 30000)
    made.update(LINKS)
    assert made.on_link(Endpoint("203.0.113.1", 30000)) == Endpoint("203.0.113.1", 30000)


def test_an_intranet_is_inside() -> None:
    """No NAT stands between: a PBX may hand its phones' SDP on."""
    made = Realms(Settings(outside=Outside(intranet=(network_from_text("10.8.0.0/16"),))))
    assert made.is_inside("10.8.1.1")
    made.update(LINKS)
    assert made.is_inside("10.8.1.1")
    assert not made.is_inside("10.9.1.1")
