"""Scenario 25: what the operator does with SIP by his own rules, beside phones that natfix serves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.pcap import Datagram, sip_messages
from tests.lab.programs import Capture, Kamailio
from tests.lab.topology import INSIDE, INSIDE2
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.phones import ALICE_AND_BOB, open_phones
from tests.scenarios.sipp_call import SippCall, audio_sdp

pytestmark = pytest.mark.lab

# The operator's forward of SIP to his PBX, and the accept rule that goes with it.
FORWARD = """
table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to 192.168.1.5
    }
}
insert rule inet firewall forward iifname "outside" ip daddr 192.168.1.5 udp dport 5060 accept
"""


def test_a_forward_of_5060_to_a_pbx_keeps_working(make_lab: Callable[..., Lab]) -> None:
    """A call to the PBX by the operator's forward, and one to a phone on 5060 by its provider, at once."""
    lab = make_lab(remotes=2)
    lab.gateway.run(["nft", "-f", "-"], input=FORWARD)
    natfix = lab.start_natfix()
    lab.start(Kamailio())
    crossing = Crossing(lab, ports="udp and not portrange 10000-19999 and not portrange 30000-39999")
    alice, bob = open_phones(lab, ALICE_AND_BOB)
    assert [row["outside"] for row in natfix.json("registrations")["registrations"]] != ["203.0.113.1:5060"]

    call = SippCall(lab, audio_sdp("203.0.113.61", 16000), audio_sdp("192.168.1.5", 12000),
                    caller="remote2", callee="pbx", to="203.0.113.1:5060").start()
    bob.dial(alice.uri)
    media = call.start_media(16000, 12000, caller_tone=660, callee_tone=1100)
    talk()
    assert_two_way(*media)
    bob.hang_up()
    alice.wait_closed()
    call.hang_up()
    assert_two_way(alice, bob)
    crossing.stop().assert_right(host=alice.address)
    assert_nothing_left(lab, natfix)


def test_inside_subnets_talk_to_each_other_unchanged(make_lab: Callable[..., Lab]) -> None:
    """A call between inside subnets crosses the gateway byte for byte, and natfix holds nothing for it."""
    lab = make_lab(second_phones=1)
    natfix = lab.start_natfix()
    captures = [lab.start(Capture("gateway", side, "udp port 5060")) for side in (INSIDE, INSIDE2)]
    call = SippCall(lab, audio_sdp("192.168.1.10", 12000), audio_sdp("192.168.2.10", 14000),
                    callee="second1").start()
    media = call.start_media(12000, 14000)
    assert natfix.json("calls")["calls"] == []
    talk()
    assert_two_way(*media)
    assert set(media[1].sources()) == {("192.168.1.10", 12000)}
    call.hang_up()
    here, there = (sip_messages(capture.stop()) for capture in captures)
    assert as_sent(here) == as_sent(there) != []
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12000"])   # routed, never natfix's
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12001"])
    assert_nothing_left(lab, natfix)


def as_sent(messages: list[Datagram]) -> list[tuple[object, ...]]:
    """Return the messages with their addresses, in order."""
    return sorted((each.source, each.destination, each.payload) for each in messages)
