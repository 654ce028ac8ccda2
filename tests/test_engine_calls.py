"""Whole calls through the engine: set up, answered, talked, held and moved, in both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, Kind
from tests.agent import Leg
from tests.playbook import Call, World, told

LINGER = 32.0           # seconds; RFC 3261: 64*T1
RELEASE = 2.0           # seconds from a call's end to its ports'


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose operator did without the documented line."""
    yield from told(World())


@pytest.fixture
def open_world() -> Iterator[World]:
    """A gateway with ``ct status dnat accept``."""
    yield from told(World(dnat_accepted=True))


def incoming(world: World) -> Leg:
    """An INVITE from the provider to the registered phone; returns the caller's leg."""
    uri = world.registered_uri(world.phone)
    return world.provider.invites(uri, world.resolve_uri(uri))


# Plain calls

def test_outgoing_call(world: World) -> None:
    """A phone that never registered: two-way audio through ports of natfix's, then nothing is left."""
    call = world.call(world.phone, world.provider)
    world.assert_two_way_audio(call)
    assert world.told_media(world.provider) == Endpoint("203.0.113.1", 30000)
    call.hang_up()
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()


def test_incoming_call(world: World) -> None:
    """A registered phone is called, and hangs up."""
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    world.assert_two_way_audio(call)
    call.hang_up(by=call.callee)
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()


def test_incoming_call_hung_up_by_the_caller(world: World) -> None:
    """The provider's BYE reaches the phone at the Contact that the phone wrote."""
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    call.hang_up(by=call.caller)
    assert world.phone.last.method == "BYE"


def test_incoming_call_long_after_the_last_packet(world: World) -> None:
    """The registrar's flow is kept for as long as the binding, not for 30 s."""
    world.register(world.phone)
    world.advance(1800.0)
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_incoming_call_after_somebody_flushed_conntrack(world: World) -> None:
    """The destroyed flow is opened anew."""
    world.register(world.phone)
    world.kernel.flush_flows()
    world.advance(1.0)
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_ports_outlive_a_call_by_two_seconds(world: World) -> None:
    """Late RTP is let through for 2 s, then the ports are free; the dialog itself lingers."""
    call = world.call(world.phone, world.provider)
    call.hang_up()
    world.advance(RELEASE - 0.1)
    assert world.media_mappings()
    world.advance(0.2)
    assert not world.media_mappings()


def test_a_retransmitted_invite_leaves_as_the_same_bytes(world: World) -> None:
    """RFC 3261 17.1.1.2: same branch, same bytes, no second mapping."""
    leg = world.phone.invites(world.provider.address)
    first = leg.delivery
    assert first is not None
    world.advance(0.5)
    again = world.phone.sends(first.payload)
    assert again.arrived == first.arrived
    assert not [c for c in again.outcome.commands if isinstance(c, AddMapping) and c.kind is Kind.MEDIA]


def test_a_retransmitted_200_changes_nothing(world: World) -> None:
    """The answer arrives twice as the same bytes, and the call stands."""
    leg = world.phone.invites(world.provider.address)
    answer = world.provider.accepts(world.provider.last).answers()
    again = world.provider.sends(answer.payload, answer.destination)
    assert again.arrived == answer.arrived
    leg.sends("ACK")
    world.assert_hears(world.phone, world.provider)


def test_an_invite_is_challenged(world: World) -> None:
    """407, ACK, INVITE with credentials and the next CSeq: one call, the same ports."""
    leg = world.phone.invites(world.provider.address)
    offered = world.told_media(world.provider)
    world.provider.replies(world.provider.last, 407, headers={
        "Proxy-Authenticate": 'Digest realm="provider.example", nonce="1"'})
    leg.sends("ACK")
    leg.remote = f"<{world.provider.address}>"
    leg.sends("INVITE", world.phone.sdp(), {"Proxy-Authorization": 'Digest username="alice", nonce="1"'})
    assert world.told_media(world.provider) == offered
    call = world.answer(leg, world.provider)
    world.assert_two_way_audio(call)
    world.advance(60.0)
    world.assert_two_way_audio(call)


# Before the answer

def test_early_media(world: World) -> None:
    """183 with SDP: the phone hears the announcement before anybody answers."""
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 183, world.provider.sdp())
    world.assert_hears(world.phone, world.provider)
    world.assert_hears(world.provider, world.phone)
    callee.answers()
    leg.sends("ACK")
    world.assert_two_way_audio(Call(leg, callee))


def test_media_before_the_answer_needs_the_line(open_world: World, world: World) -> None:
    """RTP that precedes any SDP of the callee's: accepted from the signalling address where DNAT is."""
    for each, heard in ((open_world, True), (world, False)):
        each.phone.invites(each.provider.address)
        trace = each.trace_rtp(each.provider.rtp, each.told_media(each.provider))
        assert (trace.destination == each.phone.rtp and not trace.dropped) is heard


def test_the_phones_early_packet_does_not_pin_a_wrong_port(world: World) -> None:
    """RTP sent before the INVITE was seen went through masquerade; the answer cures that flow."""
    world.trace_rtp(world.phone.rtp, world.provider.rtp)
    world.assert_two_way_audio(world.call(world.phone, world.provider))


def test_prack(world: World) -> None:
    """RFC 3262: a reliable 183, PRACK and its 200 within the early dialog; audio from then on."""
    leg = world.phone.invites(world.provider.address, headers={"Require": "100rel"})
    callee = world.provider.accepts(world.provider.last, 183, world.provider.sdp(),
                                    {"Require": "100rel", "RSeq": "1"})
    leg.sends("PRACK", headers={"RAck": "1 1 INVITE"})
    world.provider.replies(world.provider.last, 200)
    world.assert_hears(world.phone, world.provider)
    callee.answers(sdp="")
    leg.sends("ACK")
    world.assert_two_way_audio(Call(leg, callee))


def test_late_offer_from_inside(world: World) -> None:
    """INVITE without SDP: the offer is in the 200, the answer in the ACK."""
    leg = world.phone.invites(world.provider.address, sdp="")
    callee = world.provider.accepts(world.provider.last)
    callee.answers()
    leg.sends("ACK", world.phone.sdp())
    world.assert_two_way_audio(Call(leg, callee))


def test_late_offer_from_outside(world: World) -> None:
    """The phone's offer is in its 200, the provider's answer in the ACK."""
    world.register(world.phone)
    uri = world.registered_uri(world.phone)
    leg = world.provider.invites(uri, world.resolve_uri(uri), sdp="")
    callee = world.phone.accepts(world.phone.last)
    callee.answers()
    leg.sends("ACK", world.provider.sdp())
    world.assert_two_way_audio(Call(leg, callee))


def test_forking(open_world: World) -> None:
    """Two early dialogs with their own SDP are both heard; the one that answers is the call."""
    world = open_world
    first = world.agent("first", Endpoint("198.51.100.31", 5060))
    second = world.agent("second", Endpoint("198.51.100.32", 5060))
    leg = world.phone.invites(world.provider.address)
    invite = world.provider.last
    for fork in (first, second):
        world.provider.replies(invite, 183, fork.sdp(), contact=fork.contact, tag=fork.user)
    offered = world.told_media(world.provider)
    for fork in (first, second):
        assert world.trace_rtp(fork.rtp, offered).destination == world.phone.rtp
        assert world.trace_rtp(world.phone.rtp, fork.rtp).source == offered
    world.provider.replies(invite, 200, second.sdp(), contact=second.contact, tag="second")
    answered = leg.fork(world.phone.last)
    answered.sends("ACK")
    assert second.last.method == "ACK"
    assert world.trace_rtp(second.rtp, offered).destination == world.phone.rtp
    late = Endpoint(first.rtp.host, first.rtp.port + 10)
    assert world.trace_rtp(late, offered).dropped, "the fork that lost may still send new flows"


# In the call

@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
@pytest.mark.parametrize("holder", ["phone", "provider"])
def test_hold_and_resume(world: World, holder: str, direction: str) -> None:
    """Hold and resume by either side keep the same ports, and audio works again after 10 minutes of music."""
    call = world.call(world.phone, world.provider)
    ports = world.media_mappings()
    leg, other = (call.caller, call.callee) if holder == "phone" else (call.callee, call.caller)
    for line in (f"a={direction}", "a=sendrecv"):
        leg.sends("INVITE", leg.agent.sdp(line, version=2))
        other.agent.replies(other.agent.last, 200, other.agent.sdp())
        leg.sends("ACK")
        world.advance(600.0)
        assert world.media_mappings() == ports
    world.assert_two_way_audio(call)


def test_the_old_hold(world: World) -> None:
    """c=IN IP4 0.0.0.0 (RFC 2543) passes as it is, its mapping stays for the resume."""
    call = world.call(world.phone, world.provider)
    before = world.told_media(world.provider)
    held = world.phone.sdp(rtp=Endpoint("0.0.0.0", world.phone.rtp.port))
    delivery = call.caller.sends("INVITE", held)
    assert b"c=IN IP4 0.0.0.0" in (delivery.arrived or b"")
    world.provider.replies(world.provider.last, 200, world.provider.sdp("a=recvonly"))
    call.caller.sends("ACK")
    world.advance(120.0)
    call.caller.sends("INVITE", world.phone.sdp())
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    call.caller.sends("ACK")
    assert world.told_media(world.provider) == before
    world.assert_two_way_audio(call)


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_the_phone_moves_its_port(world: World, method: str) -> None:
    """A moved inside port gets its own mapping; the old one goes."""
    call = world.call(world.phone, world.provider)
    old = world.phone.rtp
    world.phone.rtp = Endpoint(old.host, 14000)
    call.caller.sends(method, world.phone.sdp(version=2))
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    if method == "INVITE":
        call.caller.sends("ACK")
    world.assert_two_way_audio(call)
    assert old not in world.media_mappings()


def test_the_provider_moves_its_media(world: World) -> None:
    """A re-INVITE from outside with another address: a new flow, the old one is gone."""
    call = world.call(world.phone, world.provider)
    world.provider.rtp = Endpoint("198.51.100.40", 50000)
    call.callee.sends("INVITE", world.provider.sdp(version=2))
    world.phone.replies(world.phone.last, 200, world.phone.sdp())
    call.callee.sends("ACK")
    world.assert_two_way_audio(call)
    assert [state.flow.destination for state in world.kernel.flows()
            if state.flow.source == world.phone.rtp] == [world.provider.rtp]


def test_a_refused_reinvite_changes_nothing(world: World) -> None:
    """488 to a re-INVITE: the session stays as it was (RFC 3261, section 14.1)."""
    call = world.call(world.phone, world.provider)
    call.caller.sends("INVITE", world.phone.sdp(rtp=Endpoint(world.phone.rtp.host, 14000)))
    world.provider.replies(world.provider.last, 488)
    call.caller.sends("ACK")
    trace = world.trace_rtp(world.provider.rtp, Endpoint("203.0.113.1", 30000))
    assert trace.destination == world.phone.rtp
    assert Endpoint(world.phone.rtp.host, 14000) not in world.media_mappings()


def test_a_moved_call_gives_its_old_port_back(world: World) -> None:
    """After UPDATE and hang-up, old and new ports are free."""
    call = world.call(world.phone, world.provider)
    world.phone.rtp = Endpoint(world.phone.rtp.host, 14000)
    call.caller.sends("UPDATE", world.phone.sdp())
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    call.hang_up()
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()
