"""Scenarios 26 to 29: phones behind NATs of their own call each other, by a PBX inside or on the gateway."""

from __future__ import annotations

from collections.abc import Callable

from tests.compare.ends import GATEWAY
from tests.compare.parts import hear_each_other, part
from tests.compare.worlds import World
from tests.far.site import HOSTS, TONES, USERS
from tests.lab.audio import talk
from tests.lab.far_nat import KINDS
from tests.lab.programs import Baresip

FIRST = 26      # scenario of the first kind of NAT


def far_phone(world: World, name: str) -> Baresip:
    """Start a phone outside and register it at the gateway's address."""
    phone = world.start(Baresip(HOSTS[name], name, registrar=GATEWAY, password=USERS[name], tone=TONES[name]))
    phone.register()
    return phone


def far_call(world: World) -> None:
    """Register both, call, talk, hang up."""
    world.serve_far_phones()
    dora, emil = far_phone(world, "dora"), far_phone(world, "emil")
    dora.dial(f"sip:emil@{GATEWAY}")
    talk()
    dora.hang_up()
    emil.wait_closed()
    hear_each_other(world, dora, emil)


def _parts() -> None:
    add: Callable[..., Callable[..., object]] = part
    for number, caller in enumerate(KINDS, FIRST):
        for called in KINDS:
            add(number, f"calls {called}", topology="far", kinds=(caller, called), phones=1)(far_call)


_parts()
