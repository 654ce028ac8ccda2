"""A PBX on the gateway itself, at its outside address: it stands for itself, and far phones are fixed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Gateway
from natfix.reports import PortsInUse
from tests.agent import Agent
from tests.far_agent import FarAgent
from tests.playbook import OUTSIDE, PHONE, PROVIDER, Call, World, told
from tests.test_engine_far_end import FAR, FAR_RTP, OTHER, OTHER_RTP, call_out, register

PBX, PBX_RTP = Endpoint(OUTSIDE, 5060), Endpoint(OUTSIDE, 14000)
PHONE_RTP = Endpoint(PHONE.host, 12000)


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway that accepts SIP, and RTP of its PBX, from outside."""
    yield from told(World(gateway=Gateway(pbx="local"), listens=[PBX]))


def pbx_of(world: World, rtp: Endpoint = PBX_RTP) -> Agent:
    return world.agent("pbx", PBX, rtp)


def far_phone(world: World) -> FarAgent:
    return FarAgent(world, "dora", FAR, FAR_RTP, proxy=PBX)


def is_quiet(world: World) -> bool:
    return world.is_quiet() and world.engine.status(world.now)["media_mappings"] == 0


def test_what_it_says_of_itself_stays(world: World) -> None:
    """It names the outside address already: a call of its own to the provider leaves untouched."""
    pbx = pbx_of(world)
    call = world.call(pbx, world.provider)
    assert all(item.is_untouched for item in world.log if not isinstance(item, str))
    assert world.trace_rtp(pbx.rtp, world.provider.rtp).destination == world.provider.rtp
    assert call.callee.agent is world.provider
    assert world.media_mappings() == {}


def test_a_far_phone_registers(world: World) -> None:
    """It is shown to the PBX where its packets come from, and reads back what it wrote."""
    pbx, phone = pbx_of(world), far_phone(world)
    request = register(pbx, phone)
    assert request["contact"] == f"<sip:dora@{FAR}>"
    assert phone.last["contact"].startswith("<sip:dora@192.168.1.10:5062>")


def test_calls_both_ways(world: World) -> None:
    """A PBX that answers by itself: what it sends to a port of its own machine leaves for the phone."""
    pbx, phone = pbx_of(world), far_phone(world)
    uri = register(pbx, phone)["contact"].strip("<>")
    incoming = call_out(pbx, phone)
    assert_talk(world, incoming)
    incoming.hang_up()
    leg = pbx.invites(uri, FAR)
    callee = phone.accepts(phone.last, 180)
    callee.answers(200)
    leg.sends("ACK")
    outgoing = Call(leg, callee)
    assert_talk(world, outgoing)
    outgoing.hang_up()
    world.advance(40)
    assert is_quiet(world)


def assert_talk(world: World, call: Call) -> None:
    """The far phone's first packet teaches natfix its source; then both hear each other."""
    ends = (call.caller.agent, call.callee.agent)
    phone = next(each for each in ends if isinstance(each, FarAgent))
    world.trace_rtp(phone.rtp, world.told_media(phone))
    world.assert_two_way_audio(call)


def test_an_inside_phones_words_are_shown(world: World) -> None:
    """A PBX that leaves media to its phones hands an inside phone's SDP on: that gets its port outside."""
    pbx, phone = pbx_of(world, PHONE_RTP), far_phone(world)
    call = call_out(pbx, phone)
    assert world.told_media(phone).host == OUTSIDE
    assert world.told_media(phone).port != PHONE_RTP.port
    world.trace_rtp(phone.rtp, world.told_media(phone))
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(40)
    assert is_quiet(world)


def test_two_far_phones(world: World) -> None:
    """The PBX hands the one's words on to the other: two relays, joined when both have spoken."""
    pbx, dora = pbx_of(world), far_phone(world)
    emil = FarAgent(world, "emil", OTHER, OTHER_RTP, proxy=PBX)
    register(pbx, emil)
    leg = dora.invites(f"sip:emil@{OUTSIDE}")
    pbx.rtp = world.told_media(pbx)         # the relay that stands for dora: it says nothing of its own
    second = pbx.invites(f"sip:emil@{OTHER}", OTHER)
    callee = emil.accepts(emil.last, 180)
    callee.answers(200)
    second.sends("ACK")
    pbx.rtp = world.told_media(pbx)
    first = pbx.accepts(next(item for item in pbx.inbox if item.message.method == "INVITE").message, 180)
    first.answers(200)
    leg.sends("ACK")
    for phone in (dora, emil):
        world.trace_rtp(phone.rtp, world.told_media(phone))
    world.assert_hears(emil, dora)
    world.assert_hears(dora, emil)


def test_its_ports_are_kept_free(world: World) -> None:
    """An inside phone that registers elsewhere never gets the port that the PBX is reached at."""
    lone = world.agent("lone", Endpoint("192.168.1.12", 5060), proxy=PROVIDER)
    world.register(lone)
    mapping, = [each for each in world.kernel.mappings() if each.kind is Kind.SIGNALLING]
    assert mapping.outside.port != 5060
    pbx, phone = pbx_of(world), far_phone(world)
    assert register(pbx, phone)["contact"] == f"<sip:dora@{FAR}>"


def test_bound_to_the_inside() -> None:
    """A PBX at the gateway's inside address is mapped as any inside host, to the port of its forward."""
    inside = Endpoint("192.168.1.1", 5060)
    world = World(gateway=Gateway(pbx="local"), forwards={PBX: inside})
    world.report(PortsInUse(frozenset(), {5060: inside}))
    pbx, phone = world.agent("pbx", inside, Endpoint(inside.host, 14000)), far_phone(world)
    assert register(pbx, phone)["contact"] == f"<sip:dora@{FAR}>"
    call = call_out(pbx, phone)
    assert world.told_media(phone).host == OUTSIDE
    assert_talk(world, call)


def test_what_it_says_to_inside_phones_is_not_seen(world: World) -> None:
    """A PBX's business with the inside needs no natfix."""
    pbx = pbx_of(world)
    pbx.invites(f"sip:alice@{PHONE}", PHONE)
    delivery = world.log[-1]
    assert not isinstance(delivery, str)
    assert delivery.trace is not None
    assert not delivery.trace.diverted


def test_without_the_setting_nothing_is_seen() -> None:
    """Off unless configured."""
    world = World(listens=[PBX])
    pbx, phone = pbx_of(world), far_phone(world)
    phone.registers()
    assert "192.168.1.10" in pbx.last["contact"]


def test_a_call_outlives_a_restart(world: World) -> None:
    """A restarted natfix knows the PBX's own ports, and ends what the call held."""
    pbx, phone = pbx_of(world), far_phone(world)
    call = call_out(pbx, phone)
    assert_talk(world, call)
    world.restart()
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(40)
    assert is_quiet(world)
