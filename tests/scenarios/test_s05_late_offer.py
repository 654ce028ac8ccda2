"""Scenario 5: the INVITE offers nothing; the callee does, and the answer comes in ACK or PRACK (RFC 3264,
section 4; RFC 3262, section 5)."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left
from tests.scenarios.script import Callee, Caller, scenario, sdp, tell, wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

TRUNK = '[[trunk]]\ninside = "192.168.1.10:5060"\npeers = ["203.0.113.60"]\n'
NEAR_PORT, FAR_PORT = 12000, 14000


def answered_in_ack(caller_port: int, callee_port: int) -> tuple[str, str]:
    """Return the scenarios of both ends: the offer in the 200, the answer in the ACK."""
    caller, callee = Caller(), Callee()
    return scenario(
        caller.request("INVITE", 1), caller.receive(100, optional=True), caller.receive(200, rrs=True),
        caller.ack(1, sdp(caller_port)), caller.told(), caller.request("BYE", 2), caller.receive(200),
    ), scenario(
        callee.invited(), callee.answer(200, sdp(callee_port)), callee.receive("ACK"),
        callee.receive("BYE"), callee.reply(200))


def answered_in_prack(caller_port: int, callee_port: int) -> tuple[str, str]:
    """Return the scenarios of both ends: the offer in a reliable 183, the answer in its PRACK."""
    caller, callee = Caller(), Callee()
    return scenario(
        caller.request("INVITE", 1, "", "Supported: 100rel"), caller.receive(100, optional=True),
        caller.receive(183, rrs=True),
        caller.request("PRACK", 2, sdp(caller_port), "RAck: 1 1 INVITE"), caller.receive(200),
        caller.receive(200, rrs=True), caller.ack(1),
        caller.told(), caller.request("BYE", 3), caller.receive(200),
    ), scenario(
        callee.invited(), callee.answer(183, sdp(callee_port), "Require: 100rel", "RSeq: 1"),
        callee.receive("PRACK"), callee.reply(200), callee.answer(200), callee.receive("ACK"),
        callee.receive("BYE"), callee.reply(200))


@pytest.mark.parametrize("answered", [answered_in_ack, answered_in_prack])
def test_inside_caller_gets_the_offer(lab: Lab, answered: object) -> None:
    """A phone calls without an offer: the far side's comes in, its own answer goes out last."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    calls, answers = answered(NEAR_PORT, FAR_PORT)      # type: ignore[operator]
    bob = lab.start(Sipp("remote1", answers))
    alice = lab.start(Sipp("phone1", calls, to="203.0.113.60:5060"))
    wait_received(bob, "ACK")
    answer, = streams_of(wait_received(bob, "PRACK" if answered is answered_in_prack else "ACK"))
    talk_and_compare(lab, answer.rtp)
    hang_up(lab, alice, bob)
    assert_nothing_left(lab, natfix)
    tap.check()


@pytest.mark.parametrize("answered", [answered_in_ack, answered_in_prack])
def test_inside_callee_makes_the_offer(lab: Lab, answered: object) -> None:
    """A PBX is called without an offer: its own goes out, the far side's answer comes last."""
    natfix = lab.start_natfix(TRUNK)
    tap = Wiretap(lab, "192.168.1.10:5060")
    calls, answers = answered(FAR_PORT, NEAR_PORT)      # type: ignore[operator]
    alice = lab.start(Sipp("phone1", answers))
    bob = lab.start(Sipp("remote1", calls, to="203.0.113.1:5060", service="alice"))
    wait_received(alice, "ACK")
    offer, = streams_of(wait_received(bob, "SIP/2.0 183" if answered is answered_in_prack else "SIP/2.0 200"))
    talk_and_compare(lab, offer.rtp)
    hang_up(lab, bob, alice)
    assert_nothing_left(lab, natfix)
    tap.check()


def talk_and_compare(lab: Lab, shown: str) -> None:
    """Let both talk; fail unless both are heard, the inside one from where it was *shown*."""
    near = lab.start(RtpAgent("phone1", NEAR_PORT, to=f"203.0.113.60:{FAR_PORT}", tone=440))
    far = lab.start(RtpAgent("remote1", FAR_PORT, to=shown, tone=880))
    talk()
    near.stop()
    assert_two_way(near, far)
    host, _, port = shown.partition(":")
    assert set(far.sources()) == {(host, int(port))}
    assert set(near.sources()) == {("203.0.113.60", FAR_PORT)}


def hang_up(lab: Lab, caller: Sipp, callee: Sipp) -> None:
    """Have the caller hang up, and wait for the end of both."""
    tell(lab, caller)
    caller.wait()
    callee.wait()
