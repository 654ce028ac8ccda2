"""Scenario 4: UPDATE moves the media port (RFC 3311), before and after the answer, by either side."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left
from tests.scenarios.script import Callee, Caller, scenario, sdp, tell, wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

caller, callee = Caller(), Callee()
CALLS = scenario(
    caller.request("INVITE", 1, sdp(12000), "Supported: 100rel"), caller.receive(100, optional=True),
    caller.receive(183, rrs=True), caller.request("PRACK", 2, "", "RAck: 1 1 INVITE"), caller.receive(200),
    caller.told(), caller.request("UPDATE", 3, sdp(13000, version=2)), caller.receive(200),
    caller.receive(200, rrs=True), caller.ack(1),
    caller.receive("UPDATE"), caller.reply(200, sdp(13000, version=2)),
    caller.told(), caller.request("BYE", 4), caller.receive(200))
ANSWERS = scenario(
    callee.invited(), callee.answer(183, sdp(14000), "Require: 100rel", "RSeq: 1"),
    callee.receive("PRACK"), callee.reply(200),
    callee.receive("UPDATE"), callee.reply(200, sdp(14000)),
    callee.told(), callee.answer(200), callee.receive("ACK"),
    callee.told(), callee.request("UPDATE", 1, sdp(15000, version=2)), callee.receive(200),
    callee.receive("BYE"), callee.reply(200))


def test_update_moves_the_media_port(lab: Lab) -> None:
    """The caller moves its port while it rings, the callee its own after the answer: audio follows each
    time, and the old port's mapping ends with the move."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    bob = lab.start(Sipp("remote1", ANSWERS))
    alice = lab.start(Sipp("phone1", CALLS, to="203.0.113.60:5060"))
    first, = streams_of(wait_received(bob, "INVITE"))
    near = lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440))
    far = lab.start(RtpAgent("remote1", 14000, to=first.rtp, tone=880))
    talk()
    near.stop()
    assert_two_way(near, far)
    wait_received(bob, "PRACK")
    tell(lab, alice)
    moved, = streams_of(wait_received(bob, "UPDATE"))
    assert moved.rtp != first.rtp
    wait_received(alice, "SIP/2.0 200", count=2)
    wait_until(lambda: outside_ports(natfix) == {moved.port, moved.port + 1}, 5.0, "the old mapping's end")

    near = lab.start(RtpAgent("phone1", 13000, to="203.0.113.60:14000", tone=520))
    far = lab.start(RtpAgent("remote1", 14000, to=moved.rtp, tone=960))
    tell(lab, bob)
    wait_received(bob, "ACK")
    talk()
    near.stop()
    assert_two_way(near, far)
    assert set(far.sources()) == {(moved.host, moved.port)}

    tell(lab, bob)
    told, = streams_of(wait_received(alice, "UPDATE"))
    assert told.rtp == "203.0.113.60:15000"
    answered, = streams_of(wait_received(bob, "SIP/2.0 200"))
    assert answered.rtp == moved.rtp
    near = lab.start(RtpAgent("phone1", 13000, to=told.rtp, tone=600))
    far = lab.start(RtpAgent("remote1", 15000, to=answered.rtp, tone=1040))
    talk()
    near.stop()
    assert_two_way(near, far)
    assert set(near.sources()) == {("203.0.113.60", 15000)}
    tell(lab, alice)
    alice.wait()
    bob.wait()
    assert_nothing_left(lab, natfix)
    tap.check()


def outside_ports(natfix: Natfix) -> set[int]:
    """Return the outside media ports of all calls."""
    calls = natfix.request("calls")["calls"]
    return {int(stream["outside"].rpartition(":")[2]) for call in calls for stream in call["streams"]}
