"""Scenario 14: a call that becomes a fax, by a re-INVITE to T.38 over UDPTL."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.script import wait_received
from tests.scenarios.sipp_call import SippCall, audio_sdp, sdp_text, streams_of

pytestmark = pytest.mark.lab

T38 = ("a=T38FaxVersion:0", "a=T38MaxBitRate:14400", "a=T38FaxRateManagement:transferredTCF",
       "a=T38FaxUdpEC:t38UDPRedundancy")


def fax_sdp(address: str, port: int) -> str:
    """A description that has fax in the place of the audio (RFC 3264, section 8.3.2; ITU-T T.38, annex D)."""
    return sdp_text(address, [f"m=image {port} udptl t38", *T38]).replace("3851 1 IN", "3851 2 IN")


def test_fax_takes_over_with_one_port(lab: Lab) -> None:
    """Audio both ways, then a T.38 re-INVITE: datagrams both ways by one mapping, audio's ports freed."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, audio_sdp("192.168.1.10", 12000), audio_sdp("203.0.113.60", 14000),
                    files=("s14_caller.xml", "s14_callee.xml"), keys=[
                        {"second_sdp": fax_sdp("192.168.1.10", 12010)},
                        {"second_sdp": fax_sdp("203.0.113.60", 14010)}]).start()
    audio = call.start_media(12000, 14000)
    talk()
    assert_two_way(*audio)
    call.tell(call.caller)
    wait_received(call.callee, "ACK ", count=2)
    there = streams_of(wait_received(call.callee, "INVITE ", count=2))
    back = streams_of(wait_received(call.caller, "SIP/2.0 200", count=2))
    assert [line.kind for line in there] == ["image"]
    assert back[0].rtp == "203.0.113.60:14010"

    def held() -> list[str]:
        return [stream["inside"] for row in natfix.json("calls")["calls"] for stream in row["streams"]]
    wait_until(lambda: held() == ["192.168.1.10:12010"], 5.0, "one mapping, of the fax alone")
    fax = [lab.start(RtpAgent("phone1", 12010, to=back[0].rtp, tone=440, no_rtcp=True)),
           lab.start(RtpAgent("remote1", 14010, to=there[0].rtp, tone=880, no_rtcp=True))]
    talk()
    assert_two_way(*fax)
    assert set(fax[1].sources()) == {("203.0.113.1", there[0].port)}
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)
