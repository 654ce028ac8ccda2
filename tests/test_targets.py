"""Session descriptions by m-line: which endpoints each names, and how a target is written."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.edits import Edits
from natfix.packet import packet_from_bytes
from natfix.sdp import Session, session_from_span
from natfix.sip.message import message_from_bytes
from natfix.targets import Target, endpoints_of, host_of, left_alone, names_host, silent_line, write
from natfix.turn import Turn
from tests.datagram import Datagram, packet_bytes

PHONE, PEER = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.20", 5060)
SHOWN = Endpoint("203.0.113.1", 30000)
HEAD = """INVITE sip:bob@example.net SIP/2.0
Via: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK1
From: <sip:alice@example.net>;tag=1
To: <sip:bob@example.net>
Call-ID: 1@test
CSeq: 1 INVITE
Content-Type: application/sdp

"""


def session(*lines: str) -> tuple[bytes, Session]:
    """Return an SDP, whose c= names the phone, and what it says."""
    raw = "\r\n".join(["v=0", "o=- 1 1 IN IP4 192.168.1.10", "s=-", "c=IN IP4 192.168.1.10", "t=0 0", *lines,
                       ""]).encode()
    return raw, session_from_span(raw, 0, len(raw))


def turn(body: bytes) -> Turn:
    """Return the turn of a message with *body*, sent by nobody in particular."""
    payload = HEAD.replace("\n", "\r\n").encode() + body
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PEER, payload)))
    return Turn(packet, message_from_bytes(payload), Edits(payload), 0.0, None, None)


def written(body: bytes, **moved: Endpoint | None) -> bytes:
    """Return *body* with its first m-line sent elsewhere."""
    it = turn(body)
    start = it.message.body[0]
    read = session_from_span(it.message.raw, start, len(it.message.raw))
    line = silent_line(read.media[0])._replace(rtp=endpoints_of(read.media[0])[0])
    write(it, read, [Target(read.media[0], moved["rtp"], moved.get("rtcp"), line, line)])
    return it.edits.apply()[start:]


@pytest.mark.parametrize(("lines", "rtp", "rtcp"), [
    (["m=audio 4000 RTP/AVP 0"], 4000, 4001),
    (["m=audio 65535 RTP/AVP 0"], 65535, None),
    (["m=audio 4000 RTP/AVP 0", "a=rtcp:5000"], 4000, 5000),
    (["m=audio 4000 RTP/AVP 0", "a=rtcp:9 IN IP4 0.0.0.0"], 4000, None),
    (["m=audio 4000 RTP/AVP 0", "a=rtcp:5000 IN IP4 0.0.0.0"], 4000, None),
    (["m=audio 4000 RTP/AVP 0", "a=rtcp:5000 IN IP4 phone.example"], 4000, None),
    (["m=image 4000 udptl t38"], 4000, None),
    (["m=audio 0 RTP/AVP 0"], None, None),
    (["m=audio 9 RTP/AVP 0"], None, None),
    (["m=audio 4000 RTP/AVP 0", "c=IN IP4 0.0.0.0"], None, None),
    (["m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:db8::1"], None, None),
])
def test_which_endpoints_a_line_names(lines: list[str], rtp: int | None, rtcp: int | None) -> None:
    """RTCP is one above, elsewhere (RFC 3605), or nowhere; without an address there is no endpoint."""
    media = session(*lines)[1].media[0]
    assert [endpoint and endpoint.port for endpoint in endpoints_of(media)] == [rtp, rtcp]


def test_a_host_name_is_told_from_an_address() -> None:
    """Only a line that wants media names a host; port 0 does not."""
    connection = "c=IN IP4 media.example"
    audio, video = session("m=audio 4000 RTP/AVP 0", connection, "m=video 0 RTP/AVP 96", connection)[1].media
    assert names_host(audio)
    assert host_of(audio) == "media.example"
    assert not names_host(video)


def test_a_moved_line_is_moved_as_a_whole() -> None:
    """c=, m= and a=rtcp name the new endpoints; o= stays where the sender is not inside."""
    body = session("m=audio 4000 RTP/AVP 0", "a=rtcp:4001 IN IP4 192.168.1.10")[0]
    assert written(body, rtp=SHOWN, rtcp=Endpoint(SHOWN.host, 30001)) == (
        body.replace(b"c=IN IP4 192.168.1.10", b"c=IN IP4 203.0.113.1")
        .replace(b"m=audio 4000", b"m=audio 30000")
        .replace(b"a=rtcp:4001 IN IP4 192.168.1.10", b"a=rtcp:30001 IN IP4 203.0.113.1"))


def test_rtcp_that_is_not_moved_stays() -> None:
    """Where a=rtcp names what must not be shown, all of it stays; only a discard port goes along."""
    refused = "a=rtcp:22 IN IP4 192.168.1.99"
    assert refused.encode() in written(session("m=audio 4000 RTP/AVP 0", refused)[0], rtp=SHOWN)
    discard = session("m=audio 4000 RTP/AVP 0", "a=rtcp:9 IN IP4 192.168.1.10")[0]
    assert b"a=rtcp:9 IN IP4 203.0.113.1" in written(discard, rtp=SHOWN)


def test_lines_that_disagree_leave_the_shared_connection() -> None:
    """One c= cannot name two addresses: it stays, with a note."""
    it = turn(session("m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 96")[0])
    read = session_from_span(it.message.raw, it.message.body[0], len(it.message.raw))
    audio, video = read.media
    stays = left_alone(video)
    here = Target(video, None, None, stays.sent._replace(rtp=endpoints_of(video)[0]), stays.received)
    write(it, read, [Target(audio, SHOWN, None, silent_line(audio), silent_line(audio)), here])
    assert not it.edits
    assert [note.rule for note in it.notes] == ["sdp-connection"]
