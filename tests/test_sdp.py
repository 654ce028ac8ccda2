"""Pins SDP: where media is wanted, in whatever way it is written, and which body is SDP at all."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.sdp import MAX_CANDIDATES, MAX_MEDIA, Connection, Media, Session, find_sdp, session_from_span
from natfix.sip.message import Message, message_from_bytes
from tests import corpus
from tests.strategies import descriptions, mutated

TOO_LONG = 1.0      # seconds; 60,000 bytes in quadratic time take more, in linear time some milliseconds
NEEDS_DATA = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)

OFFER = b"\r\n".join((
    b"v=0", b"o=alice 2890844526 2890844527 IN IP4 192.168.1.10", b"s=m=audio 1 RTP/AVP 0",
    b"c=IN IP4 192.168.1.10", b"t=0 0", b"a=sendonly", b"a=rtcp:1",
    b"a=candidate:0 1 UDP 1 192.0.2.9 9 typ host",
    b"m=audio 49170 RTP/AVP 0 101", b"i=a=rtcp:7", b"a=rtpmap:101 telephone-event/8000",
    b"a=rtcp:53020 IN IP4 192.168.1.11", b"a=rtcp-mux",
    b"a=candidate:1 1 UDP 2130706431 192.168.1.10 49170 typ host",
    b"a=candidate:2 2 udp 1694498814 203.0.113.7 45665 typ SRFLX raddr 192.168.1.10 rport 53020 generation 0",
    b"m=video 49172/2 RTP/SAVPF 31", b"c=IN IP4 192.168.1.12", b"c=IN IP4 192.168.1.13", b"b=AS:64",
    b"a=recvonly", b"a=rtcp:49175",
    b"m=image 0 udptl t38", b"a=inactive", b"",
))


def session_of(text: bytes) -> Session:
    """Read *text* in the middle of other bytes, so that offsets must be absolute."""
    before = b"c=IN IP4 9.9.9.9\r\nm=audio 9 RTP/AVP 0\r\n"
    raw = before + text + b"\r\nm=video 9 RTP/AVP 0\r\n"
    session = session_from_span(raw, len(before), len(before) + len(text))
    assert_is_sound(raw, session)
    return session


def description(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    """Return SDP with just these lines behind the first."""
    return end.join([b"v=0", *lines, b""])


def assert_is_sound(raw: bytes, session: Session) -> None:
    """Every span lies in the description and holds what it is said to hold."""

    def holds(span: tuple[int, int], text: str) -> bool:
        found = raw[span[0]:span[1]].decode("latin-1")
        return session.start <= span[0] < span[1] <= session.end and found == text

    connections: list[Connection | None] = [session.origin, session.connection]
    for index, media in enumerate(session.media):
        assert media.index == index
        assert holds(media.port_span, f"{media.port:0{media.port_span[1] - media.port_span[0]}d}")
        connections += [media.connection, media.effective, media.rtcp_address]
        if media.rtcp_port_span is not None:
            assert int(raw[slice(*media.rtcp_port_span)]) == media.rtcp_port
        for candidate in media.candidates:
            assert holds(candidate.address_span, candidate.address)
            assert int(raw[slice(*candidate.port_span)]) == candidate.port
    assert all(each is None or holds((each.start, each.end), each.host) for each in connections)


def hosts(session: Session) -> list[str | None]:
    """Return the address that each m-line uses."""
    return [media.effective.host if media.effective else None for media in session.media]


# What is found


def test_an_offer() -> None:
    """Each m-line has its port, its own or the session's address, RTCP, direction and candidates."""
    session = session_of(OFFER)
    assert session.origin is not None
    assert (session.origin.host, session.origin.family) == ("192.168.1.10", "IP4")
    assert session.origin_version == "2890844527"
    audio, video, image = session.media
    assert [(m.kind, m.port, m.count, m.proto) for m in session.media] == [
        ("audio", 49170, 1, "RTP/AVP"), ("video", 49172, 2, "RTP/SAVPF"), ("image", 0, 1, "udptl")]
    assert hosts(session) == ["192.168.1.10", "192.168.1.12", "192.168.1.10"]
    assert (audio.connection, audio.effective) == (None, session.connection)
    assert (audio.rtcp_port, audio.rtcp_mux, audio.direction) == (53020, True, "sendonly")
    assert audio.rtcp_address is not None
    assert audio.rtcp_address.host == "192.168.1.11"
    assert (video.rtcp_port, video.rtcp_address, video.rtcp_mux) == (49175, None, False)
    assert video.direction == "recvonly"
    assert (image.rtcp_port, image.direction, image.candidates) == (None, "inactive", [])


def test_candidates() -> None:
    """RFC 8839, section 5.1: what each is, and where its address and port stand."""
    raw = OFFER
    host, reflexive = session_from_span(raw, 0, len(raw)).media[0].candidates
    assert (host.component, host.transport, host.address, host.port, host.type) == (
        1, "udp", "192.168.1.10", 49170, "host")
    assert (reflexive.component, reflexive.transport, reflexive.type) == (2, "udp", "srflx")
    assert raw[slice(*host.address_span)] == b"192.168.1.10"
    assert raw[slice(*host.port_span)] == b"49170"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_line_ends(end: bytes) -> None:
    """CRLF, a bare LF, and a last line without any, are all read (RFC 8866, section 5)."""
    text = OFFER.replace(b"\r\n", end)
    for written in (text, text.removesuffix(end)):
        session = session_of(written)
        assert hosts(session) == ["192.168.1.10", "192.168.1.12", "192.168.1.10"]
        assert session.media[0].rtcp_mux


@pytest.mark.parametrize(("line", "host", "family"), [
    (b"c=IN IP4 192.0.2.1", "192.0.2.1", "IP4"),
    (b"c=IN IP4 192.0.2.1 \t", "192.0.2.1", "IP4"),
    (b"c= IN  IP4\t192.0.2.1", "192.0.2.1", "IP4"),
    (b"c=in ip4 192.0.2.1", "192.0.2.1", "IP4"),
    (b"c=IN IP4 224.2.1.1/127/3", "224.2.1.1", "IP4"),
    (b"c=IN IP4 media.example.net", "media.example.net", "IP4"),
    (b"c=IN IP6 2001:db8::1", "2001:db8::1", "IP6"),
    (b"c=IN IP6 FF15::101/3", "FF15::101", "IP6"),
    (b"c=ATM NSAP 47.0091", "47.0091", ""),
])
def test_connections(line: bytes, host: str, family: str) -> None:
    """The span is the address, without what makes it a multicast."""
    session = session_of(description(line))
    assert session.connection is not None
    assert (session.connection.host, session.connection.family) == (host, family)


@pytest.mark.parametrize(("line", "host"), [
    (b"o=- 1 2 IN IP4 192.0.2.1", "192.0.2.1"),
    (b"o=John Doe 1 2 IN IP4 192.0.2.1", "192.0.2.1"),
    (b"o=192.0.2.1 192.0.2.1 2 IN IP4 192.0.2.1", "192.0.2.1"),
    (b"o=- 1 2 IN IP6 ::1  ", "::1"),
    (b"o=-", None),
    (b"o=1 2 IN IP4 192.0.2.1", "192.0.2.1"),
    (b"o=1 IN IP4 192.0.2.1", None),
    (b"o=", None),
])
def test_origins(line: bytes, host: str | None) -> None:
    """o= is read from its end; one that cannot be read says nothing about media, and is let be."""
    origin = session_of(description(line)).origin
    assert (origin.host if origin else None) == host


def test_the_first_of_several_connections_counts() -> None:
    """Layers of one multicast have one c= each (RFC 8866, section 5.7)."""
    session = session_of(description(
        b"c=IN IP4 192.0.2.1", b"c=IN IP4 192.0.2.2", b"m=audio 2 RTP/AVP 0", b"m=audio 2 RTP/AVP 0",
        b"c=IN IP4 192.0.2.3", b"c=IN IP4 192.0.2.4"))
    assert hosts(session) == ["192.0.2.1", "192.0.2.3"]


def test_no_connection_at_all() -> None:
    """A description without c= (RFC 8866 forbids it) names no address."""
    assert hosts(session_of(description(b"m=audio 2 RTP/AVP 0"))) == [None]


@pytest.mark.parametrize(("line", "port", "count", "proto"), [
    (b"m=audio 49170 RTP/AVP 0", 49170, 1, "RTP/AVP"),
    (b"m=audio 49170/2 RTP/AVP 31", 49170, 2, "RTP/AVP"),
    (b"m=audio  49170  RTP/AVP  0", 49170, 1, "RTP/AVP"),
    (b"m=application 9 UDP/DTLS/SCTP webrtc-datachannel", 9, 1, "UDP/DTLS/SCTP"),
    (b"m=audio 0 RTP/AVP", 0, 1, "RTP/AVP"),
    (b"m=audio 65535 RTP/AVP 0", 65535, 1, "RTP/AVP"),
    (b"m=audio 00042 RTP/AVP 0", 42, 1, "RTP/AVP"),
])
def test_media_lines(line: bytes, port: int, count: int, proto: str) -> None:
    """Port, number of ports and transport; formats are none of natfix's business."""
    (media,) = session_of(description(line)).media
    assert (media.port, media.count, media.proto) == (port, count, proto)


@pytest.mark.parametrize(("line", "port", "host"), [
    (b"a=rtcp:53020", 53020, None),
    (b"a=rtcp: 53020 ", 53020, None),
    (b"a=rtcp:53020 IN IP4 192.0.2.1", 53020, "192.0.2.1"),
    (b"a=rtcp:53020 IN IP6 2001:db8::1", 53020, "2001:db8::1"),
    (b"a=rtcp:0", 0, None),
    (b"a=rtcp:65536", None, None),
    (b"a=rtcp:123456", None, None),
    (b"a=rtcp:x", None, None),
    (b"a=rtcp:1 IN IP4", None, None),
    (b"a=rtcp:1 IN IP4 192.0.2.1 x", None, None),
    (b"a=rtcp", None, None),
    (b"a=rtcp-fb:* nack", None, None),
    (b" a=rtcp:1", None, None),
])
def test_rtcp(line: bytes, port: int | None, host: str | None) -> None:
    """RFC 3605; an attribute that cannot be read counts as unknown, and RTCP is next to RTP."""
    (media,) = session_of(description(b"m=audio 4000 RTP/AVP 0", line)).media
    assert (media.rtcp_port, media.rtcp_address.host if media.rtcp_address else None) == (port, host)


def test_the_first_of_several_rtcp_attributes_counts() -> None:
    """Port and address are those of one line, never mixed."""
    lines = (b"a=rtcp:1 IN IP4 192.0.2.1", b"a=rtcp:2")
    (media,) = session_of(description(b"m=audio 4000 RTP/AVP 0", *lines)).media
    assert (media.rtcp_port, media.rtcp_address.host if media.rtcp_address else None) == (1, "192.0.2.1")


@pytest.mark.parametrize(("line", "expected"), [
    (b"a=rtcp-mux", True), (b"a=rtcp-mux ", True), (b"a=rtcp-mux-only", False), (b"a=rtcp-muxer", False),
])
def test_rtcp_mux(line: bytes, expected: bool) -> None:
    """RFC 5761: just this attribute."""
    assert session_of(description(b"m=audio 4000 RTP/AVP 0", line)).media[0].rtcp_mux is expected


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_directions(direction: str) -> None:
    """The session's is each m-line's default, its own comes before (RFC 8866, section 6.7)."""
    line, attribute = b"m=audio 2 RTP/AVP 0", f"a={direction}".encode()
    session = session_of(description(attribute, line, line, b"a=recvonly"))
    assert [media.direction for media in session.media] == [direction, "recvonly"]
    session = session_of(description(line, attribute, line, attribute + b"x"))
    assert [media.direction for media in session.media] == [direction, "sendrecv"]


@pytest.mark.parametrize("line", [
    b"a=candidate:1 1 UDP 1 192.0.2.1 70000 typ host", b"a=candidate:1 1 UDP 1 192.0.2.1 typ host",
    b"a=candidate:1 1 UDP x 192.0.2.1 7 typ host", b"a=candidate:", b"a=candidate:1 1 UDP 1 192.0.2.1 7",
    b"a=candidates:1 1 UDP 1 192.0.2.1 7 typ host", b"a=remote-candidates:1 192.0.2.1 7",
])
def test_unreadable_candidates_are_left_out(line: bytes) -> None:
    """They count as unknown attributes."""
    good = b"a=candidate:1 1 UDP 1 x.local 7 typ host"
    (media,) = session_of(description(b"m=audio 4000 RTP/AVP 0", line, good)).media
    assert [candidate.address for candidate in media.candidates] == ["x.local"]


def test_candidates_are_bounded() -> None:
    """What a browser never sends does not fill memory."""
    line = b"a=candidate:1 1 UDP 1 192.0.2.1 7 typ host"
    (media,) = session_of(description(b"m=audio 4000 RTP/AVP 0", *[line] * 1000)).media
    assert len(media.candidates) == MAX_CANDIDATES


# What is refused


@pytest.mark.parametrize(("text", "reason"), [
    (b"", "v="),
    (b"\r\n" + OFFER, "v="),
    (b"o=- 1 2 IN IP4 192.0.2.1\r\n", "v="),
    (description(b"m=audio"), "m="),
    (description(b"m=audio -1 RTP/AVP 0"), "m="),
    (description(b"m=audio $ RTP/AVP 0"), "m="),
    (description(b"m=audio 65536 RTP/AVP 0"), "m="),
    (description(b"m=audio 123456 RTP/AVP 0"), "m="),
    (description(b"m=audio " + b"1" * 5000 + b" RTP/AVP 0"), "m="),
    (description(b"m=audio 4000/0 RTP/AVP 0"), "m="),
    (description(b"m=audio 4000/x RTP/AVP 0"), "m="),
    (description(b"m=audio 4000/1000 RTP/AVP 0"), "m="),
    (description(b"m=audio 4000"), "m="),
    (description(b"m="), "m="),
    (description(*[b"m=audio 4000 RTP/AVP 0"] * (MAX_MEDIA + 1)), "more than 64"),
    (description(b"c=IN IP4"), "c="),
    (description(b"c=192.0.2.1"), "c="),
    (description(b"c=IN IP4 192.0.2.1 192.0.2.2"), "c="),
    (description(b"c=IN IP4 192.0.2.1/x"), "c="),
    (description(b"c="), "c="),
])
def test_half_of_a_description_is_not_rewritten(text: bytes, reason: str) -> None:
    """Where an address or port cannot be read, the whole description is left alone."""
    with pytest.raises(MalformedMessage, match=reason):
        session_of(text)


# Bodies


def message_with(content_type: bytes, body: bytes, *headers: bytes) -> Message:
    """Return a message with this body."""
    lines = (b"INVITE sip:x SIP/2.0", b"Via: SIP/2.0/UDP h", b"Call-ID: c", b"CSeq: 1 INVITE", *headers)
    typed = (b"Content-Type: " + content_type,) if content_type else ()
    return message_from_bytes(b"\r\n".join([*lines, *typed, b"", body]))


def parts(*bodies: tuple[bytes, bytes], boundary: bytes = b"b1", end: bytes = b"\r\n") -> bytes:
    """Return a multipart body; each part is its headers and its content."""
    lines: list[bytes] = []
    for headers, content in bodies:
        lines += [b"--" + boundary, *([headers] if headers else []), b"", content]
    return end.join([*lines, b"--" + boundary + b"--", b""])


SDP_PART = (b"Content-Type: application/sdp", OFFER)
TEXT_PART = (b"Content-Type: text/plain", b"v=0\r\nm=audio 1 RTP/AVP 0")
SDP_AND_TEXT = parts(SDP_PART, TEXT_PART)


@pytest.mark.parametrize(("content_type", "body"), [
    (b"application/sdp", OFFER),
    (b"Application/SDP", OFFER),
    (b"application/sdp;charset=utf-8", OFFER),
    (b"application / sdp ; x", OFFER),
    (b"multipart/mixed;boundary=b1", SDP_AND_TEXT),
    (b'multipart/mixed; Boundary = "b1"', SDP_AND_TEXT),
    (b'multipart/alternative;type=x;boundary="b1";y=z', SDP_AND_TEXT),
    (b"multipart/mixed;boundary=b1", parts(TEXT_PART, SDP_PART)),
    (b"multipart/mixed;boundary=b1", b"preamble\r\n" + SDP_AND_TEXT + b"epilogue"),
    (b"multipart/mixed;boundary=b1", SDP_AND_TEXT.replace(b"--b1", b"--b1 \t")),
    (b"multipart/mixed;boundary=b1", SDP_AND_TEXT.removesuffix(b"\r\n")),
    (b"multipart/mixed;boundary=b1", parts((b"X: 1\r\nCONTENT-TYPE :\r\n application/sdp;x", OFFER))),
    (b"multipart/mixed;boundary=b1", parts((SDP_PART[0] + b"\r\nContent-Transfer-Encoding: BINARY", OFFER))),
    (b"multipart/mixed;boundary=b1", parts((b"X: 1", b"x"), (b"", b"no headers"), SDP_PART)),
    (b"multipart/mixed;boundary=b1", parts((b"Content-Type: text/plain", b"--b1x\r\n--b"), SDP_PART)),
    (b'multipart/mixed;boundary="=_(a+b)?"', parts(SDP_PART, boundary=b"=_(a+b)?")),
    (b"multipart/mixed;boundary=o", parts(
        TEXT_PART, (b"Content-Type: multipart/alternative;boundary=b1", SDP_AND_TEXT), boundary=b"o")),
])
def test_sdp_is_found(content_type: bytes, body: bytes) -> None:
    """The whole body, or the one part of it, without the line end that belongs to the next boundary."""
    message = message_with(content_type, body)
    span = find_sdp(message)
    assert span is not None
    assert message.raw[slice(*span)] == OFFER


def test_sdp_is_found_between_bare_line_feeds() -> None:
    """A multipart body of a sender that ends all lines with LF."""
    offer = OFFER.replace(b"\r\n", b"\n")
    body = parts((SDP_PART[0], offer), TEXT_PART, end=b"\n")
    message = message_with(b"multipart/mixed;boundary=b1", body)
    span = find_sdp(message)
    assert span is not None
    assert message.raw[slice(*span)] == offer


@pytest.mark.parametrize(("content_type", "body", "headers"), [
    (b"", OFFER, ()),
    (b"application/sdp", b"", ()),
    (b"application/sdpx", OFFER, ()),
    (b"text/plain", OFFER, ()),
    (b"application/pkcs7-mime", OFFER, ()),
    (b"application/sdp", OFFER, (b"Content-Encoding: gzip",)),
    (b"application/sdp", OFFER, (b"e: deflate",)),
    (b"multipart/mixed", SDP_AND_TEXT, ()),
    (b"multipart/mixed;boundary=b2", SDP_AND_TEXT, ()),
    (b"multipart/mixed;boundary=", SDP_AND_TEXT, ()),
    (b"multipart/mixed;boundary=b1", parts(TEXT_PART), ()),
    (b"multipart/mixed;boundary=b1", parts(SDP_PART, SDP_PART), ()),
    (b"multipart/mixed;boundary=b1", parts((
        SDP_PART[0] + b"\r\nContent-Transfer-Encoding: base64", OFFER)), ()),
    (b"multipart/mixed;boundary=b1", parts((SDP_PART[0] + b"\r\nContent-Encoding: gzip", OFFER)), ()),
    (b"multipart/signed;boundary=b1", SDP_AND_TEXT, ()),
    (b"multipart/encrypted;boundary=b1", SDP_AND_TEXT, ()),
    (b"multipart/mixed;boundary=b1", b"--b1\r\nContent-Type: application/sdp\r\n\r\n" + OFFER, ()),
])
def test_no_sdp_to_rewrite(content_type: bytes, body: bytes, headers: tuple[bytes, ...]) -> None:
    """None at all, several, encoded, signed, or in a part that never ends."""
    assert find_sdp(message_with(content_type, body, *headers)) is None


def test_nesting_is_bounded() -> None:
    """A multipart in a multipart is read, one in that is not."""
    inner = (b"Content-Type: multipart/mixed;boundary=b1", SDP_AND_TEXT)
    middle = (b"Content-Type: multipart/mixed;boundary=m", parts(inner, boundary=b"m"))
    assert find_sdp(message_with(b"multipart/mixed;boundary=m", middle[1])) is not None
    assert find_sdp(message_with(b"multipart/mixed;boundary=o", parts(middle, boundary=b"o"))) is None


def test_content_length_bounds_the_description() -> None:
    """What follows the body is no SDP."""
    message = message_with(b"application/sdp", OFFER + b"junk", b"Content-Length: %d" % len(OFFER))
    span = find_sdp(message)
    assert span is not None
    assert message.raw[slice(*span)] == OFFER


# Any bytes


@given(descriptions(Endpoint("192.168.1.10", 5060)))
def test_generated_descriptions_are_read(text: str) -> None:
    """Odd but legal ones are understood as the naive reader understands them."""
    raw = text.encode()
    session = session_from_span(raw, 0, len(raw))
    assert_is_sound(raw, session)
    assert [line_of(media) for media in session.media] == naive_lines(raw)


@given(mutated(descriptions(Endpoint("192.168.1.10", 5060)).map(str.encode)))
def test_mutated_descriptions_are_read_or_malformed(raw: bytes) -> None:
    """Nothing but MalformedMessage is raised, and what is read is sound."""
    with contextlib.suppress(MalformedMessage):
        assert_is_sound(raw, session_from_span(raw, 0, len(raw)))


@given(st.one_of(st.binary(max_size=100), st.lists(st.sampled_from([
    b"\r\n", b"\n", b"m=", b"c=", b"o=", b"a=", b"rtcp:", b"candidate:", b"IN", b"IP4", b" ", b"1", b"/",
    b"audio", b"x", b"192.0.2.1", b"RTP/AVP", b"typ", b"raddr", b"rport", b"\xff", b"\0", b"99999999",
]), max_size=30).map(b"".join)))
def test_any_bytes_are_read_or_malformed(text: bytes) -> None:
    """Noise behind a good first line."""
    raw = b"v=0\r\n" + text
    with contextlib.suppress(MalformedMessage):
        assert_is_sound(raw, session_from_span(raw, 0, len(raw)))


@given(st.binary(max_size=80), st.integers(0, len(SDP_AND_TEXT)), st.integers(0, len(SDP_AND_TEXT)))
def test_any_multipart_has_sdp_or_not(noise: bytes, start: int, end: int) -> None:
    """Nothing is raised, and what is found lies in the body."""
    message = message_with(b"multipart/mixed;boundary=b1", SDP_AND_TEXT[:start] + noise + SDP_AND_TEXT[end:])
    span = find_sdp(message)
    assert span is None or message.body[0] <= span[0] <= span[1] <= message.body[1]


@pytest.mark.parametrize("filler", [
    b" ", b"\t", b"\r", b"\n", b"\r\n", b"a", b"1", b"1 ", b"a ", b"/", b"a=", b"a=rtcp:1\n", b"c=IN IP4 1\n",
    b"\nm=", b"\r\nc=IN IP4 1.1.1.1", b"\n ", b"-", b"--b1", b"\n--b1", b"\n--b1\n\n", b"a:b\n", b"IN ",
    b": ",
])
def test_no_bytes_take_more_than_linear_time(filler: bytes) -> None:
    """The largest body of the worst bytes is read, or refused, in some milliseconds."""
    filled = filler * (60000 // len(filler))
    for start in (b"", b"m=audio", b"m=", b"c=", b"o=", b"a=rtcp:", b"a=candidate:", b"a=candidate:1 1 U 1 "):
        begun = time.process_time()
        raw = b"v=0\r\nm=audio 1 RTP/AVP 0\r\n" + start + filled
        with contextlib.suppress(MalformedMessage):
            session_from_span(raw, 0, len(raw))
        assert time.process_time() - begun < TOO_LONG, start
    begun = time.process_time()
    find_sdp(message_with(b"multipart/mixed;boundary=b1", b"--b1\r\n" + filled + b"\r\n--b1--"))
    find_sdp(message_with(b"multipart/mixed;boundary=" + filler.strip()[:1] * 70, filled))
    assert time.process_time() - begun < TOO_LONG


# Descriptions by others, and a reader that knows nothing of spans


class NaiveLine(NamedTuple):
    """One m-line as the simplest reader has it."""

    kind: str
    port: int
    host: str | None
    rtcp: tuple[int | None, str | None]
    is_muxed: bool
    candidates: list[tuple[str, int]]


def line_of(media: Media) -> NaiveLine:
    """Return what natfix read of an m-line."""
    return NaiveLine(
        media.kind, media.port, media.effective.host if media.effective else None,
        (media.rtcp_port, media.rtcp_address.host if media.rtcp_address else None), media.rtcp_mux,
        [(candidate.address, candidate.port) for candidate in media.candidates])


def naive_lines(raw: bytes) -> list[NaiveLine]:
    """Read the m-lines in the simplest way: lines, split at white space."""
    lines = [line.rstrip("\r") for line in raw.decode("latin-1").split("\n")]
    starts = [number for number, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    shared = _naive_host(lines[:starts[0]])
    return [_naive_line(lines[start:stop], shared) for start, stop in itertools.pairwise(starts)]


def _naive_line(lines: list[str], shared: str | None) -> NaiveLine:
    kind, port = lines[0][2:].split()[:2]
    rtcp = [line[7:].split() for line in lines if re.match(r"a=rtcp:\s*\d", line)]
    candidates = [line.split() for line in lines if line.startswith("a=candidate:")]
    return NaiveLine(
        kind, int(port.partition("/")[0]), _naive_host(lines) or shared,
        (int(rtcp[0][0]), rtcp[0][3] if len(rtcp[0]) > 3 else None) if rtcp else (None, None),
        any(line.strip() == "a=rtcp-mux" for line in lines),
        [(words[4], int(words[5])) for words in candidates])


def _naive_host(lines: list[str]) -> str | None:
    found = [line.split()[-1].partition("/")[0] for line in lines if line.startswith("c=")]
    return found[0] if found else None


@NEEDS_DATA
def test_descriptions_by_others_are_read_alike() -> None:
    """Every description of the data folder, all of rtpengine's among them, as the naive reader has it."""
    malformed = []
    for item in corpus.descriptions():
        try:
            session = session_from_span(item.raw, 0, len(item.raw))
        except MalformedMessage:
            malformed.append(item.where)
            continue
        assert_is_sound(item.raw, session)
        assert [line_of(media) for media in session.media] == naive_lines(item.raw), item.where
    assert malformed == [
        "janus-fuzz/fuzzers/corpora/sdp_fuzzer/2webrtc/unittest-6.sdp",         # no v=
        "pjsip-fuzz/unpacked/fuzz-sdp/input.6.sdp",                             # m=au.. 4718
        "rtpengine-sdp/auto-daemon-tests.jsonl:125",                            # m=audio PORT
    ]
    assert len(corpus.rtpengine_inputs()) > 1000


@NEEDS_DATA
def test_captured_messages_have_their_description_found() -> None:
    """SDP is found in every captured message whose type says so, and is read as the naive reader has it."""
    read = 0
    for item in corpus.captured():
        with contextlib.suppress(MalformedMessage):
            message = message_from_bytes(item.raw)
            span = find_sdp(message)
            is_typed = message.text("content-type").lower() == "application/sdp"
            assert (span is not None) >= (is_typed and message.body[0] < message.body[1]), item.where
            if span is not None:
                found = [line_of(media) for media in session_from_span(item.raw, *span).media]
                assert found == naive_lines(item.raw[slice(*span)]), item.where
                read += 1
    assert read > 1500
