"""Scenario 9: phones with the same source and media ports; one phone with one media port for all calls."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio, RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left
from tests.scenarios.script import Callee, Caller, messages_received, scenario, sdp, tell_call
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

ONE_PORT = (10000, 10001)       # RTP and RTCP, for every call of every phone here


@pytest.mark.parametrize("count", [2, 10])
def test_phones_with_the_same_ports(make_lab: Callable[..., Lab], count: int) -> None:
    """Phones that all use 5060 and 10000 are called and call at the same time; each hears its own peer."""
    lab = make_lab(phones=count)
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    provider = lab.start(Kamailio())
    pairs = [start_pair(lab, provider, number) for number in range(count)]
    assert len({row["outside"] for row in natfix.request("registrations")["registrations"]}) == count
    for number, (inside, outside) in enumerate(pairs):
        caller, called = (inside, outside) if number % 2 else (outside, inside)
        caller.dial(called.uri, timeout=0)
    for pair in pairs:
        for phone in pair:
            phone.wait_event("CALL_ESTABLISHED")
    talk()
    for inside, outside in pairs:
        assert_two_way(inside, outside)
    for inside, _ in pairs:
        inside.hang_up()
    for _, outside in pairs:
        outside.wait_closed()
    assert_nothing_left(lab, natfix)
    tap.check()


def start_pair(lab: Lab, provider: Kamailio, number: int) -> tuple[Baresip, Baresip]:
    """Start and register a phone inside, with the ports that all have, and its peer outside."""
    inside = lab.start(Baresip(f"phone{number + 1}", f"inside{number}", registrar=provider.address,
                               tone=400 + 40 * number, rtp_ports=ONE_PORT))
    outside = lab.start(Baresip("remote1", f"outside{number}", registrar=provider.address,
                                tone=1000 + 40 * number, sip_port=5060 + 10 * number,
                                rtp_ports=(14000 + 10 * number, 14009 + 10 * number)))
    inside.register()
    outside.register()
    return inside, outside


def test_next_call_from_the_same_port_after_one_second(make_lab: Callable[..., Lab]) -> None:
    """A phone with one media port calls someone else 1 s after it hung up: the new peer is heard, the old
    one's late state is no obstacle."""
    lab = make_lab(remotes=2)
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    provider = lab.start(Kamailio())
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, tone=440, rtp_ports=ONE_PORT))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, tone=880))
    carol = lab.start(Baresip("remote2", "carol", registrar=provider.address, tone=1000))
    for phone in (alice, bob, carol):
        phone.register()
    for peer in (bob, carol, carol):
        mark = len(peer.events)
        alice.dial(peer.uri)
        talk()
        assert_two_way(alice, peer)
        alice.hang_up()
        peer.wait_closed(since=mark)
        time.sleep(1.0)
    assert_nothing_left(lab, natfix)
    tap.check()


caller, callee = Caller(), Callee()
CALLS = scenario(
    caller.request("INVITE", 1, sdp(10000)), caller.receive(100, optional=True),
    caller.receive(200, rrs=True), caller.ack(1),
    caller.told(), caller.request("BYE", 2), caller.receive(200))
ANSWERS = scenario(
    callee.invited(), callee.answer(200, sdp("[field0]")), callee.receive("ACK"),
    callee.receive("BYE"), callee.reply(200))


def test_one_media_port_in_two_dialogs(lab: Lab) -> None:
    """A phone that uses one port in two calls at once is shown with one outside port in both; the second
    call keeps its audio when the first ends. (SIPp: baresip opens a port for each call.)"""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    far = lab.start(Sipp("remote1", ANSWERS, calls=2, rows=[(14000,), (16000,)]))
    near = lab.start(Sipp("phone1", CALLS, to="203.0.113.60:5060", calls=2))
    wait_until(lambda: len(messages_received(far, "ACK")) == 2, 10.0, "two answered calls")
    offers = {message["call-id"]: streams_of(message)[0].rtp for message in messages_received(far, "INVITE")}
    assert len(offers) == 2
    shown, = set(offers.values())
    answers = {message["call-id"]: streams_of(message)[0].port
               for message in messages_received(near, "SIP/2.0 200")}
    first, second = sorted(answers, key=answers.__getitem__)

    one = lab.start(RtpAgent("remote1", 14000, to=shown, tone=660))
    two = lab.start(RtpAgent("remote1", 16000, to=shown, tone=880))
    phone = lab.start(RtpAgent("phone1", 10000, to="203.0.113.60:14000", tone=440))
    talk()
    phone.stop()
    assert one.heard(440).recognised
    for speaker in (one, two):
        heard = phone.heard_from(speaker)
        assert heard.recognised, str(heard)
    assert set(phone.sources()) == {("203.0.113.60", 14000), ("203.0.113.60", 16000)}
    tell_call(lab, near, first)
    wait_until(lambda: len(natfix.request("calls")["calls"]) == 1, 5.0, "the first call's end")

    phone = lab.start(RtpAgent("phone1", 10000, to="203.0.113.60:16000", tone=520))
    two = lab.start(RtpAgent("remote1", 16000, to=shown, tone=960))
    talk()
    phone.stop()
    assert_two_way(phone, two)
    host, _, port = shown.partition(":")
    assert set(two.sources()) == {(host, int(port))}
    tell_call(lab, near, second)
    near.wait()
    far.wait()
    assert_nothing_left(lab, natfix)
    tap.check()
