"""natfix.replay.symptoms.talking: what descriptions ask for, by direction and side."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.replay.model import Direction, Side
from natfix.replay.symptoms.talking import answer_time, arriving, end_time, leaving, rtp, said
from tests.replay.sip import audio
from tests.replay.symptoms.test_audio import RTP, RTP_FAR, RTP_OUT, call, talk


def test_a_call_in_their_terms() -> None:
    """Each side's wish on each side of the NAT, the streams by direction, the call's beginning and end."""
    capture = call()
    talk(capture)
    conversation, = capture.conversations()
    for direction, side, expected in (
        (Direction.OUTWARD, Side.INSIDE, RTP), (Direction.OUTWARD, Side.OUTSIDE, RTP_OUT),
        (Direction.INWARD, Side.INSIDE, RTP_FAR), (Direction.INWARD, Side.OUTSIDE, RTP_FAR),
    ):
        assert [each.endpoint for each in said(conversation, direction, side)] == [expected]
    streams = rtp(conversation)
    assert {each.source for each in leaving(streams, capture.context)} == {RTP, RTP_OUT}
    assert {each.destination for each in arriving(streams, capture.context)} == {RTP, RTP_OUT}
    assert [each.destination for each in arriving(streams, capture.context, Side.INSIDE)] == [RTP]
    answered = answer_time(conversation)
    assert answered is not None
    assert 19 < end_time(conversation, capture.context) - answered < 21


def test_what_is_no_wish() -> None:
    """Port 0, hold by 0.0.0.0 and a=sendonly ask for no media."""
    for endpoint, tail, wanted in ((RTP, "", True), (RTP, "a=sendonly\r\n", False),
                                   (RTP._replace(port=0), "", False), (Endpoint("0.0.0.0", 4000), "", False)):
        conversation, = call(side="inside", own_sdp=audio(endpoint) + tail).conversations()
        first = said(conversation, Direction.OUTWARD, Side.INSIDE)[0]
        assert first.is_wanted is wanted
