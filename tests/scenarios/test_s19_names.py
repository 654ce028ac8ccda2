"""Scenario 19: what natfix does not understand, or must not touch, passes; nothing is dropped."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing, notes_of
from tests.scenarios.script import messages_sent
from tests.scenarios.sipp_call import SippCall, audio_sdp, media_lines, streams_of

pytestmark = pytest.mark.lab

NAME = "phone.example.org"
ANSWER = audio_sdp("203.0.113.60", 14000)


def test_host_names_pass_as_they_are(lab: Lab) -> None:
    """Names in c=, o= and Contact arrive unchanged; the call stands, with the audio masquerade gives it."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, audio_sdp(NAME, 12000), ANSWER, contact=f"{NAME}:5060").start()
    assert call.offer.body == messages_sent(call.caller, "INVITE ")[0].body
    assert call.offer["contact"] == f"<sip:alice@{NAME}:5060>"
    # Nobody can send to a name that does not resolve: the far end answers to where packets come from.
    media = (lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440)),
             lab.start(RtpAgent("remote1", 14000, tone=880, latch=True)))
    talk()
    assert_two_way(*media)
    assert any(note["rule"] == "sdp-host-name" for note in notes_of(natfix, call.offer["call-id"]))
    call.hang_up()
    crossing.stop().assert_right()
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12000"])   # masquerade's own flow
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12001"], check=False)
    assert_nothing_left(lab, natfix)


def test_discard_port_is_left_alone(lab: Lab) -> None:
    """Port 9 means "no media here for now": all but o= arrives unchanged, nothing is mapped."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, audio_sdp("192.168.1.10", 9), ANSWER).start()
    assert media_lines(call.offer) == media_lines(messages_sent(call.caller, "INVITE ")[0])
    assert [row["streams"] for row in natfix.json("calls")["calls"]] == [[]]
    call.hang_up()
    crossing.stop().assert_right(left_alone=("c=",))
    assert_nothing_left(lab, natfix)


def test_no_content_length_is_added(lab: Lab) -> None:
    """An INVITE without Content-Length is rewritten all the same, and arrives without one."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, audio_sdp("192.168.1.10", 12000), ANSWER,
                    files=("s19_caller.xml", "s13_callee.xml")).start()
    assert call.offer["content-length"] == ""
    assert streams_of(call.offer)[0].host == "203.0.113.1"
    media = call.start_media(12000, 14000)
    talk()
    assert_two_way(*media)
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)
