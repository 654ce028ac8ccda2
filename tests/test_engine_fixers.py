"""Other fixers that the engine sees at work: what is counted for `natfix check`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from tests.playbook import OUTSIDE, World, told


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway as it is usual."""
    yield from told(World())


def counted(world: World, rule: str) -> int:
    """Return how often the engine has counted the note *rule*."""
    return int(world.engine.status(world.now)["counters"].get(rule, 0))


def register(world: World, repeated: str) -> None:
    """The phone registers, and the registrar lists *repeated*, "{}" being the Contact that it was shown."""
    world.phone.registers()
    registrar = world.provider
    shown = registrar.last["contact"]
    registrar.replies(registrar.last, 200, contact=repeated.format(shown) + ";expires=3600")


@pytest.mark.parametrize(("repeated", "count"), [
    ("<sip:alice@198.51.100.77:40000>", 1),                             # somebody wrote another address
    ("{}", 0), (f"<sip:alice@{OUTSIDE}>", 0),                                   # 5060 may be left out
    ("<sip:alice@198.51.100.77:40000>;expires=9, {}", 0),                       # another device of hers
    ("<sip:bob@198.51.100.77:40000>", 0),                                       # no word of her
])
def test_registrar_that_repeats_another_contact(world: World, repeated: str, count: int) -> None:
    """Only where the registrar lists the user at other places, and not at the one shown, it is an ALG."""
    register(world, repeated)
    assert counted(world, "echo-changed") == count


def test_phone_that_names_the_outside_address(world: World) -> None:
    """A Contact with the outside address was not written by natfix; it is left alone, and counted."""
    world.phone.contact = f"<sip:alice@{OUTSIDE}:5060>"
    world.phone.registers()
    assert world.provider.last["contact"] == world.phone.contact
    assert counted(world, "already-right") == 1


def test_media_at_the_outside_address(world: World) -> None:
    """The same in a session description: the stream is left alone, and counted."""
    world.register(world.phone)
    world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=Endpoint(OUTSIDE, 40000)))
    assert f"c=IN IP4 {OUTSIDE}" in world.provider.last.body.decode()
    assert "m=audio 40000 " in world.provider.last.body.decode()
    assert counted(world, "already-right") == 1


def test_phone_that_names_itself(world: World) -> None:
    """An ordinary registration and its end count nothing."""
    world.register(world.phone)
    world.register(world.phone, expires=0)
    assert counted(world, "already-right") == counted(world, "echo-changed") == 0
