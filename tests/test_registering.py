"""REGISTER and its answers."""

import pytest

from tests.playbook import World


@pytest.fixture
def world() -> World:
    return World()


def bindings(world: World) -> list[str]:
    return [row["aor"] for row in world.engine.registrations(world.now)]


def test_nothing_opens_before_the_2xx(world: World) -> None:
    """A REGISTER, and a 401, open no inward half (design, section 7)."""
    world.phone.registers()
    world.provider.replies(world.provider.last, 401)
    assert bindings(world) == []
    assert not any(mapping.inward for mapping in world.kernel.mappings())


def test_a_binding_lasts_as_long_as_the_2xx_says(world: World) -> None:
    """The registrar's expiry counts, not the one that was asked for; then the hole closes."""
    world.register(world.phone, expires=60)
    assert bindings(world) == ["alice@provider.example"]
    assert all(mapping.inward for mapping in world.kernel.mappings())
    world.advance(61.0)
    assert bindings(world) == []
    world.advance(200.0)
    assert world.kernel.mappings() == []


def test_unregistering_closes_at_once(world: World) -> None:
    """Expires 0 that is accepted ends the binding."""
    world.register(world.phone)
    world.register(world.phone, expires=0)
    assert bindings(world) == []


def test_a_strangers_2xx_opens_nothing() -> None:
    """Only the address that the REGISTER went to can accept it."""
    world = World()
    world.phone.registers()
    request = world.provider.last
    stranger = world.agent("mallory", type(world.provider.endpoint)("198.51.100.66", 5060))
    stranger.is_strict = False
    reply = "\r\n".join((
        "SIP/2.0 200 OK", f"Via: {request['via']}", f"From: {request['from']}", f"To: {request['to']};tag=m",
        f"Call-ID: {request['call-id']}", f"CSeq: {request['cseq']}",
        f"Contact: {request['contact']};expires=3600", "Content-Length: 0", "", "")).encode()
    world.transmit(stranger.endpoint, type(stranger.endpoint)("203.0.113.1", 5060), reply)
    assert bindings(world) == []
