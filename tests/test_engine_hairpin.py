"""Both parties inside, the provider between them as a proxy: one Call-ID, two calls, no NAT to be seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.config import Media
from tests.agent import Agent, Leg
from tests.playbook import OUTSIDE, PROVIDER, Call, World, told
from tests.proxy import Proxy


def world_with_proxy(policy: str = "auto", records_route: bool = True) -> World:
    """A world whose provider is a proxy at which both phones are registered."""
    world = World(media=Media(policy=policy))
    for phone in (world.phone, world.other_phone):
        world.register(phone)
    world.agents.remove(world.provider)
    proxy = Proxy(world, "proxy", PROVIDER)
    proxy.records_route = records_route
    proxy.is_strict = False
    world.agents.append(proxy)
    proxy.inbox += world.provider.inbox
    world.provider = proxy
    return world


@pytest.fixture(params=["auto", "full"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Media directly between the phones, or through the gateway."""
    yield from told(world_with_proxy(request.param))


def placed(world: World, caller: Agent, callee: Agent) -> Call:
    """A call through the proxy: INVITE, 180, 200, ACK."""
    leg = caller.invites(callee.address)
    uri = world.registered_uri(callee)
    proxy = world.provider
    assert isinstance(proxy, Proxy)
    proxy.passes_on(uri)
    callee_leg = callee.accepts(callee.last)
    proxy.passes_on()
    callee_leg.answers()
    proxy.passes_on()
    leg.sends("ACK")
    passed_on(world)
    return Call(leg, callee_leg)


def passed_on(world: World) -> None:
    """Let the proxy pass its newest message on, unless the phones talk past it."""
    proxy = world.provider
    assert isinstance(proxy, Proxy)
    if proxy.records_route:
        proxy.passes_on()


def hung_up(world: World, leaver: Leg, stayer: Leg) -> None:
    """BYE and its 200, through the proxy."""
    leaver.sends("BYE")
    passed_on(world)
    stayer.agent.replies(stayer.agent.last, 200, contact="")
    passed_on(world)
    assert leaver.final == 200


def test_a_call_between_two_phones(world: World) -> None:
    """Two-way audio, hung up by either side; nothing is left afterwards."""
    for hangs_up in (0, 1):
        call = placed(world, world.phone, world.other_phone)
        world.assert_two_way_audio(call)
        hung_up(world, call[hangs_up], call[1 - hangs_up])
    world.advance(60.0)
    assert world.is_quiet()


def test_hold_between_two_phones(world: World) -> None:
    """re-INVITEs of both sides keep both calls right."""
    call = placed(world, world.phone, world.other_phone)
    for asker, other in ((call.caller, call.callee), (call.callee, call.caller)):
        for line in ("a=sendonly", "a=sendrecv"):
            asker.sends("INVITE", asker.agent.sdp(line))
            passed_on(world)
            other.agent.replies(other.agent.last, 200, other.agent.sdp())
            passed_on(world)
            asker.sends("ACK")
            passed_on(world)
            world.advance(200.0)
    world.assert_two_way_audio(call)


def test_who_moves_its_port_is_still_heard(world: World) -> None:
    """An UPDATE-like re-INVITE of the callee's."""
    call = placed(world, world.phone, world.other_phone)
    world.other_phone.rtp = Endpoint(world.other_phone.rtp.host, 15000)
    call.callee.sends("INVITE", world.other_phone.sdp(version=2))
    passed_on(world)
    world.phone.replies(world.phone.last, 200, world.phone.sdp())
    passed_on(world)
    call.callee.sends("ACK")
    passed_on(world)
    world.assert_two_way_audio(call)


def test_without_record_route_the_phones_signal_through_the_gateway() -> None:
    """ACK and BYE go to the other phone's outside endpoint: a hairpin of signalling (RFC 4787, REQ-9)."""
    for world in told(world_with_proxy(records_route=False)):
        call = placed(world, world.phone, world.other_phone)
        world.assert_two_way_audio(call)
        hung_up(world, call.callee, call.caller)
        call = placed(world, world.phone, world.other_phone)
        hung_up(world, call.caller, call.callee)


def test_who_wrote_what_is_not_mixed_up(world: World) -> None:
    """The callee sees the caller's outside Via and Contact as they came: another UA wrote them."""
    placed(world, world.phone, world.other_phone)
    invite = world.other_phone.received("INVITE")[-1]
    assert OUTSIDE in invite.all("via")[1]
    assert OUTSIDE in invite["contact"]
    assert invite.uri == world.other_phone.contact.strip("<>")


# Through a back-to-back user agent: two Call-IDs

def text_of(body: bytes) -> str:
    return body.decode().replace("\r\n", "\n")


def call_through_provider(world: World) -> None:
    """The phone calls the other one through a provider that passes everything on, as a B2BUA does."""
    world.register(world.phone)
    world.register(world.other_phone)
    first = world.phone.invites(world.other_phone.address)
    offer = world.provider.last
    uri = world.registered_uri(world.other_phone)
    second = world.provider.invites(uri, world.resolve_uri(uri), sdp=text_of(offer.body))
    callee = world.other_phone.accepts(world.other_phone.last)
    callee.answers()
    answer = world.provider.last
    second.sends("ACK")
    world.provider.replies(offer, 200, text_of(answer.body), tag="leg1")
    first.sends("ACK")


def test_two_phones_of_one_subnet_talk_directly() -> None:
    """release = "subnet": each is told the other's own inside endpoint."""
    world = World()
    call_through_provider(world)
    assert world.told_media(world.phone) == world.other_phone.rtp
    assert world.told_media(world.other_phone) == world.phone.rtp
    world.assert_hears(world.phone, world.other_phone)
    world.assert_hears(world.other_phone, world.phone)


@pytest.mark.parametrize("media", [Media(policy="full"), Media(release="never")], ids=["full", "never"])
def test_two_phones_talk_through_the_gateway(media: Media) -> None:
    """Without release their media hairpins: each sees the other's outside endpoint (RFC 4787, REQ-9)."""
    world = World(media=media)
    call_through_provider(world)
    assert world.told_media(world.phone).host == OUTSIDE
    world.assert_hears(world.phone, world.other_phone)
    world.assert_hears(world.other_phone, world.phone)


def test_two_subnets_are_not_released() -> None:
    """Whether one inside network may reach another is the operator's business."""
    world = World(inside=("192.168.1.0/24", "192.168.2.0/24"))
    world.agents.remove(world.other_phone)
    world.other_phone = world.agent("carol", Endpoint("192.168.2.11", 5060),
                                    Endpoint("192.168.2.11", 12000), world.provider.endpoint)
    call_through_provider(world)
    assert world.told_media(world.phone).host == OUTSIDE
    world.assert_hears(world.phone, world.other_phone)
    world.assert_hears(world.other_phone, world.phone)


def world_of_two_lines(world: World) -> Agent:
    """Register a second line of the phone, and return it."""
    second = world.agent("alice2", Endpoint(world.phone.endpoint.host, 5062),
                         Endpoint(world.phone.endpoint.host, 13000), PROVIDER)
    second.registers()
    world.provider.replies(world.provider.last, 200, contact=world.provider.last["contact"])
    return second


@pytest.mark.parametrize("hangs_up", [0, 1], ids=["caller", "callee"])
def test_a_phone_calls_itself(world: World, hangs_up: int) -> None:
    """One host is both ends (two lines of one phone): caller and callee are told apart."""
    second = world_of_two_lines(world)
    call = placed(world, world.phone, second)
    told_second, told_phone = world.told_media(second), world.told_media(world.phone)
    if told_phone != second.rtp:
        world.assert_two_way_audio(call)
    assert (told_phone == second.rtp) is (told_second == world.phone.rtp)
    hung_up(world, call[hangs_up], call[1 - hangs_up])


@pytest.mark.parametrize("contact", [
    "<sip:alice@192.168.1.10>", "<sip:alice@192.168.1.10;maddr=192.168.1.10>"])
def test_a_phone_that_calls_itself_spells_its_contact_otherwise(world: World, contact: str) -> None:
    """What stands for the other line outside is written again, however the phone writes itself."""
    second = world_of_two_lines(world)
    world.phone.contact = contact
    call = placed(world, world.phone, second)
    hung_up(world, call.callee, call.caller)
    shown = world.provider.received("BYE")[-1].uri
    assert shown == contact.strip("<>").replace("192.168.1.10", OUTSIDE)


def test_a_stranger_at_the_same_private_address_is_left_alone() -> None:
    """Two sites number their hosts alike: a Request-URI that names the far phone is not natfix's to show."""
    for world in told(World()):
        world.provider.contact = f"<sip:bob@{world.phone.endpoint};alias=198.51.100.99~5060~1>"
        leg = world.phone.invites(world.provider.address)
        callee = world.provider.accepts(world.provider.last, headers={"Record-Route": f"<sip:{PROVIDER};lr>"})
        callee.answers(headers={"Record-Route": f"<sip:{PROVIDER};lr>"})
        leg.sends("ACK")
        assert world.provider.last.uri == world.provider.contact.strip("<>")
