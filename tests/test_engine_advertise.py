"""A gateway, or a server, that others see at another address than its own."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Gateway
from natfix.reports import PortsInUse
from tests.far_agent import PBX, FarAgent
from tests.playbook import PROVIDER, Delivery, World
from tests.test_engine_far_end import FAR, FAR_RTP, OTHER, OTHER_RTP, call_out, register

SEEN, LINK = "198.51.100.99", "203.0.113.1"
LINK_SIP = Endpoint(LINK, 5060)


class Upstream(World):
    """The NAT before the gateway: what others send to SEEN comes to LINK, and the other way round."""

    def transmit(self, source: Endpoint, destination: Endpoint, payload: bytes) -> Delivery:
        return super().transmit(source, inward(destination), payload)

    def _arrive(self, delivery: Delivery, payload: bytes) -> None:
        assert delivery.trace is not None
        source = delivery.trace.source
        if is_outside(delivery.trace.destination) and source.host == LINK:
            delivery.trace = delivery.trace._replace(source=source._replace(host=self.advertised))
        super()._arrive(delivery, payload)


def inward(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(host=LINK) if endpoint.host == SEEN else endpoint


def outward(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(host=SEEN) if endpoint.host == LINK else endpoint


def is_outside(endpoint: Endpoint) -> bool:
    return not endpoint.host.startswith("192.168.1.") and endpoint.host != LINK


def hears(world: World, sender: Endpoint, told: Endpoint, receiver: Endpoint, expected: Endpoint) -> None:
    """What *sender* sends to where it was *told* arrives at *receiver*, from where that was told."""
    trace = world.trace_rtp(sender, inward(told) if is_outside(sender) else told)
    assert not trace.dropped
    assert trace.destination == receiver
    assert (outward(trace.source) if is_outside(receiver) else trace.source) == expected


@pytest.fixture
def world() -> World:
    made = Upstream(advertised=SEEN, forwards={LINK_SIP: PBX})
    made.report(PortsInUse(frozenset(), {5060: PBX}))
    return made


def test_a_phone_inside(world: World) -> None:
    """Everything that others read names the address that they see."""
    world.register(world.phone)
    call = world.call(world.phone, world.provider)
    request = world.provider.received("INVITE")[0]
    assert f"<sip:alice@{SEEN}:" in request["contact"]
    told = world.told_media(world.provider)
    assert told.host == SEEN
    hears(world, PROVIDER._replace(port=40000), told, world.phone.rtp, world.provider.rtp)
    hears(world, world.phone.rtp, world.provider.rtp, world.provider.rtp, told)
    world.poll_counters()
    stream = world.engine.calls(world.now)[0]["streams"][0]
    assert (stream["packets_out"], stream["packets_in"]) == (1, 1)
    call.hang_up()
    world.advance(40)
    assert world.is_quiet()


def test_inside_is_told_the_link(world: World) -> None:
    """A far phone's media stands inside at the link's own address, which the PBX can reach."""
    pbx, dora = world.agent("pbx", PBX, Endpoint(PBX.host, 14000)), FarAgent(world, "dora", FAR, FAR_RTP)
    register(pbx, dora)
    call = call_out(pbx, dora)
    assert world.told_media(pbx).host == LINK
    assert world.told_media(dora).host == SEEN
    world.trace_rtp(FAR_RTP, inward(world.told_media(dora)))
    hears(world, FAR_RTP, world.told_media(dora), pbx.rtp, world.told_media(pbx))
    hears(world, pbx.rtp, world.told_media(pbx), FAR_RTP, world.told_media(dora))
    call.hang_up()
    world.advance(40)
    assert world.is_quiet()


def test_what_the_pbx_hands_on(world: World) -> None:
    """Two far phones: the PBX hands on the link's address, others are shown the one that they see."""
    pbx = world.agent("pbx", PBX, Endpoint(PBX.host, 14000))
    dora, emil = FarAgent(world, "dora", FAR, FAR_RTP), FarAgent(world, "emil", OTHER, OTHER_RTP)
    register(pbx, dora)
    register(pbx, emil)
    leg = dora.invites(f"sip:emil@{SEEN}", LINK_SIP)
    pbx.rtp = world.told_media(pbx)
    assert pbx.rtp.host == LINK
    second = pbx.invites(f"sip:emil@{OTHER}", OTHER)
    callee = emil.accepts(emil.last, 180)
    callee.answers(200)
    second.sends("ACK")
    pbx.rtp = world.told_media(pbx)
    pbx.accepts(next(item for item in pbx.inbox if item.message.method == "INVITE").message, 180).answers(200)
    leg.sends("ACK")
    for phone in (dora, emil):
        assert world.told_media(phone).host == SEEN
        world.trace_rtp(phone.rtp, inward(world.told_media(phone)))
    hears(world, dora.rtp, world.told_media(dora), emil.rtp, world.told_media(emil))
    hears(world, emil.rtp, world.told_media(emil), dora.rtp, world.told_media(dora))


def test_a_pbx_on_the_server_itself() -> None:
    """It names the link's address, which others do not see: that is shown as any inside address."""
    world = Upstream(advertised=SEEN, gateway=Gateway(pbx="local"), listens=[LINK_SIP])
    world.report(PortsInUse(frozenset({5060})))
    pbx = world.agent("pbx", LINK_SIP, Endpoint(LINK, 14000))
    dora = FarAgent(world, "dora", FAR, FAR_RTP)
    register(pbx, dora)
    call = call_out(pbx, dora)
    assert f"<sip:pbx@{SEEN}:5060>" in next(
        item.message for item in reversed(dora.inbox) if item.message.status == 200)["contact"]
    world.trace_rtp(FAR_RTP, inward(world.told_media(dora)))
    hears(world, FAR_RTP, world.told_media(dora), pbx.rtp, world.told_media(pbx))
    hears(world, pbx.rtp, world.told_media(pbx), FAR_RTP, world.told_media(dora))
    call.hang_up()
    world.advance(40)
    assert world.is_quiet()


def test_others_see_another_address(world: World) -> None:
    """The upstream NAT gets another address: mappings of the old one end, new calls name the new one."""
    world.register(world.phone)
    world.call(world.phone, world.provider)
    world.advertised = "198.51.100.98"
    world.shown.follow(world._addresses())      # type: ignore[attr-defined]
    outcome = world.report(world._addresses())
    assert any(note.rule == "outside-address" for note in outcome.notes)
    assert world.media_mappings() == {}
    world.call(world.other_phone, world.provider, to=PROVIDER)
    assert world.told_media(world.provider).host == "198.51.100.98"


def test_a_restart(world: World) -> None:
    """Mappings and calls are taken up again under the address that others see."""
    world.register(world.phone)
    world.call(world.phone, world.provider)
    told = world.told_media(world.provider)
    before = world.media_mappings()
    world.restart()
    assert world.media_mappings() == before
    hears(world, world.provider.rtp, told, world.phone.rtp, world.provider.rtp)
