"""Scenario 20: a phone that knows its public address, and an operator who forwards its ports."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.pcap import Datagram
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.sipp_call import SippCall, audio_sdp

pytestmark = pytest.mark.lab

FORWARD = """
table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport { 12000, 12001 } dnat to 192.168.1.10
    }
}
"""


def test_what_is_right_already_is_not_touched(make_lab: Callable[..., Lab]) -> None:
    """Every message of the call crosses unchanged, from the port the phone names; audio goes both ways.

    The operator's own forward of the media ports needs an accept rule in his forward chain.
    """
    lab = make_lab(dnat_line=True)
    lab.gateway.run(["nft", "-f", "-"], input=FORWARD)
    natfix = lab.start_natfix()
    crossing = Crossing(lab, ports="udp port 5060 or udp port 5066")
    call = SippCall(lab, audio_sdp("203.0.113.1", 12000), audio_sdp("203.0.113.60", 14000),
                    contact="203.0.113.1:5066", via="203.0.113.1:5066",
                    files=("s20_caller.xml", "s20_callee.xml")).start()
    media = call.start_media(12000, 14000)
    talk()
    assert_two_way(*media)
    assert [row["streams"] for row in natfix.json("calls")["calls"]] == [[]]
    call.tell(call.callee)
    call.callee.wait()
    call.caller.wait()
    crossing.stop()
    assert payloads(crossing.inside) == payloads(crossing.outside)
    assert {each.source for each in crossing.outside if each.source[0] == "203.0.113.1"} \
        == {("203.0.113.1", 5066)}
    # What the operator forwards lives by the kernel's own rules, and is none of natfix's business.
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12000"])
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--orig-port-src", "12001"])
    assert_nothing_left(lab, natfix)


def payloads(messages: list[Datagram]) -> list[bytes]:
    """Return the messages without their addresses, in order."""
    return sorted(each.payload for each in messages)
