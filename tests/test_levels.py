"""natfix.levels: how full the engine's tables are; what does not fit is refused as a whole."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Limits, Media, Signalling
from natfix.errors import LimitReached
from natfix.levels import Level
from natfix.mappings import MOST_PERMISSIONS, SPARE_PERMISSIONS
from natfix.shipped import shipped
from tests.playbook import World

NARROW = Signalling(outside_ports=(20000, 20000))


def narrow() -> World:
    """Return a gateway with room for one phone besides the one that keeps its port, and for two calls."""
    return World(media=Media(ports=(30000, 30003)), signalling=NARROW)


def used(world: World) -> dict[str, int]:
    """Return what is taken, by name, nothing apart."""
    return {name: level.used for name, level in world.engine.levels.now().items() if level.used}


def test_a_call_takes_its_part_and_gives_it_back() -> None:
    """Ports, mappings, permissions, dialogs: counted while they are held, nought after the end."""
    world = narrow()
    call = world.call(world.phone, world.provider)
    assert used(world) == {"media_ports": 1, "mappings": 3, "permissions": 3, "dialogs": 1}
    call.hang_up()
    world.advance(400.0)
    assert used(world) == {}
    assert world.engine.levels.now()["media_ports"] == Level(0, 2)


def test_registrations_and_spare_ports() -> None:
    """A phone that has to get another signalling port than its own takes a spare one."""
    world = narrow()
    world.register(world.phone)
    assert "signalling_ports" not in used(world)
    world.register(world.other_phone)
    assert used(world)["signalling_ports"] == 1
    assert used(world)["registrations"] == 2


def test_levels_follow_a_reload() -> None:
    """Other limits and another range of spare ports are counted from then on."""
    world = narrow()
    world.register(world.phone)
    world.register(world.other_phone)
    world.reload(limits=Limits(mappings=77), signalling=Signalling(outside_ports=(21000, 21009)))
    assert world.engine.levels.now()["mappings"].size == 77
    assert world.engine.levels.now()["signalling_ports"] == Level(0, 10)
    world.reload(signalling=Signalling(outside_ports=(20000, 20009)))
    assert world.engine.levels.now()["signalling_ports"] == Level(1, 10)


@pytest.mark.parametrize("begin", ["INVITE", "REGISTER"])
def test_no_signalling_port_is_left(begin: str) -> None:
    """What would begin something is dropped, with nothing left behind, and comes through when it is repeated
    after a port is free again; unfixed it would break the phone's incoming calls for an hour."""
    world = narrow()
    world.register(world.phone)
    world.register(world.other_phone)
    third = world.agent("carol", Endpoint("192.168.1.12", 5060))
    before = used(world)
    leg = third.invites(world.provider.address) if begin == "INVITE" else third.registers()
    assert leg.delivery is not None
    assert leg.delivery.arrived is None
    assert "limit" in leg.delivery.rules()
    assert used(world) == before
    world.register(world.other_phone, 0)
    world.advance(400.0)
    again = third.sends(leg.delivery.payload, leg.delivery.destination)
    assert again.arrived is not None
    assert b"192.168.1.12" not in again.arrived


def test_no_signalling_port_is_left_and_on_failure_is_pass() -> None:
    """Where the operator wants it so, it passes as it is."""
    world = World(signalling=Signalling(outside_ports=(20000, 20000), on_failure="pass"))
    world.register(world.phone)
    world.register(world.other_phone)
    third = world.agent("carol", Endpoint("192.168.1.12", 5060))
    leg = third.invites(world.provider.address)
    assert leg.delivery is not None
    assert leg.delivery.arrived is not None
    assert "limit" in leg.delivery.rules()


def test_no_call_may_begin() -> None:
    """Where the shell says so an INVITE is dropped, with the reason; what runs, and registrations, go on."""
    world = World()
    first = world.call(world.phone, world.provider)
    world.engine.levels.refuse_calls("the kernel's connection table is full")
    before = used(world)
    leg = world.other_phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert leg.delivery.arrived is None
    assert [note.reason for note in leg.delivery.notes if note.rule == "limit"] == [
        "the kernel's connection table is full"]
    world.register(world.phone)
    first.hang_up()
    assert before["dialogs"] == 1
    world.engine.levels.refuse_calls("")
    assert world.other_phone.sends(leg.delivery.payload, leg.delivery.destination).arrived is not None


def test_the_kernels_sets_hold_all_that_is_asked_of_them() -> None:
    """No mapping begins where the sets of remotes are about to be full; their size is the skeleton's."""
    world = World()
    world.register(world.phone)
    world.engine.mappings.check_quota("192.168.1.10")
    world.engine.mappings.permissions = MOST_PERMISSIONS - SPARE_PERMISSIONS + 1
    with pytest.raises(LimitReached, match="who may send"):
        world.engine.mappings.check_quota("192.168.1.10")
    rules = shipped("nft", "natfix.nft").read_text()
    for name in ("signalling_allowed", "media_allowed", "media_learning", "signalling_out", "media_in"):
        body = rules[rules.index(f" {name} {{"):]
        assert f"size {MOST_PERMISSIONS}\n" in body[:body.index("}")], name
