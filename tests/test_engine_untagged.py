"""UAs of RFC 2543 give no tags, which counts as a tag that is empty (RFC 3261, section 12.1)."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from tests.agent import Sip
from tests.playbook import OUTSIDE, PHONE, PROVIDER, Delivery, World

SDP = ("v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 8\r\n")
INSIDE_RTP, OUTSIDE_RTP = Endpoint(PHONE.host, 14000), Endpoint(PROVIDER.host, 18000)
DAY = 86400.0


def said(first: str, cseq: str, from_tag: str, to_tag: str, rtp: Endpoint | None = None, by: str = PHONE.host,
         via: str = f"{PHONE.host}:5060") -> bytes:
    """Return a message of the one call of this file."""
    body = SDP.format(rtp.host, rtp.port) if rtp else ""
    kind = "Content-Type: application/sdp\r\n" if rtp else ""
    head = (f"{first}\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK{cseq.replace(' ', '')}\r\n"
            f"From: <sip:alice@example.com>{from_tag}\r\nTo: <sip:bob@example.com>{to_tag}\r\n"
            f"Call-ID: old@ua\r\nCSeq: {cseq}\r\nContact: <sip:x@{by}>\r\n{kind}")
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def out(world: World, payload: bytes) -> Delivery:
    """The phone sends to the provider."""
    return world.phone.sends(payload, PROVIDER)


def back(world: World, payload: bytes) -> Delivery:
    """The provider sends to the phone."""
    return world.provider.sends(payload, Endpoint(OUTSIDE, PHONE.port))


@pytest.mark.parametrize("from_tag", [";tag=f", ""])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("last_tag", ["", ";tag=late"])
def test_a_call_without_tags_is_a_call(from_tag: str, early: bool, last_tag: str) -> None:
    """A callee that gives no tag, and a caller that gives none either: media flows both ways, for longer than
    an unanswered call lasts, and all is given back after BYE, whose answer may have a tag."""
    world = World()
    seen_via = f"{OUTSIDE}:5060"
    sent = out(world, said("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", from_tag, "", INSIDE_RTP))
    assert sent.arrived is not None
    mapped = world.media_of(Sip(sent.arrived))
    if early:
        back(world, said("SIP/2.0 183 X", "1 INVITE", from_tag, "", OUTSIDE_RTP, PROVIDER.host, seen_via))
        assert world.trace_rtp(OUTSIDE_RTP, mapped).destination == INSIDE_RTP
    back(world, said("SIP/2.0 200 OK", "1 INVITE", from_tag, "", OUTSIDE_RTP, PROVIDER.host, seen_via))
    out(world, said("ACK sip:bob@example.com SIP/2.0", "1 ACK", from_tag, ""))
    assert [row["state"] for row in world.engine.calls(world.now)] == ["confirmed"]
    for _ in range(2):
        assert world.trace_rtp(INSIDE_RTP, OUTSIDE_RTP).source == mapped
        assert world.trace_rtp(OUTSIDE_RTP, mapped).destination == INSIDE_RTP
        world.advance(250.0)
    out(world, said("BYE sip:bob@example.com SIP/2.0", "2 BYE", from_tag, ""))
    back(world, said("SIP/2.0 200 OK", "2 BYE", from_tag, last_tag, by=PROVIDER.host, via=seen_via))
    world.advance(3.0)
    assert not world.media_mappings()
    world.advance(DAY)
    assert world.engine.calls(world.now) == []
