"""Who may talk to phones: the operator's peers and domains, before and after DNS has another answer.

The firewall is open, so that nothing but natfix stands in anybody's way.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import AdmitPeer, DismissPeer, Kind
from natfix.config import Domain, Peer, Settings
from natfix.engine import Engine
from natfix.reports import NamesResolved
from tests.agent import Agent
from tests.playbook import OUTSIDE, PHONE, PROVIDER, Delivery, World, told
from tests.test_streaming import LINKS, REGISTER, Line, wire

NAME, DOMAIN = "sip.example.net", "example.org"
SERVER = Endpoint("198.51.100.30", 5060)
OTHER = Endpoint("198.51.100.31", 5060)
PHONE_OUTSIDE = Endpoint(OUTSIDE, PHONE.port)


def world_of(*entries: Peer | Domain) -> World:
    """A world with these lists."""
    return World(dnat_accepted=True, peers=tuple(each for each in entries if isinstance(each, Peer)),
                 domains=tuple(each for each in entries if isinstance(each, Domain)))


@pytest.fixture
def world() -> Iterator[World]:
    """A world with a peer by name, a domain, and a far wildcard."""
    yield from told(world_of(Peer(NAME), Domain(DOMAIN), Domain("*.example.com")))


def outsider(world: World, endpoint: Endpoint = SERVER, domain: str = "there.test") -> Agent:
    """Somebody outside."""
    agent = world.agent("dave", endpoint, Endpoint(endpoint.host, 40000), proxy=PHONE_OUTSIDE)
    agent.address = f"sip:dave@{domain}"
    agent.is_strict = False
    return agent


def invite(caller: Agent) -> Delivery:
    """Call the phone at its outside endpoint."""
    delivery = caller.invites(f"sip:alice@{PHONE_OUTSIDE}", PHONE_OUTSIDE).delivery
    assert delivery is not None
    return delivery


def resolved(world: World, **hosts: list[str]) -> list[object]:
    """Tell what DNS says now (dots of a name are written as underscores); return the commands."""
    names = {name.replace("_", "."): tuple(found) for name, found in hosts.items()}
    return list(world.report(NamesResolved(names)).commands)


def test_nobody_who_is_not_listed_reaches_a_registered_phone(world: World) -> None:
    """Neither a stranger, nor one who writes a listed domain, nor a name before DNS has answered."""
    world.register(world.phone)
    for caller in (outsider(world), outsider(world, OTHER, "sip.example.com"),
                   outsider(world, Endpoint("198.51.100.40", 5060), DOMAIN)):
        assert invite(caller).arrived is None
    assert world.phone.received("INVITE") == []


def test_a_peer_by_name_calls_a_phone(world: World) -> None:
    """The whole call, with audio; its server's neighbour stays outside."""
    world.register(world.phone)
    resolved(world, sip_example_net=[SERVER.host])
    caller, neighbour = outsider(world), outsider(world, OTHER)
    call = world.answer(caller.invites(world.registered_uri(world.phone), PHONE_OUTSIDE), world.phone)
    world.assert_two_way_audio(call)
    assert invite(neighbour).arrived is None


def test_a_domains_server_calls_a_phone(world: World) -> None:
    """It is a peer, whatever its messages name."""
    world.register(world.phone)
    resolved(world, example_org=[SERVER.host])
    assert invite(outsider(world)).arrived is not None


def test_a_listed_peer_reaches_nothing_that_is_not_open(world: World) -> None:
    """A phone that is nowhere registered and in no call cannot be reached, though it has sent something."""
    resolved(world, sip_example_net=[SERVER.host])
    world.phone.begins("OPTIONS", "sip:provider.example")
    assert invite(outsider(world)).arrived is None


def test_a_phone_that_has_unregistered_is_closed_to_all() -> None:
    """A listed peer reaches it as long as somebody has it open: not when it merely goes on sending."""
    world = world_of(Peer(SERVER.host))
    world.register(world.phone)
    assert invite(outsider(world)).arrived is not None
    world.register(world.phone, expires=0)
    world.advance(1.0)
    world.phone.begins("OPTIONS", "sip:provider.example")
    assert world.kernel.mappings()[0].inward is False
    assert invite(outsider(world, SERVER._replace(port=5070))).arrived is None


def test_another_answer_changes_who_gets_in_by_difference(world: World) -> None:
    """The kernel hears of the difference alone; who is gone gets in no more, who stays never leaves."""
    world.register(world.phone)
    resolved(world, sip_example_net=[SERVER.host], example_org=["198.51.100.40"])
    commands = resolved(world, sip_example_net=[OTHER.host], example_org=["198.51.100.40"])
    assert commands == [AdmitPeer(OTHER.host), DismissPeer(SERVER.host)]
    assert invite(outsider(world)).arrived is None
    assert invite(outsider(world, OTHER)).arrived is not None


def test_a_registrar_stays_when_its_name_goes(world: World) -> None:
    """Whom a phone has registered with may call it, whether or not a list has named it meanwhile."""
    world.register(world.phone)
    resolved(world, sip_example_net=[PROVIDER.host])
    resolved(world)
    world.advance(600.0)
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_a_call_goes_on_when_its_peers_name_moves(world: World) -> None:
    """A dialog's own peers keep their way in: the BYE comes through."""
    world.register(world.phone)
    resolved(world, sip_example_net=[SERVER.host])
    caller = outsider(world)
    call = world.answer(caller.invites(world.registered_uri(world.phone), PHONE_OUTSIDE), world.phone)
    resolved(world, sip_example_net=[OTHER.host])
    world.advance(600.0)
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(60.0)
    assert world.is_quiet()


def test_rebinding_opens_nothing(world: World) -> None:
    """A name that suddenly stands for an inside host, for the gateway, or for nothing opens no door."""
    world.register(world.phone)
    hosts = [PHONE.host, OUTSIDE, "127.0.0.1", "0.0.0.0", "10.1.2.3"]
    assert resolved(world, sip_example_net=hosts) == []
    assert set(world.engine.status(world.now)["refused_addresses"][NAME]) == set(hosts)
    assert invite(outsider(world)).arrived is None


def test_peers_survive_a_restart_and_a_flush(world: World) -> None:
    """What the engine wants holds the admitted peers, so that a resync brings them back."""
    world.register(world.phone)
    resolved(world, sip_example_net=[SERVER.host])
    assert AdmitPeer(SERVER.host) in world.engine.desired()
    world.kernel.resync(world.engine.desired())
    assert invite(outsider(world)).arrived is not None


def test_the_phones_quota_has_an_exception_for_a_listed_name(world: World) -> None:
    """Who is a peer by name has no rate, as one by address has none."""
    resolved(world, sip_example_net=[SERVER.host])
    assert world.engine.quotas._trusted == {SERVER.host}


# Policies

def is_dropped(delivery: Delivery) -> bool:
    return delivery.dropped == "natfix"


def test_a_dropped_peer_neither_gets_in_nor_is_reached() -> None:
    """Its registrar's answers never come, since the REGISTER never leaves; all is counted and noted."""
    world = world_of(Peer(PROVIDER.host, policy="drop"))
    leg = world.phone.registers()
    assert is_dropped(leg.delivery)
    assert leg.delivery.rules() == {"policy"}
    assert world.kernel.mappings() == []
    assert invite(world.provider).arrived is None
    assert world.engine.status(world.now)["policies"] == {f"drop [[peer]] {PROVIDER.host}": 1}


def test_a_contact_does_not_let_a_dropped_peer_in() -> None:
    """A call's other side may name anybody in its Contact: not whom the operator has excluded."""
    world = world_of(Peer(SERVER.host, policy="drop"))
    world.provider.contact = f"<sip:bob@{SERVER}>"
    world.call(world.phone, world.provider)
    assert invite(outsider(world)).arrived is None


def test_a_dropped_domain_is_dropped_in_both_directions() -> None:
    """By To or From, wherever it comes from; others are not touched by that."""
    world = world_of(Domain("*.bad.test", policy="drop"), Domain("bad.test", policy="drop"))
    world.register(world.phone)
    assert is_dropped(world.phone.invites("sip:x@a.bad.test").delivery)
    world.provider.address = "sip:bob@bad.test"
    assert is_dropped(invite(world.provider))
    world.provider.address = "sip:bob@good.test"
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_what_passes_stays_as_it_is_and_makes_no_mapping() -> None:
    """The operator's own NAT sees to the packets; natfix writes nothing, holds nothing, and says so."""
    world = world_of(Domain("provider.example", policy="pass"))
    delivery = world.phone.registers().delivery
    assert delivery.is_untouched
    assert delivery.rules() == {"policy"}
    assert delivery.trace.source.host == OUTSIDE
    assert world.kernel.mappings() == []
    world.phone.is_strict = world.provider.is_strict = False
    assert world.phone.invites("sip:bob@provider.example").delivery.is_untouched
    assert (world.media_mappings(), world.engine.calls(world.now)) == ({}, [])


def test_a_peer_that_passes_gets_in_and_is_left_alone() -> None:
    """It reaches what is open, like every listed peer; its messages arrive as they were sent."""
    world = world_of(Peer(SERVER.host, policy="pass"))
    world.register(world.phone)
    world.phone.is_strict = False
    assert invite(outsider(world)).is_untouched
    assert {mapping.kind for mapping in world.kernel.mappings()} == {Kind.SIGNALLING}


def test_only_listed_domains() -> None:
    """With "*" dropped a phone uses its listed provider as ever, and no other registrar at all."""
    world = world_of(Domain("*", policy="drop"), Domain("provider.example"))
    world.register(world.phone)
    world.assert_two_way_audio(world.call(world.provider, world.phone))
    world.phone.address = "sip:alice@elsewhere.test"
    assert is_dropped(world.phone.registers().delivery)


def test_what_inside_hosts_say_to_each_other_is_not_judged() -> None:
    """Between inside networks no policy holds: natfix is not in their way."""
    world = World(domains=(Domain("*", policy="drop"),), inside=("192.168.1.0/24", "192.168.2.0/24"))
    neighbour = world.agent("erin", Endpoint("192.168.2.20", 5060))
    world.phone.is_strict = neighbour.is_strict = False
    assert world.phone.begins("OPTIONS", "sip:erin@x.test", to=neighbour.endpoint).delivery.is_untouched


@pytest.mark.parametrize(("policy", "arrives"), [("fix", True), ("pass", True), ("drop", False)])
def test_policies_hold_over_tcp(policy: str, arrives: bool) -> None:
    """A message of a connection is fixed, goes on as it is, or goes no further; the connection stands."""
    engine = Engine(Settings(domains=(Domain("example.com", policy=policy),)))
    engine.handle_report(LINKS, 1.0)
    line = Line(engine)
    message = wire(REGISTER)
    line.says(True, message)
    assert bool(line.got[False]) is arrives
    assert (line.got[False] == message) is (policy == "pass")
    other = message.replace(b"example.com", b"example.org")
    line.says(True, other)
    assert b"sip:example.org" in line.got[False]
