"""Scenario 7: a forked call: two early dialogs with different SDP, one of which is answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left
from tests.scenarios.script import Callee, Caller, messages_received, scenario, sdp, tell, wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

LEFT, RIGHT = ("203.0.113.61", 14000), ("203.0.113.62", 16000)
caller, provider = Caller(), Callee()
CALLS = scenario(
    caller.request("INVITE", 1, sdp(12000)), caller.receive(100, optional=True),
    caller.receive(183), caller.receive(183), caller.receive(200, rrs=True), caller.ack(1),
    caller.told(), caller.request("BYE", 2), caller.receive(200))
# Both branches end at one SIPp, as behind a forking proxy; each has a tag and a description of its own.
FORKS = scenario(
    provider.invited(),
    provider.answer(183, sdp(LEFT[1], address=LEFT[0]), tag="left"),
    provider.answer(183, sdp(RIGHT[1], address=RIGHT[0]), tag="right"),
    provider.told(),
    provider.answer(200, sdp(RIGHT[1], address=RIGHT[0]), tag="right"), provider.receive("ACK"),
    provider.receive("BYE"), provider.reply(200))


def test_both_branches_are_heard_until_one_answers(make_lab: Callable[..., Lab]) -> None:
    """Early media of two branches comes in from two places; after the answer only the one that answered
    is heard, in both directions, and the other is shut out."""
    lab = make_lab(remotes=3)
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    fork = lab.start(Sipp("provider", FORKS))
    alice = lab.start(Sipp("phone1", CALLS, to="203.0.113.50:5060"))
    offer, = streams_of(wait_received(fork, "INVITE"))
    wait_received(alice, "SIP/2.0 183", count=2)
    early = [streams_of(message)[0] for message in messages_received(alice, "SIP/2.0 183")]
    assert [stream.rtp for stream in early] == ["203.0.113.61:14000", "203.0.113.62:16000"]
    call, = natfix.request("calls")["calls"]
    assert call["dialogs"] == 2

    near = lab.start(RtpAgent("phone1", 12000, to=early[1].rtp, tone=440))
    left = lab.start(RtpAgent("remote2", 14000, to=offer.rtp, tone=660))
    right = lab.start(RtpAgent("remote3", 16000, to=offer.rtp, tone=880))
    talk()
    near.stop()
    for speaker in (left, right):
        heard = near.heard_from(speaker)
        assert heard.recognised, str(heard)
    assert set(near.sources()) == {LEFT, RIGHT}
    assert right.heard(440).recognised

    tell(lab, fork)
    wait_received(fork, "ACK")
    wait_until(lambda: natfix.request("calls")["calls"][0]["state"] == "confirmed", 5.0, "the answer")
    near = lab.start(RtpAgent("phone1", 12000, to=early[1].rtp, tone=520))
    left = lab.start(RtpAgent("remote2", 14000, to=offer.rtp, tone=700))
    right = lab.start(RtpAgent("remote3", 16000, to=offer.rtp, tone=960))
    talk()
    near.stop()
    assert_two_way(near, right)
    assert set(near.sources()) == {RIGHT}
    assert set(right.sources()) == {(offer.host, offer.port)}
    assert left.sent > 150
    tell(lab, alice)
    alice.wait()
    fork.wait()
    assert_nothing_left(lab, natfix)
    tap.check()
