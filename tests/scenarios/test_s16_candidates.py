"""Scenario 16: ICE candidates in an offer and in an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio, Linphone, RtpAgent
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.phones import ALICE_AND_BOB, open_phones
from tests.scenarios.script import messages_sent
from tests.scenarios.sipp_call import SippCall, audio_sdp, streams_of

pytestmark = pytest.mark.lab

CREDENTIALS = ("a=ice-ufrag:8hhY", "a=ice-pwd:asd88fgpdd777uzjYhagZg")
HOST_RTP = "a=candidate:1 1 UDP 2130706431 {} {} typ host"
HOST_RTCP = "a=candidate:1 2 UDP 2130706430 {} {} typ host"
OTHERS = ("a=candidate:2 1 UDP 2130706175 10.9.8.7 12000 typ host",
          "a=candidate:2 2 TCP 2130706174 192.168.1.10 12000 typ host tcptype passive",
          "a=candidate:3 1 UDP 1694498815 198.51.100.7 40000 typ srflx raddr 192.168.1.10 rport 12000")
FAR = ("a=candidate:1 1 UDP 2130706431 203.0.113.60 14000 typ host",
       "a=candidate:2 1 UDP 2130706175 203.0.113.61 15000 typ host")


def test_the_candidate_of_the_default_is_shown_with_it(make_lab: Callable[..., Lab]) -> None:
    """Candidates equal to c=/m= are shown as it is, no other is changed, and all of the peer's may send.

    Media from the peer's second candidate is a new flow from outside: it needs `ct status dnat accept`.
    """
    lab = make_lab(remotes=2, dnat_line=True)
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    own = (HOST_RTP.format("192.168.1.10", 12000), HOST_RTCP.format("192.168.1.10", 12001))
    call = SippCall(lab, audio_sdp("192.168.1.10", 12000, *CREDENTIALS, *own, *OTHERS),
                    audio_sdp("203.0.113.60", 14000, *CREDENTIALS, *FAR)).start()
    offered = streams_of(call.offer)[0]
    assert (offered.host, offered.port) != ("192.168.1.10", 12000)
    shown = (HOST_RTP.format(offered.host, offered.port), HOST_RTCP.format(offered.host, offered.rtcp_port))
    assert [line for line in offered.lines if line.startswith("a=candidate:")] == [*shown, *OTHERS]
    assert call.answer.body == messages_sent(call.callee, "SIP/2.0 200")[0].body

    media = call.start_media(12000, 14000)
    second = lab.start(RtpAgent("remote2", 15000, to=offered.rtp, tone=0))
    talk()
    assert second.sent > 50     # this stops it, before those who listen
    assert_two_way(*media)
    assert media[0].sources()["203.0.113.61", 15000] == second.sent
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_a_default_that_is_reflexive_already_is_left_alone(lab: Lab) -> None:
    """Where c=/m= is a candidate that a STUN or TURN server gave, the description arrives as it was sent."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    own = HOST_RTP.format("192.168.1.10", 12000)
    offer = audio_sdp("198.51.100.7", 40000, *CREDENTIALS, own, *OTHERS)
    call = SippCall(lab, offer, audio_sdp("203.0.113.60", 14000, *CREDENTIALS, *FAR)).start()
    assert call.offer.body == messages_sent(call.caller, "INVITE ")[0].body
    assert [row["streams"] for row in natfix.json("calls")["calls"]] == [[]]
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_phones_with_ice_hear_each_other(lab: Lab) -> None:
    """Two phones that check candidates (RFC 8445), one of them inside, end with audio in both directions."""
    natfix = lab.start_natfix()
    lab.start(Kamailio())
    crossing = Crossing(lab)
    alice, bob = open_phones(lab, ALICE_AND_BOB, Linphone, ice=True)
    for caller, callee in ((alice, bob), (bob, alice)):
        mark = callee.mark()
        caller.dial(callee.uri)
        talk()
        assert_two_way(alice, bob)
        caller.hang_up()
        callee.wait_closed(mark)
        alice.record()
        bob.record()
    crossing.stop().assert_right()
    assert [each for each in crossing.went_out() if "a=remote-candidates:" in each.body.decode()], "no ICE"
    assert_nothing_left(lab, natfix)
