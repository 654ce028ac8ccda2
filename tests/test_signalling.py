"""Signalling mappings: whose port is whose."""

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, AllowRemote, Kind, OpenFlow
from natfix.config import Inside, Limits, Peer, Settings, Trunk
from natfix.errors import LimitReached
from natfix.reports import PortsInUse
from tests.playbook import OTHER_PHONE, OUTSIDE, PHONE, PROVIDER, World


def signalling(world: World):   # type: ignore[no-untyped-def]
    return world.engine._signalling


def test_the_inside_port_is_preserved_where_it_is_free() -> None:
    """The first phone on 5060 is 5060 outside; the second gets a port that depends on it alone."""
    world = World()
    assert signalling(world).map_endpoint(PHONE, 0.0).outside == Endpoint(OUTSIDE, 5060)
    second = signalling(world).map_endpoint(OTHER_PHONE, 0.0).outside
    assert 20000 <= second.port <= 29999
    again = World()
    signalling(again).map_endpoint(PHONE, 0.0)
    assert signalling(again).map_endpoint(OTHER_PHONE, 0.0).outside == second


def test_the_port_that_a_ua_names_itself_is_taken() -> None:
    """A phone that learnt its outside port by STUN keeps it."""
    world = World()
    assert signalling(world).map_endpoint(PHONE, 0.0, wanted=41000).outside.port == 41000


def test_an_endpoint_gets_its_old_port_back() -> None:
    """After its mapping ended, a phone finds the same outside port again (RFC 4787, REQ-1)."""
    world = World()
    before = signalling(world).map_endpoint(PHONE, 0.0, wanted=41000).outside
    world.advance(200.0)
    assert world.engine.status(world.now)["signalling_mappings"] == 0
    assert signalling(world).map_endpoint(PHONE, world.now).outside == before


def test_ports_of_others_are_respected() -> None:
    """Neither a local socket's port nor one that the operator forwards elsewhere is chosen."""
    world = World()
    pbx = Endpoint("192.168.1.5", 5060)
    world.report(PortsInUse(frozenset({5070}), {5060: pbx}))
    assert signalling(world).map_endpoint(PHONE, 0.0).outside.port != 5060
    assert signalling(world).map_endpoint(Endpoint(PHONE.host, 5070), 0.0).outside.port != 5070
    assert signalling(world).map_endpoint(pbx, 0.0).outside.port == 5060


def test_the_media_pool_and_service_ports_are_never_chosen() -> None:
    """SIP from a port of the pool, or from below 1024, is shown at another one."""
    world = World()
    assert signalling(world).map_endpoint(Endpoint(PHONE.host, 30000), 0.0).outside.port != 30000
    assert signalling(world).map_endpoint(Endpoint(PHONE.host, 53), 0.0).outside.port >= 1024


def test_a_host_cannot_take_all_ports() -> None:
    """The quota of one inside host ends its mappings, nobody else's."""
    networks = tuple(World().kernel.networks.values())
    world = World(Settings(inside=Inside(networks), limits=Limits(mappings_per_host=2)))
    for port in (5060, 5061):
        signalling(world).map_endpoint(Endpoint(PHONE.host, port), 0.0)
    with pytest.raises(LimitReached, match="per_host"):
        signalling(world).map_endpoint(Endpoint(PHONE.host, 5062), 0.0)
    assert signalling(world).map_endpoint(OTHER_PHONE, 0.0)


def test_a_declared_trunk_is_open_from_the_start() -> None:
    """A PBX that never registers can be called by its provider, behind a forward policy of drop."""
    world = World()
    networks = tuple(world.kernel.networks.values())
    trunk = Trunk("192.168.1.5", (PROVIDER.host,))
    settings = Settings(inside=Inside(networks), trunks=(trunk,))
    commands = World(settings).engine.desired()
    pbx, outside = Endpoint("192.168.1.5", 5060), Endpoint(OUTSIDE, 5060)
    assert any(isinstance(c, AddMapping) and (c.inside, c.outside, c.inward) == (pbx, outside, True)
               for c in commands)
    assert any(isinstance(c, AllowRemote) and c.remote == PROVIDER.host for c in commands)
    assert any(isinstance(c, OpenFlow) and c.kind is Kind.SIGNALLING and c.flow.destination == PROVIDER
               for c in commands)


def test_peers_that_the_operator_names_may_always_call() -> None:
    """[[peer]]: a registered phone can be called from there, whoever it registered with."""
    networks = tuple(World().kernel.networks.values())
    world = World(Settings(inside=Inside(networks), peers=(Peer("198.51.100.77"),)))
    world.register(world.phone)
    assert world.kernel.elements.inside_of(Endpoint(OUTSIDE, PHONE.port), "198.51.100.77") == PHONE
    assert set(world.engine._mappings.find(PHONE).remotes) == {PROVIDER.host}
