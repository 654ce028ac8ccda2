"""What rules read in messages: nothing raises, whatever anybody sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.errors import MalformedMessage
from natfix.replay.model import PacketId, Passage, Side
from natfix.replay.symptoms import reading
from natfix.sip.message import message_from_bytes
from tests.replay.sip import PHONE, PROVIDER, article, audio, record, request, response, sighting

CHALLENGE = response(401, "REGISTER", headers=(
    'WWW-Authenticate: Digest realm="a",', ' nonce="1"', 'www-authenticate : Digest realm="b"'))


def test_headers_that_natfix_skips() -> None:
    """A header that natfix itself has no use for is read, folded or not, in any case."""
    assert reading.header_values(message_from_bytes(CHALLENGE), "WWW-Authenticate") == [
        'Digest realm="a",\r\n nonce="1"', 'Digest realm="b"']
    in_body = message_from_bytes(request(sdp="WWW-Authenticate: x"))
    assert reading.header_values(in_body, "WWW-Authenticate") == []


def test_vias_and_contacts() -> None:
    """All of a list are read; what cannot be read is left out."""
    message = message_from_bytes(request(contact="a>, <sip:b@192.0.2.1:70000>, <sip:c").replace(
        b"Via:", b"Via: SIP/2.0/UDP p;branch=z9hG4bKp\r\nVia: nonsense\r\nVia:", 1))
    assert [via.sent_by.host for via in reading.vias(message)] == ["p", PHONE.host]
    assert [uri.user for uri in reading.contact_uris(message)] == ["alice"]
    assert reading.contact_uris(None) == ()


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=80))
def test_nothing_raises(via: bytes, contact: bytes, body: bytes) -> None:
    """Whatever stands in Via, Contact, Request-URI and body, reading it raises nothing."""
    clean = via.translate(None, b"\r\n"), contact.translate(None, b"\r\n")
    raw = request(sdp="x").replace(b"SIP/2.0/UDP", clean[0]).replace(b"<sip:alice@", clean[1], 1).replace(
        b"Content-Length: 1\r\n\r\nx", b"\r\n" + body).replace(
        b"sip:bob@example.com SIP", b"x" + clean[0] + b" SIP")
    try:
        message = message_from_bytes(raw)
    except MalformedMessage:
        return
    reading.top_via(message)
    list(reading.vias(message))
    reading.contact_uris(message)
    reading.sdp_of(message)
    reading.request_uri(message)
    reading.header_values(message, "WWW-Authenticate")
    reading.status_line(message)


def test_sdp_and_lines() -> None:
    """SDP is read where there is one; a message is named in two words."""
    message = message_from_bytes(request(sdp=audio(PHONE)))
    session = reading.sdp_of(message)
    assert session is not None
    assert session.media[0].port == 5060
    assert reading.sdp_of(message_from_bytes(request())) is None
    assert reading.sdp_of(message_from_bytes(request(sdp="v=0\r\nm=audio x RTP/AVP 0\r\n"))) is None
    assert reading.status_line(message) == "INVITE"
    assert reading.status_line(message_from_bytes(CHALLENGE)) == "401 to REGISTER"


def test_steps_of_a_passage() -> None:
    """Each step says where it happened, and what changed."""
    steps = list(reading.steps(Passage(article()[:4])))
    assert [(step.source_changed, step.grown, step.is_before_routing) for step in steps] == [
        (True, 0, True), (False, 0, False), (True, 8, False)]
    assert steps[0].where == "between eth1.10:i and eth1.10:I"
    assert [packet.number for packet in steps[0].packets] == [1, 2]


@pytest.mark.parametrize(("stage", "interface", "side", "name"), [
    ("i", "eth1", Side.INSIDE, "eth1:i"), ("i", "", Side.INSIDE, "i"), ("inside", "", Side.INSIDE, "inside"),
    ("capture.pcap", "", Side.OUTSIDE, "the outside (capture.pcap)"), ("", "eth0", Side.UNKNOWN, "eth0"),
    ("", "", Side.INSIDE, "the inside"), ("", "", Side.UNKNOWN, "packet 1"),
])
def test_names_of_points(stage: str, interface: str, side: Side, name: str) -> None:
    """A point has the name under which people know it."""
    copy = record(PHONE, PROVIDER, stage, 1, interface)
    copy.side = side
    assert reading.point(copy) == name


def test_packet_numbers_in_sentences() -> None:
    """One packet, several, and many."""
    packets = [PacketId(number) for number in range(1, 12)]
    assert reading.numbers(packets[:1]) == "packet 1"
    assert reading.numbers([*packets[:2], packets[0]]) == "packets 1, 2"
    assert reading.numbers(packets, 3) == "packets 1, 2, 3 and 8 more"
    assert reading.unique([*packets, *packets], 4) == tuple(packets[:4])


def test_lengths() -> None:
    """A payload counts, else what IP says."""
    assert reading.length(sighting(request(), PHONE, PROVIDER)) == len(request())
    assert reading.length(record(PHONE, PROVIDER, length=77)) == 77
