"""Scenario 23: a stranger who guesses an open media port."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.sipp_call import SippCall, audio_sdp, streams_of

pytestmark = pytest.mark.lab


def test_rtp_of_a_stranger_is_not_delivered_but_counted(lab: Lab) -> None:
    """RTP from an address that no description names never reaches the phone; `natfix calls` counts it."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    call = SippCall(lab, audio_sdp("192.168.1.10", 12000), audio_sdp("203.0.113.60", 14000)).start()
    media = call.start_media(12000, 14000)
    stranger = lab.start(RtpAgent("stranger", 15000, to=streams_of(call.offer)[0].rtp, tone=660))
    talk()
    wait_until(lambda: refused(natfix.json("calls")["calls"]) >= 50, 10.0, "50 refused packets")
    assert stranger.sent >= 50
    assert_two_way(*media)
    assert set(media[0].sources()) == {("203.0.113.60", 14000)}
    call.hang_up()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def refused(rows: list[dict[str, object]]) -> int:
    """Return how many packets `natfix calls` says were refused at a call's streams."""
    return sum(stream["refused"] for row in rows for stream in row["streams"])      # type: ignore[attr-defined]
