"""Other methods than INVITE and REGISTER: requests alone, subscriptions, transfers, keep-alives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from tests.agent import Leg
from tests.playbook import OUTSIDE, PHONE, World, told


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose operator did without the documented line."""
    yield from told(World())


@pytest.fixture
def open_world() -> Iterator[World]:
    """A gateway with ``ct status dnat accept``."""
    yield from told(World(dnat_accepted=True))


@pytest.mark.parametrize("method", ["OPTIONS", "MESSAGE", "PUBLISH", "INFO"])
def test_requests_outside_dialogs(world: World, method: str) -> None:
    """Via and Contact are shown outside, the answer finds its way back."""
    leg = world.phone.begins(method, world.provider.address)
    assert OUTSIDE in world.provider.last["via"]
    world.provider.replies(world.provider.last, 200)
    assert leg.final == 200


def test_a_subscription_is_notified_for_its_whole_life(open_world: World) -> None:
    """SUBSCRIBE: NOTIFYs reach the phone while it lasts, with the Contact it wrote."""
    world = open_world
    leg = world.phone.begins("SUBSCRIBE", world.provider.address,
                             headers={"Event": "presence", "Expires": "600"})
    tag = "notifier"
    subscribe = world.provider.last
    world.provider.replies(subscribe, 200, headers={"Expires": "600"}, tag=tag)
    notifier = Leg(world.provider, leg.call_id, f"{subscribe['to']};tag={tag}", subscribe["from"])
    notifier.learn(subscribe, [])
    for _ in range(4):
        notifier.sends("NOTIFY", headers={"Event": "presence", "Subscription-State": "active"})
        assert world.phone.last.method == "NOTIFY"
        world.phone.replies(world.phone.last, 200)
        world.advance(140.0)


def test_the_last_notification_comes_after_the_end(world: World) -> None:
    """A phone that unsubscribes is still told the final state, a second after the 2xx (RFC 6665, 4.1.2.3)."""
    leg = world.phone.begins("SUBSCRIBE", world.provider.address,
                             headers={"Event": "presence", "Expires": "600"})
    subscribe = world.provider.last
    world.provider.replies(subscribe, 200, headers={"Expires": "600"}, tag="notifier")
    notifier = Leg(world.provider, leg.call_id, f"{subscribe['to']};tag=notifier", subscribe["from"])
    notifier.learn(subscribe, [])
    leg.sends("SUBSCRIBE", headers={"Event": "presence", "Expires": "0"})
    world.provider.replies(world.provider.last, 200, headers={"Expires": "0"})
    world.advance(1.0)
    notifier.sends("NOTIFY", headers={"Event": "presence", "Subscription-State": "terminated"})
    assert world.phone.last.method == "NOTIFY"
    world.phone.replies(world.phone.last, 200)
    world.advance(3.0)
    assert not world.engine.calls(world.now)


def test_a_transfer(world: World) -> None:
    """REFER in a dialog, its NOTIFY, and the new INVITE to who was referred to."""
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    target = world.agent("target", Endpoint("198.51.100.60", 5060))
    call.caller.sends("REFER", headers={"Refer-To": f"<{target.contact.strip('<>')}>",
                                        "Referred-By": "<sip:bob@provider.example>"})
    assert world.phone.last["refer-to"] == target.contact
    world.phone.replies(world.phone.last, 202)
    call.callee.sends("NOTIFY", headers={"Event": "refer", "Subscription-State": "active"})
    assert world.provider.last.method == "NOTIFY"
    transferred = world.phone.invites(target.contact.strip("<>"), target.endpoint)
    world.assert_two_way_audio(world.answer(transferred, target))


def test_refer_to_the_phone_itself(world: World) -> None:
    """A phone that refers somebody to itself is shown at its outside endpoint."""
    call = world.call(world.phone, world.provider)
    call.caller.sends("REFER", headers={"Refer-To": "<sip:alice@192.168.1.10:5060>"})
    assert world.provider.last["refer-to"] == f"<sip:alice@{OUTSIDE}:5060>"


@pytest.mark.parametrize("payload", [
    b"\r\n\r\n", b"\0\0\0\0", b"jaK", b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"x" * 12])
def test_keepalives_pass_untouched(world: World, payload: bytes) -> None:
    """CRLF, zeros, a word, STUN: not SIP, and none of natfix's business."""
    world.register(world.phone)
    delivery = world.phone.sends(payload)
    assert delivery.is_untouched
    assert world.provider.sends(payload, Endpoint(OUTSIDE, 5060)).is_untouched


def test_phones_that_talk_directly_are_left_alone() -> None:
    """Two inside subnets through the gateway, without any NAT: not a byte is changed."""
    world = World(inside=("192.168.1.0/24", "192.168.2.0/24"))
    far = world.agent("far", Endpoint("192.168.2.20", 5060))
    leg = world.phone.invites("sip:far@192.168.2.20", far.endpoint)
    assert leg.delivery is not None
    assert leg.delivery.is_untouched
    assert leg.delivery.trace is not None
    assert leg.delivery.trace.source == PHONE
