"""Scenario 2: an outgoing call with 407, early media in a reliable 183, PRACK; RTP before the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Capture, Kamailio, RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left, packets_seen
from tests.scenarios.script import Callee, Caller, scenario, sdp, tell, wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

FAR = ("203.0.113.60", 14000)
TRUNK = '[[trunk]]\ninside = "192.168.1.10:5060"\npeers = ["203.0.113.60"]\n'

caller, callee = Caller(domain="example.com", invites=2), Callee()
CALLS = scenario(
    caller.request("INVITE", 1, sdp(12000), "Supported: 100rel"),
    caller.receive(100, optional=True), caller.receive(407, auth=True), caller.ack_refusal(1),
    caller.request("INVITE", 2, sdp(12000), "Supported: 100rel",
                   "[authentication username=alice password=secret]"),
    caller.receive(100, optional=True), caller.receive(183, rrs=True),
    caller.request("PRACK", 3, "", "RAck: 1 2 INVITE"), caller.receive(200),
    caller.receive(200, rrs=True), caller.ack(2),
    caller.told(), caller.request("BYE", 4), caller.receive(200))
RINGS_WITH_MEDIA = scenario(
    callee.invited(), callee.told(), callee.answer(183, sdp(14000), "Require: 100rel", "RSeq: 1"),
    callee.receive("PRACK"), callee.reply(200),
    callee.told(), callee.answer(200, sdp(14000)), callee.receive("ACK"),
    callee.receive("BYE"), callee.reply(200))

plain = Caller()
PLAIN_CALLS = scenario(
    plain.request("INVITE", 1, sdp(14000)), plain.receive(100, optional=True), plain.receive(200, rrs=True),
    plain.ack(1), plain.told(), plain.request("BYE", 2), plain.receive(200))
ANSWERS_WHEN_TOLD = scenario(
    callee.invited(), callee.told(), callee.answer(200, sdp(12000)), callee.receive("ACK"),
    callee.receive("BYE"), callee.reply(200))


def test_early_media_through_a_proxy(lab: Lab) -> None:
    """Both hear each other from the 183 on, also where the far side sends before its 183, and without
    a gap when the call is answered."""
    natfix = lab.start_natfix()
    tap, rtp = Wiretap(lab), lab.start(Capture("gateway", "outside", "udp and src port 14000"))
    lab.start(Kamailio(users={"alice": "secret"}, routes={"^bob": "203.0.113.60:5060"}))
    bob = lab.start(Sipp("remote1", RINGS_WITH_MEDIA))
    alice = lab.start(Sipp("phone1", CALLS, to="203.0.113.50:5060", service="bob"))
    offered, = streams_of(wait_received(bob, "INVITE"))
    far = lab.start(RtpAgent("remote1", 14000, to=offered.rtp, tone=880))
    wait_until(lambda: packets_seen(rtp) > 10, 5.0, "RTP before the 183")
    tell(lab, bob)
    early, = streams_of(wait_received(alice, "SIP/2.0 183"))
    near = lab.start(RtpAgent("phone1", 12000, to=early.rtp, tone=440))
    talk()
    assert natfix.request("calls")["calls"][0]["state"] == "early"
    tell(lab, bob)
    answered, = streams_of(wait_received(alice, "SIP/2.0 200", count=2))
    assert answered.rtp == early.rtp == "203.0.113.60:14000"
    talk(1.0)
    near.stop()
    assert_two_way(near, far)
    assert set(near.sources()) == {FAR}
    assert set(far.sources()) == {(offered.host, offered.port)}
    assert near.missing() <= 2
    assert far.missing() <= 2
    tell(lab, alice)
    alice.wait()
    bob.wait()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_far_media_comes_before_any_answer(make_lab: Callable[..., Lab]) -> None:
    """With the documented firewall line, what the callee sends before its answer is heard.

    Without an answer only the map element stands, so the packet is new to the operator's forward chain.
    """
    lab = make_lab(dnat_line=True)
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    bob = lab.start(Sipp("remote1", ANSWERS_WHEN_TOLD.replace("12000", "14000")))
    near = lab.start(RtpAgent("phone1", 12000, tone=440))
    alice = lab.start(Sipp("phone1", PLAIN_CALLS.replace("14000", "12000"), to="203.0.113.60:5060"))
    offered, = streams_of(wait_received(bob, "INVITE"))
    far = lab.start(RtpAgent("remote1", 14000, to=offered.rtp, tone=880))
    talk()
    near.stop()
    assert near.heard(880).recognised
    assert set(near.sources()) == {FAR}
    near = lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440))
    tell(lab, bob)
    wait_received(bob, "ACK")
    talk()
    near.stop()
    assert_two_way(near, far)
    assert set(far.sources()) == {(offered.host, offered.port)}
    tell(lab, alice)
    alice.wait()
    bob.wait()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_near_media_leaves_before_its_own_answer(lab: Lab) -> None:
    """A called phone that sends at once, from a port that has no mapping yet, is heard from the announced
    port as soon as its answer is through: the masquerade's entry does not pin the stream."""
    natfix = lab.start_natfix(TRUNK)
    tap = Wiretap(lab, "192.168.1.10:5060")
    alice = lab.start(Sipp("phone1", ANSWERS_WHEN_TOLD))
    bob = lab.start(Sipp("remote1", PLAIN_CALLS, to="203.0.113.1:5060", service="alice"))
    offered, = streams_of(wait_received(alice, "INVITE"))
    assert offered.rtp == "203.0.113.60:14000"
    rtp = lab.start(Capture("gateway", "outside", "udp and dst port 14000"))
    near = lab.start(RtpAgent("phone1", 12000, to=offered.rtp, tone=440))
    wait_until(lambda: packets_seen(rtp) > 10, 5.0, "RTP before the 200")
    tell(lab, alice)
    answered, = streams_of(wait_received(bob, "SIP/2.0 200"))
    far = lab.start(RtpAgent("remote1", 14000, to=answered.rtp, tone=880))
    talk()
    near.stop()
    assert_two_way(near, far)
    assert set(far.sources()) == {(answered.host, answered.port)}
    tell(lab, bob)
    alice.wait()
    bob.wait()
    assert_nothing_left(lab, natfix)
    tap.check()
