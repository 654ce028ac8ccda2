"""Phones behind a proxy of their own, all inside: it registers them, and their calls pass through it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Peer
from tests.agent import Agent
from tests.playbook import PROVIDER, Delivery, World, told
from tests.streams import streams_of

PROXY, BEHIND = Endpoint("192.168.1.2", 5060), Endpoint("192.168.1.20", 5060)
RTP = Endpoint(BEHIND.host, 14000)


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway with the documented line, whose operator names the proxy inside."""
    yield from told(World(dnat_accepted=True, peers=(Peer(PROXY.host),)))


def inside_proxy(world: World, endpoint: Endpoint = PROXY) -> Agent:
    """A proxy inside; its Contact and media are those of the phone that it speaks for."""
    proxy = world.agent("dora", endpoint, RTP, PROVIDER)
    proxy.contact = f"<sip:dora@{BEHIND}>"
    proxy.is_strict = False
    return proxy


def registers(world: World, proxy: Agent, status: int = 200, expires: int = 3600) -> None:
    """Pass the phone's REGISTER on, and the registrar's answer comes."""
    path = [("Path", f"<sip:{proxy.endpoint};lr>"), ("Via", f"SIP/2.0/UDP {BEHIND};branch=z9hG4bKphone")]
    proxy.registers(expires, headers=path)
    granted = f"{proxy.contact};expires={expires}" if expires else ""
    world.provider.replies(world.provider.last, status, contact=granted)


def media(world: World) -> list[Endpoint]:
    """The inside media endpoints that have mappings."""
    return sorted(world.media_mappings())


def test_the_contacts_host_may_be_named(world: World) -> None:
    """A call out through the proxy: the phone's media is mapped, and heard both ways."""
    proxy = inside_proxy(world)
    registers(world, proxy)
    assert f"<sip:dora@{BEHIND}>" in world.provider.last["contact"], "who is behind Path keeps its Contact"
    leg = proxy.invites(world.provider.address)
    audio, = streams_of(world.provider.last.body)
    callee = world.provider.accepts(world.provider.last)
    callee.answers()
    leg.sends("ACK")
    assert world.trace_rtp(RTP, world.provider.rtp)[:3] == (audio.rtp, world.provider.rtp, "")
    assert world.trace_rtp(world.provider.rtp, audio.rtp)[:3] == (world.provider.rtp, RTP, "")


def test_it_is_called_through_the_proxy(world: World) -> None:
    """An hour later the registrar's INVITE comes in to the proxy, by Path, with the phone's Contact."""
    proxy = inside_proxy(world)
    registers(world, proxy)
    route = world.provider.last["path"]
    world.advance(3000.0)
    hop = world.resolve_uri(route.strip("<>").replace("sip:", "sip:x@"))
    leg = world.provider.invites(f"sip:dora@{BEHIND}", hop, headers=[("Route", route)])
    assert proxy.last.uri == f"sip:dora@{BEHIND}"
    assert proxy.last["route"] == f"<sip:{PROXY};lr>"
    proxy.accepts(proxy.last, 200, proxy.sdp())
    assert leg.final == 200
    assert RTP in media(world)


@pytest.mark.parametrize("status", [401, 408, 503])
def test_only_what_the_registrar_accepts_counts(world: World, status: int) -> None:
    """A REGISTER that is refused lets nobody name the phone."""
    proxy = inside_proxy(world)
    registers(world, proxy, status)
    proxy.invites(world.provider.address)
    assert media(world) == []


def test_only_the_proxy_may_name_it(world: World) -> None:
    """Another inside host cannot have the phone's ports opened: it has not registered it."""
    registers(world, inside_proxy(world))
    world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=RTP))
    assert media(world) == []


def test_only_a_named_proxy_speaks_for_others() -> None:
    """An inside host that registers its neighbour, at an accomplice's perhaps, opens nothing."""
    world = World(dnat_accepted=True)
    proxy = inside_proxy(world)
    registers(world, proxy)
    deliveries = [each for each in world.log if isinstance(each, Delivery)]
    assert any("proxy-unknown" in delivery.rules() for delivery in deliveries)
    assert world.engine.registrations(world.now) == []
    proxy.invites(world.provider.address)
    assert media(world) == []
    assert not any(m.inward for m in world.kernel.mappings())


def test_an_outside_contact_counts_for_nothing(world: World) -> None:
    """A Contact of an outside host, or of nobody's network, is no inside UA."""
    proxy = inside_proxy(world)
    for host in ("198.51.100.77", "10.9.9.9", "phone.example", "203.0.113.1"):
        proxy.contact = f"<sip:dora@{host}:5060>"
        registers(world, proxy)
        assert world.engine.registrations(world.now) == []


@pytest.mark.parametrize("ends", ["unregistered", "ran out"])
def test_it_ends_with_the_registration(world: World, ends: str) -> None:
    """Expires 0, or no refresh: the phone may be named no more, and the proxy is not reached."""
    proxy = inside_proxy(world)
    registers(world, proxy, expires=3600 if ends == "unregistered" else 60)
    assert [m.inward for m in world.kernel.mappings()] == [True]
    if ends == "unregistered":
        registers(world, proxy, expires=0)
    else:
        world.advance(70.0)
    assert world.engine.registrations(world.now) == []
    proxy.invites(world.provider.address)
    assert media(world) == []


def test_a_restart_keeps_it(world: World) -> None:
    """The row tells through which proxy the phone is registered."""
    proxy = inside_proxy(world)
    registers(world, proxy)
    world.restart()
    row, = world.engine.registrations(world.now)
    assert (row["inside"], row["outside"]) == (str(BEHIND), "203.0.113.1:5060")
    proxy.invites(world.provider.address)
    assert RTP in media(world)
    assert [m.inside for m in world.kernel.mappings() if m.kind is Kind.SIGNALLING] == [PROXY]


def test_a_phone_that_also_registers_itself(world: World) -> None:
    """The two bindings stand beside each other; the end of one leaves the other's way in open."""
    proxy, phone = inside_proxy(world), world.agent("dora", BEHIND, RTP, PROVIDER)
    registers(world, proxy)
    phone.registers()
    world.provider.replies(world.provider.last, 200, contact=world.provider.last["contact"])
    assert len(world.engine.registrations(world.now)) == 2
    uri = world.registered_uri(phone)
    registers(world, proxy, expires=0)
    row, = world.engine.registrations(world.now)
    assert row["outside"] != "203.0.113.1:5060"
    world.advance(300.0)
    world.provider.begins("OPTIONS", uri, world.resolve_uri(uri))
    assert phone.last.method == "OPTIONS"
