"""Scenario 12: audio, video, and a third stream that is refused."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio, RtpAgent, Sipp
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.script import messages_received, messages_sent, tell
from tests.scenarios.sipp_call import SippCall, sdp_text, streams_of

pytestmark = pytest.mark.lab

VP8 = ("a=rtpmap:99 VP8/90000",)
TEXT = ("a=rtpmap:98 t140/1000",)


def three_streams(address: str, first: int, text: int) -> str:
    """Audio at port *first*, video at the next pair, text at *text* (0: refused)."""
    return sdp_text(address, [f"m=audio {first} RTP/AVP 0", "a=rtpmap:0 PCMU/8000",
                              f"m=video {first + 2} RTP/AVP 99", *VP8, f"m=text {text} RTP/AVP 98", *TEXT])


def test_a_phone_with_video_refuses_text(lab: Lab) -> None:
    """Baresip is offered three streams: audio and video flow both ways, the third stays refused."""
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, tone=440, video=True))
    alice.register()
    caller = Sipp("remote1", "s13_caller.xml", to=f"{provider.address}:5060", service="alice",
                  keys={"sdp": three_streams("203.0.113.60", 14000, 14004), "via": "203.0.113.60:5060",
                        "contact": "203.0.113.60:5060"})
    lab.start(caller)
    alice.wait_event("CALL_ESTABLISHED")
    [answer] = messages_received(caller, "SIP/2.0 200")
    audio, video, text = streams_of(answer)
    assert (text.kind, text.port) == ("text", 0)
    assert audio.host == video.host == "203.0.113.1"
    far = [lab.start(RtpAgent("remote1", 14000, to=audio.rtp, tone=880)),
           lab.start(RtpAgent("remote1", 14002, to=video.rtp, tone=0))]
    talk()
    wait_until(lambda: counted(natfix, "video") >= 20, 10.0, "video both ways in natfix calls")
    assert_two_way(alice, far[0])
    assert set(far[1].sources()) == {(video.host, video.port)}
    tell(lab, caller)
    caller.wait()
    alice.wait_closed()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_a_phone_offers_three_streams(lab: Lab) -> None:
    """An inside phone's three streams are shown, the callee's refusal comes in as it is; two streams flow."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, three_streams("192.168.1.10", 12000, 12004), three_streams("203.0.113.60", 14000, 0))
    call.start()
    offered = streams_of(call.offer)
    assert [stream.host for stream in offered] == ["203.0.113.1"] * 3
    assert len({stream.port for stream in offered}) == 3
    assert call.answer.body == messages_sent(call.callee, "SIP/2.0 200")[0].body
    audio = call.start_media(12000, 14000)
    video = call.start_media(12002, 14002, caller_tone=660, callee_tone=1100, index=1)
    talk()
    assert_two_way(*audio)
    assert_two_way(*video)
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def counted(natfix: object, media: str) -> int:
    """Return how many packets of *media* `natfix calls` counts, in the direction with fewer."""
    rows = natfix.json("calls")["calls"]        # type: ignore[attr-defined]
    return min((min(stream.get("packets_out", 0), stream.get("packets_in", 0))
                for row in rows for stream in row["streams"] if stream["media"] == media), default=0)
