"""Scenario 13: RTCP where it is not at the port above RTP's, and RTP at an odd port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.sipp_call import SippCall, Stream, audio_sdp, streams_of

pytestmark = pytest.mark.lab


@pytest.fixture
def place(lab: Lab) -> Callable[..., Stream]:
    """Return a function that places a call, checks audio and RTCP, and returns the offer's m-line."""
    def run(port: int, offered: Sequence[str], answered: Sequence[str], options: dict[str, Any]) -> Stream:
        natfix = lab.start_natfix()
        crossing = Crossing(lab)
        call = SippCall(lab, audio_sdp("192.168.1.10", port, *offered),
                        audio_sdp("203.0.113.60", 14000, *answered)).start()
        far = {"rtcp_mux": True} if "rtcp_mux" in options else {}
        media = call.start_media(port, 14000, options=(options, far))
        talk()
        assert_two_way(*media)
        for agent in media:
            assert agent.rtcp_received >= 3, f"RTCP of {agent.host_name}: {agent.result}"
            assert agent.missing() == 0
        stream = streams_of(call.offer)[0]
        # RFC 4961: from the advertised port.
        assert set(media[1].sources()) == {("203.0.113.1", stream.port)}
        assert set(media[1].rtcp_sources()) == {("203.0.113.1", stream.rtcp_port)}
        call.hang_up()
        crossing.stop().assert_right()
        assert_nothing_left(lab, natfix)
        return stream
    return run


def test_rtcp_at_another_port_arrives(place: Callable[..., Stream]) -> None:
    """A phone that wants RTCP elsewhere (RFC 3605) gets it there, from a port that the peer was told."""
    offered = place(12000, ("a=rtcp:12345",), (), {"rtcp_port": 12345})
    assert offered.rtcp_port not in (12345, offered.port)


def test_rtcp_on_the_port_of_rtp_arrives(place: Callable[..., Stream]) -> None:
    """Where both sides want RTCP on RTP's own port (RFC 5761), both arrive through one mapping."""
    offered = place(12000, ("a=rtcp-mux",), ("a=rtcp-mux",), {"rtcp_mux": True})
    assert "a=rtcp-mux" in offered.lines


def test_odd_port_stays_odd_and_has_its_rtcp_above(place: Callable[..., Stream]) -> None:
    """RTP at an odd port is legal (RFC 4787, REQ-4): shown at an odd port, RTCP one above it."""
    offered = place(12001, (), (), {})
    assert offered.port % 2 == 1
    assert offered.rtcp_port == offered.port + 1
