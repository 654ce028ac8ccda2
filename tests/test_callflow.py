"""Calls seen from the middle: what begins, follows and ends them beside the plain cases."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Inside, Limits, Media, Settings, Signalling
from tests.playbook import PHONE, PROVIDER, World


@pytest.fixture
def world() -> World:
    return World()


def states(world: World) -> list[str]:
    return [row["state"] for row in world.engine.calls(world.now)]


def test_only_dialog_forming_requests_begin_a_call(world: World) -> None:
    """OPTIONS and MESSAGE leave nothing behind; SUBSCRIBE and INVITE begin something."""
    world.phone.begins("OPTIONS", "sip:bob@provider.example")
    world.phone.begins("MESSAGE", "sip:bob@provider.example")
    assert states(world) == []
    world.phone.begins("SUBSCRIBE", "sip:bob@provider.example", headers=[("Event", "presence")])
    assert states(world) == ["early"]


def test_a_subscription_keeps_the_phone_reachable_until_it_ends(world: World) -> None:
    """NOTIFYs reach an unregistered phone for as long as the 2xx said, not longer."""
    leg = world.phone.begins("SUBSCRIBE", "sip:bob@provider.example", headers=[("Event", "presence")])
    notifier = world.provider.accepts(world.provider.last, 200, headers=[("Expires", "900")])
    world.advance(800.0)
    assert notifier.sends("NOTIFY", headers=[("Subscription-State", "active")]).arrived is not None
    assert leg.remote_tag
    world.advance(200.0)
    assert states(world) == []


def test_a_notify_that_says_terminated_ends_the_subscription(world: World) -> None:
    """RFC 6665, section 4.4.1."""
    world.phone.begins("SUBSCRIBE", "sip:bob@provider.example", headers=[("Event", "presence")])
    notifier = world.provider.accepts(world.provider.last, 200, headers=[("Expires", "900")])
    notifier.sends("NOTIFY", headers=[("Subscription-State", "terminated;reason=noresource")])
    world.advance(3.0)
    assert states(world) == []


def test_an_unknown_call_is_taken_up_by_its_reinvite(world: World) -> None:
    """A call that began before natfix did gets its media fixed from its next offer on."""
    call = world.call(world.phone, world.provider)
    fresh = World()
    request = fresh.phone.sdp()
    text = (f"INVITE sip:bob@{PROVIDER} SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bKre;rport\n"
            f"From: {call.caller.own}\nTo: {call.caller.remote}\nCall-ID: {call.caller.call_id}\n"
            f"CSeq: 7 INVITE\nContact: {fresh.phone.contact}\nContent-Type: application/sdp\n\n{request}")
    delivery = fresh.phone.sends(text, PROVIDER)
    assert b"c=IN IP4 203.0.113.1" in delivery.arrived
    fresh.provider.replies(fresh.provider.last, 200, fresh.provider.sdp())
    assert states(fresh) == ["confirmed"]


def test_the_remote_contact_may_call_back_directly(world: World) -> None:
    """Without Record-Route the other UA's own requests come from its Contact's address."""
    leg = world.phone.invites("sip:bob@provider.example")
    elsewhere = Endpoint("198.51.100.30", 5060)
    remote = world.agent("remote", elsewhere)
    world.provider.replies(world.provider.last, 200, world.provider.sdp(),
                           contact=f"<sip:remote@{elsewhere}>", tag="r")
    assert leg.final == 200
    assert str(elsewhere.host) in world.engine._calls.find(
        "192.168.1.10", leg.call_id, leg.own_tag, "r").peers
    assert remote.inbox == []


@pytest.mark.parametrize(("on_failure", "arrives"), [("drop", False), ("pass", True)])
def test_limits_on_dialogs_refuse_the_call_and_say_so(on_failure: str, arrives: bool) -> None:
    """Too many calls of one host: the INVITE is dropped, or passes with its SDP left alone, by policy;
    a note tells, and a message that begins no call passes."""
    networks = tuple(World().kernel.networks.values())
    world = World(Settings(inside=Inside(networks), limits=Limits(dialogs_per_host=1),
                           signalling=Signalling(on_failure=on_failure)))
    world.call(world.phone, world.provider)
    leg = world.phone.invites("sip:carol@provider.example")
    assert (leg.delivery.arrived is not None) == arrives
    assert "limit" in leg.delivery.rules()
    leg = world.phone.begins("SUBSCRIBE", "sip:bob@provider.example", headers=[("Event", "presence")])
    assert leg.delivery.arrived is not None
    assert "limit" in leg.delivery.rules()


def test_a_refreshed_subscription_lasts_longer(world: World) -> None:
    """Each 2xx to SUBSCRIBE says anew how long it lasts (RFC 6665, section 4.1.2.2)."""
    leg = world.phone.begins("SUBSCRIBE", "sip:bob@provider.example", headers=[("Event", "presence")])
    notifier = world.provider.accepts(world.provider.last, 200, headers=[("Expires", "600")])
    world.advance(500.0)
    leg.sends("SUBSCRIBE", headers=[("Event", "presence")])
    world.provider.replies(world.provider.last, 200, headers=[("Expires", "600")])
    world.advance(500.0)
    assert states(world) == ["confirmed"]
    assert notifier.sends("NOTIFY", headers=[("Subscription-State", "active")]).arrived is not None


def test_a_target_refresh_lets_the_new_contact_in(world: World) -> None:
    """A re-INVITE's 2xx may move the other side (D30): its next requests come from there."""
    call = world.call(world.phone, world.provider)
    elsewhere = Endpoint("198.51.100.31", 5060)
    call.caller.sends("INVITE", world.phone.sdp(version=2))
    world.provider.replies(world.provider.last, 200, world.provider.sdp(), contact=f"<sip:bob@{elsewhere}>")
    mapping = world.engine._mappings.find(PHONE)
    assert elsewhere.host in mapping.remotes


def test_an_unanswered_bye_ends_a_call_whose_media_goes_on(world: World) -> None:
    """The party that said BYE has left (RFC 3261, section 15.1.1), whatever the other still sends."""
    call = world.call(world.phone, world.provider)
    call.caller.sends("BYE")
    for _ in range(4):
        world.advance(10.0)
        world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
        world.poll_counters()
    assert states(world) == []


@pytest.mark.parametrize("has_restarted", [False, True])
def test_a_call_without_bye_ends_by_its_silence(world: World, has_restarted: bool) -> None:
    """Whose BYE never comes is given up once the kernel has counted no packet for `[media] silence`, an hour.
    One packet in between, and the hour begins anew."""
    world.call(world.phone, world.provider)
    world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
    if has_restarted:
        world.restart()
    for _ in range(5):
        world.advance(600.0)
        world.poll_counters()
    world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
    for _ in range(5):
        world.poll_counters()
        world.advance(600.0)
    assert states(world) == ["confirmed"]
    world.advance(700.0)
    assert states(world) == []


def test_a_call_counted_before_its_ack_ends_by_its_silence_too() -> None:
    """Where the kernel's counters come between 2xx and ACK, the minute that `[media] silence` gives is one,
    and not the 200 s that an answer may wait for its ACK."""
    world = World(Settings(media=Media(silence=60)))
    leg = world.phone.invites(world.provider.address)
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
    world.poll_counters()
    leg.sends("ACK")
    world.advance(50.0)
    world.poll_counters()
    assert states(world) == ["confirmed"]
    world.advance(20.0)
    assert states(world) == []


def test_a_port_that_is_used_again_keeps_no_other_call_alive(world: World) -> None:
    """A call whose BYE never came ends by its own silence, also where its phone's RTP port is soon used for
    another call, whose media goes on with another port of the other side."""
    world.call(world.phone, world.provider)
    world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
    world.poll_counters()
    world.provider.rtp = world.provider.rtp._replace(port=world.provider.rtp.port + 2)
    second = world.call(world.phone, world.provider)
    for _ in range(7):
        world.advance(600.0)
        world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
        world.poll_counters()
    assert [row["call_id"] for row in world.engine.calls(world.now)] == [second.caller.call_id]


def test_a_released_call_is_not_given_up_for_its_silence() -> None:
    """Media that goes past the gateway is not seen, so an hour without a message proves nothing."""
    world = World(dnat_accepted=True)
    world.register(world.phone, expires=7200)
    world.register(world.other_phone, expires=7200)
    world.call(world.phone, world.other_phone)
    world.advance(4000.0)
    assert states(world) == ["confirmed", "confirmed"]


def test_a_call_that_comes_about_after_a_failure_lasts(world: World) -> None:
    """A 2xx after a 486, of another fork, takes the call up: no timer of its former end is due for ever."""
    world.phone.is_strict = False
    leg = world.phone.invites(world.provider.address)
    invite = world.provider.last
    world.provider.replies(invite, 486, tag="busy")
    world.provider.replies(invite, 200, world.provider.sdp(), tag="free")
    world.advance(40.0)
    assert states(world) == ["confirmed"]
    due = world.engine.next_timeout()
    assert due is None or due > world.now
    assert leg.call_id


def test_what_comes_after_the_end_holds_nothing(world: World) -> None:
    """A 180 for a call that has ended may open its way back again; that goes with the call."""
    world.phone.is_strict = False
    world.phone.invites(world.provider.address)
    invite = world.provider.last
    world.provider.replies(invite, 486, tag="busy")
    world.advance(5.0)
    world.provider.replies(invite, 200, world.provider.sdp(), tag="free")
    world.provider.replies(invite, 486, tag="free")
    world.advance(2 * 86400.0)
    assert states(world) == []
    status = world.engine.status(world.now)
    assert (status["signalling_mappings"], status["media_mappings"], status["flows"]) == (0, 0, 0)
