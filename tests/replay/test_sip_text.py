"""SIP messages as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay.sip_text import heading, message_from_lines, start_line_in
from natfix.sip.message import message_from_bytes
from tests.replay.sip import audio, request
from tests.replay.wire import RTP_PHONE

INVITE = request(sdp=audio(RTP_PHONE))


def test_headings() -> None:
    """A heading names both ends, the transport, and whether something is missing."""
    assert heading("## 10.0.0.1:17694 -> 192.0.2.1:5060 udp") == (
        Endpoint("10.0.0.1", 17694), Endpoint("192.0.2.1", 5060), "udp", False)
    assert heading("## [2001:db8::1]:5060 -> h:5061 wss (truncated in the source)") == (
        Endpoint("2001:db8::1", 5060), Endpoint("h", 5061), "tcp", True)
    nobody = heading("## - -> - sdp")
    assert nobody is not None
    assert nobody.transport == ""
    impossible = heading("## 10.0.0.1:65536 -> 10.0.0.2:99999 udp")
    assert impossible is not None
    assert (impossible.source.port, impossible.destination.port) == (0, 0)
    assert heading("## A chapter") is heading("# SYMPTOM: a -> b udp") is None


@pytest.mark.parametrize(("line", "start"), [
    ("REGISTER sip:example.com SIP/2.0", "REGISTER sip:example.com SIP/2.0"),
    ("E..~..@.@.7....d.......XINVITE sip:bob@example.com SIP/2.0", "INVITE sip:bob@example.com SIP/2.0"),
    ("\tSIP/2.0 200 OK", "SIP/2.0 200 OK"),
    ("E....4SIP/2.0 401 Unauthorized", "SIP/2.0 401 Unauthorized"),
    ("Via: SIP/2.0/UDP 10.0.0.1", ""), ("GET / HTTP/1.1", ""),
    ("12:41:38 IP 10.0.0.1.5060 > 10.0.0.2.5060: SIP: OPTIONS sip:a SIP/2.0", "OPTIONS sip:a SIP/2.0"),
])
def test_start_lines(line: str, start: str) -> None:
    """tcpdump -A shows headers as characters in front of the start line."""
    assert start_line_in(line) == start


def test_message_comes_back() -> None:
    """Lines become the message that they were printed from."""
    lines = INVITE.decode().split("\r\n")
    assert message_from_lines([*lines, "", ""]) == INVITE
    bye = request("BYE")
    assert message_from_lines(bye.decode().split("\r\n")) == bye


def test_length_is_made_right() -> None:
    """Masked addresses have other lengths; a hostile Content-Length stays what it is."""
    lines = INVITE.decode().replace(RTP_PHONE.host, "a.b.c.d").split("\r\n")
    message = message_from_bytes(message_from_lines(lines))
    assert message.body[1] - message.body[0] == int(message.text("content-length"))
    huge = [line.replace("Content-Length: ", "Content-Length: 21474836") for line in lines]
    assert b"Content-Length: 21474836" in message_from_lines(huge)


@given(st.lists(st.text(max_size=30), max_size=10))
def test_any_text(lines: list[str]) -> None:
    """No lines make these raise."""
    message_from_lines([line.encode("utf-8", "replace").decode() for line in lines])
    for line in lines:
        heading("## " + line)
        start_line_in(line)
