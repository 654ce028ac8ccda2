"""Pins SIP messages: what is found where, what is refused, and that no bytes take long."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
import sipmessage
from hypothesis import given
from hypothesis import strategies as st

from natfix.errors import MalformedMessage
from natfix.sip.message import HEADERS, MAX_HEADERS, Message, is_sip, message_from_bytes
from tests import corpus
from tests.strategies import conversations, mutated

TOO_LONG = 1.0      # seconds; 60,000 bytes in quadratic time take more, in linear time some milliseconds
NEEDS_DATA = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)

INVITE = (
    b"INVITE sip:bob@example.net SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1, SIP/2.0/UDP 192.0.2.3;branch=z9hG4bK3\r\n"
    b"VIA : SIP/2.0/UDP 192.0.2.2\r\n"
    b"X-Contact: <sip:no@example.net>\r\n"
    b"f: \"Alice;tag=no\" <sip:a@example.com;tag=no>;x=\";tag=no\";Tag = f1 ;y\r\n"
    b"To:\r\n <sip:b@example.com>\r\n"
    b"i:\t abc@example.com \t\r\n"
    b"CSeq:  7 \r\n\tINVITE\r\n"
    b"vfc-none\r\n"
    b"m: <sip:a@192.0.2.1>\r\n"
    b"User-Agent: Phone\xfc 1\r\n"
    b"l: 4\r\n"
    b"\r\n"
    b"bodytrailing"
)


def options(*lines: bytes, body: bytes = b"", end: bytes = b"\r\n") -> bytes:
    """Return a request with just these headers behind the mandatory ones."""
    start = (b"OPTIONS sip:x SIP/2.0", b"Via: SIP/2.0/UDP h;branch=z9hG4bK1", b"Call-ID: c")
    return end.join([*start, b"CSeq: 1 OPTIONS", *lines, b"", body])


def value(message: Message, name: str) -> bytes:
    """Return the bytes that the span of the first header called *name* covers."""
    header = message.first(name)
    assert header is not None
    return message.raw[header.start:header.end]


def assert_is_sound(message: Message) -> None:
    """Every span lies in its message, and is what the message says there."""
    end_of_last = 0
    for header in message.headers:
        assert end_of_last < header.start <= header.end <= message.body[0]
        text = message.raw[header.start:header.end]
        assert text == text.strip(b" \t")
        line = message.raw[end_of_last:header.start].rpartition(b"\n")[2] or message.raw[:header.start]
        assert header.name in SPELLINGS[_name_before(message.raw, header.start)], line
        end_of_last = header.end
    start, end = message.request_uri
    assert 0 <= start <= end <= len(message.raw)
    assert message.body[0] <= message.body[1] <= len(message.raw)
    assert message.method == message.cseq_method
    assert message.is_request == (message.status == 0)


SPELLINGS = {
    name.lower(): entry.split()[0].lower() for entry in HEADERS for name in entry.split()
}


def _name_before(raw: bytes, start: int) -> str:
    found = re.search(rb"(?:^|\n)([^\s:]+)\s*:\s*\Z", raw[:start])
    assert found is not None
    return found[1].decode().lower()


# What is found


def test_headers_are_found_in_every_spelling() -> None:
    """Compact and long names, any case, white space before the colon, folded values, in their order."""
    message = message_from_bytes(INVITE)
    names = [header.name for header in message.headers]
    assert names == ["via", "via", "from", "to", "call-id", "cseq", "contact", "user-agent", "content-length"]
    assert value(message, "to") == b"<sip:b@example.com>"
    assert value(message, "call-id") == b"abc@example.com"
    assert [header.name for header in message.all("via")] == ["via", "via"]
    assert message.first("route") is None
    assert_is_sound(message)


def test_what_a_message_is_looked_up_by() -> None:
    """Method, CSeq, Call-ID, tags outside of names and quotes, the topmost branch."""
    message = message_from_bytes(INVITE)
    assert (message.is_request, message.method, message.status, message.reason) == (True, "INVITE", 0, "")
    assert (message.cseq, message.cseq_method) == (7, "INVITE")
    assert (message.call_id, message.from_tag, message.to_tag) == ("abc@example.com", "f1", "")
    assert (message.branch, message.user_agent) == ("z9hG4bK1", "Phone\xfc 1")
    assert message.raw[slice(*message.request_uri)] == b"sip:bob@example.net"
    assert message.raw[slice(*message.body)] == b"body"


def test_a_response_has_its_method_from_cseq() -> None:
    """A response says which request it answers in CSeq only."""
    raw = options(b"Server: S/1").replace(b"OPTIONS sip:x SIP/2.0", b"SIP/2.0 183 Sch\xc3\xb6n", 1)
    message = message_from_bytes(raw)
    assert (message.is_request, message.method, message.status) == (False, "OPTIONS", 183)
    assert (message.reason, message.request_uri, message.user_agent) == ("Sch\xc3\xb6n", (0, 0), "S/1")


@pytest.mark.parametrize("entry", HEADERS)
def test_every_listed_header_is_found(entry: str) -> None:
    """Each name of the table, its compact form, and each in another case."""
    canonical = entry.split()[0].lower()
    for name in entry.split():
        for spelling in (name, name.upper(), name.lower(), name.swapcase(), f"{name} \t"):
            if canonical in MANDATORY:
                raw = options().replace(MANDATORY[canonical], spelling.encode())
            else:
                raw = options(spelling.encode() + b": 0")
            assert message_from_bytes(raw).first(canonical), spelling


MANDATORY = {"via": b"Via", "call-id": b"Call-ID", "cseq": b"CSeq"}     # those that options() has already


@pytest.mark.parametrize("line", [
    b"Contacts: <sip:a@b>", b"X-Contact: <sip:a@b>", b"m", b"Contact", b": Contact", b"Contact <sip:a@b>",
    b"Con tact: <sip:a@b>", b"Subject: x\r\n Contact: <sip:a@b>", b"Subject: Contact: <sip:a@b>",
    b"mm: x", b"", b"Cont\xc3\xa4ct: x",
])
def test_what_only_looks_like_a_header(line: bytes) -> None:
    """No part of another header, of a continuation line or of a broken line is taken for a header."""
    assert message_from_bytes(options(line, b"Expires: 1") if line else options()).first("contact") is None


@pytest.mark.parametrize(("raw", "expected"), [
    (b"Contact:", b""),
    (b"Contact: \t ", b""),
    (b"Contact:<sip:a@b>", b"<sip:a@b>"),
    (b"Contact:\r\n\t<sip:a@b>\r\n ;q=1\r\n  ", b"<sip:a@b>\r\n ;q=1"),
    (b"Contact: a:b", b"a:b"),
])
def test_value_spans(raw: bytes, expected: bytes) -> None:
    """A span holds the value with its continuation lines, without white space around it."""
    message = message_from_bytes(options(raw, b"Expires: 1"))
    assert value(message, "contact") == expected
    assert value(message, "expires") == b"1"


def test_lines_may_end_in_lf_only() -> None:
    """A message with bare line feeds throughout is read like one with CRLF."""
    message = message_from_bytes(INVITE.replace(b"\r\n", b"\n"))
    assert (message.call_id, message.from_tag, message.cseq) == ("abc@example.com", "f1", 7)
    assert message.raw[slice(*message.body)] == b"body"
    assert_is_sound(message)


def test_empty_lines_before_the_start_line_are_skipped() -> None:
    """RFC 3261, section 7.5: offsets are those of the payload all the same."""
    message = message_from_bytes(b"\r\n\r\n" + INVITE)
    assert message.raw[slice(*message.request_uri)] == b"sip:bob@example.net"
    assert message.raw[slice(*message.body)] == b"body"


@pytest.mark.parametrize(("lines", "body", "expected"), [
    ((), b"abc\r\n\r\n", b"abc\r\n\r\n"),
    ((b"Content-Length: 3",), b"abcdef", b"abc"),
    ((b"Content-Length: 0",), b"abcdef", b""),
    ((b"Content-Length: 3", b"l:3"), b"abc", b"abc"),
    ((b"Content-Length: 0003 ",), b"abc", b"abc"),
    ((b"Content-Length:\r\n 3",), b"abc", b"abc"),
])
def test_the_body_ends_where_content_length_says(lines: tuple[bytes], body: bytes, expected: bytes) -> None:
    """Bytes after it are no body (RFC 3261, section 18.3); without it the datagram's end is the body's."""
    message = message_from_bytes(options(*lines, body=body))
    assert message.raw[slice(*message.body)] == expected


def test_the_datagram_may_end_with_the_headers() -> None:
    """A missing empty line leaves no doubt: there is no body."""
    message = message_from_bytes(options().removesuffix(b"\r\n"))
    assert message.body == (len(message.raw), len(message.raw))
    assert message.call_id == "c"


@pytest.mark.parametrize(("header", "tag"), [
    (b"<sip:a@b>;tag=1", "1"),
    (b"<sip:a@b> ; x=y ; TAG =\r\n 1;z", "1"),
    (b"sip:a@b;tag=1", "1"),
    (b"Alice <sip:a@b;tag=2>;tag=1", "1"),
    (b'"\\";tag=2" <sip:a@b>;x=";tag=2;";tag=1', "1"),
    (b"<sip:a@b>;nottag=2;tag=1", "1"),
    (b"<sip:a@b>;tag=1;tag=2", "1"),
    (b"<sip:a@b>;tag=a~b'c`d%20", "a~b'c`d%20"),
    (b"<sip:a@b>;;;tag=1", "1"),
    (b"<sip:a@b;tag=2>", ""),
    (b"<sip:a@b>", ""),
    (b"<sip:a@b>;tag", ""),
    (b"<sip:a@b>;tag=", ""),
    (b'"open <sip:a@b>;tag=1', ""),
    (b"", ""),
])
def test_tags(header: bytes, tag: str) -> None:
    """The tag is the header's parameter: not the URI's, not in a name, not in quotes."""
    message = message_from_bytes(options(b"From: " + header, b"t:" + header))
    assert (message.from_tag, message.to_tag) == (tag, tag)


# What is refused


@pytest.mark.parametrize(("raw", "reason"), [
    (b"", "start line"),
    (b"\r\n\r\n", "start line"),
    (b"HTTP/1.1 200 OK\r\n\r\n", "start line"),
    (INVITE.replace(b"SIP/2.0\r", b"SIP/3.0\r", 1), "start line"),
    (INVITE.replace(b"sip:bob@example.net", b"sip:bob@example.net; lr"), "start line"),
    (INVITE.replace(b"sip:bob@example.net ", b""), "start line"),
    (b"SIP/2.0 2000 OK\r\nCSeq: 1 INVITE\r\n\r\n", "start line"),
    (b"SIP/2.0 099 OK\r\nCSeq: 1 INVITE\r\n\r\n", "start line"),
    (b"SIP/2.0 700 OK\r\nCSeq: 1 INVITE\r\n\r\n", "start line"),
    (b"SIP/2.0 200 OK", "start line"),
    (options().replace(b"SIP/2.0\r\n", b"SIP/2.0\r\n ", 1), "folded"),
    (options().replace(b"Via", b"Vie"), "no via"),
    (options().replace(b"Call-ID", b"Call-Id-"), "no call-id"),
    (options().replace(b"CSeq", b"CSeqs"), "no cseq"),
    (options().replace(b"1 OPTIONS", b"99999999999999999999 OPTIONS"), "CSeq"),
    (options().replace(b"1 OPTIONS", b"4294967296 OPTIONS"), "CSeq"),
    (options().replace(b"1 OPTIONS", b"-1 OPTIONS"), "CSeq"),
    (options().replace(b"1 OPTIONS", b"1"), "CSeq"),
    (options().replace(b"1 OPTIONS", b"1 OPTIONS x"), "CSeq"),
    (options().replace(b"1 OPTIONS", b"1 INVITE"), "another method"),
    (options(b"Content-Length: 5", body=b"abcd"), "longer"),
    (options(b"Content-Length: -1", body=b"abcd"), "no number"),
    (options(b"Content-Length: 1 2", body=b"abcd"), "no number"),
    (options(b"Content-Length:", body=b"abcd"), "no number"),
    (options(b"Content-Length: " + b"9" * 5000, body=b"abcd"), "no number"),
    (options("Content-Length: \u0661".encode(), body=b"abcd"), "no number"),
    (options(b"Content-Length: 1", b"l: 2", body=b"abcd"), "contradict"),
    (options(b"Content-Length: 2", b"l: 02", body=b"abcd"), "contradict"),
    (options(b"From: a", b"From: b"), "contradict"),
    (options(b"i: d"), "contradict"),
    (options(b"X: 1\nContact: <sip:a@b>"), "more than one way"),
    (options(b"X: 1\rContact: <sip:a@b>"), "more than one way"),
    (options(b"X: 1\r"), "more than one way"),
    (options(b"X: 1\r", end=b"\n"), "more than one way"),
    (options(b"X: 1", b"X: 2\n\rX: 3"), "more than one way"),
    (options(*[b"Route: <sip:a>"] * MAX_HEADERS), "more than 512"),
])
def test_what_cannot_be_trusted_is_refused(raw: bytes, reason: str) -> None:
    """A message that could be read in two ways passes untouched, instead of being cut in the wrong place."""
    with pytest.raises(MalformedMessage, match=reason):
        message_from_bytes(raw)


def test_headers_that_natfix_does_not_read_are_not_counted() -> None:
    """The bound is for the memory that a message takes."""
    assert len(message_from_bytes(options(*[b"X-Odd: 1"] * 5000)).headers) == 3


@pytest.mark.parametrize(("payload", "expected"), [
    (INVITE, True),
    (b"\r\n\r\nSIP/2.0 200 OK\r\n\r\n", True),
    (b"sip/2.0 200 OK\r\n\r\n", True),
    (b"X * SIP/2.0\n", True),
    (b"", False),
    (b"\r\n\r\n", False),
    (b"\0\0\0\0", False),
    (b"jaK", False),
    (b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), False),
    (b"GET / HTTP/1.1\r\nX: SIP/2.0\r\n\r\n", False),
    (b"NOTIFY * HTTP/1.1\r\n\r\n", False),
    (b"RTSP/1.0 200 OK\r\n\r\n", False),
])
def test_sip_is_told_by_its_first_line(payload: bytes, expected: bool) -> None:
    """Keep-alives (CRLF, zeros, STUN), HTTP and SSDP on the SIP port are not SIP."""
    assert is_sip(payload) is expected


# Any bytes


@given(conversations())
def test_generated_requests_are_read(conversation: tuple[object, object]) -> None:
    """Odd but legal messages are understood, and all spans are sound."""
    _, spoken = conversation
    message = message_from_bytes(spoken.payload)        # type: ignore[attr-defined]
    assert message.method == spoken.method              # type: ignore[attr-defined]
    assert message.from_tag
    assert message.branch
    assert_is_sound(message)


@given(mutated(conversations().map(lambda conversation: conversation[1].payload)))
def test_mutated_messages_are_read_or_malformed(raw: bytes) -> None:
    """Nothing but MalformedMessage is raised, and what is read is sound."""
    assert_read_or_malformed(raw)


@given(st.one_of(
    st.binary(max_size=200),
    st.tuples(st.binary(max_size=40), st.integers(0, len(INVITE)), st.integers(0, len(INVITE))).map(
        lambda cut: INVITE[:cut[1]] + cut[0] + INVITE[cut[2]:]),
    st.lists(st.sampled_from([
        b"v", b"l", b":", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b";tag=", b'"', b"<", b">", b",",
        b"1",
    ]), max_size=40).map(lambda parts: options(b"".join(parts))),
))
def test_any_bytes_are_read_or_malformed(raw: bytes) -> None:
    """Noise alone, noise in a message, and the separators in every order."""
    assert_read_or_malformed(raw)


def assert_read_or_malformed(raw: bytes) -> None:
    """The message is read and sound, or MalformedMessage; reading its lazy parts raises nothing at all."""
    try:
        message = message_from_bytes(raw)
    except MalformedMessage:
        return
    assert is_sip(raw)
    assert isinstance(message.branch + message.user_agent, str)
    assert_is_sound(message)


@pytest.mark.parametrize("name", [b"Via", b"From", b"CSeq", b"Content-Length", b"X-Other", b""])
@pytest.mark.parametrize("filler", [
    b" ", b"\t", b"\r\n ", b"\n ", b"a", b":", b";", b"; ", b";tag", b";tag=", b"; a", b'"', b'\\"', b"<",
    b">", b"<>", b"v:", b"v:\r\n", b"\r", b"\n", b"\r\n", b"1", b",", b";a=\"", b"; \"\"",
])
def test_no_bytes_take_more_than_linear_time(name: bytes, filler: bytes) -> None:
    """The largest datagram of the worst bytes is read, or refused, in some milliseconds."""
    filled = filler * (60000 // len(filler))
    begun = time.process_time()
    for raw in (options(name + b": " + filled), filled + INVITE, INVITE[:20] + filled):
        assert_quickly_read(raw)
    assert time.process_time() - begun < TOO_LONG


def assert_quickly_read(raw: bytes) -> None:
    """Read a message with all of its lazy parts."""
    is_sip(raw)
    with contextlib.suppress(MalformedMessage):
        assert message_from_bytes(raw).branch is not None


# Messages by others


# RFC 4475, section 3.1.1: valid messages. What must be found in them:
# method, branch, From tag, To tag, number of Contacts.
VALID = {
    "wsinv": ("INVITE", "390skdjuw", "98asjd8", "1918181833n", 1),
    "intmeth": (
        "!interesting-Method0123456789_*+`.%indeed'~", "z9hG4bK-.!%66*_+`'~", "_token~1'+`*%!-.", "", 0),
    "esc01": ("INVITE", "z9hG4bKkdjuw", "938", "", 1),
    "escnull": ("REGISTER", "z9hG4bKkdjuw", "839923423", "", 2),
    "esc02": ("RE%47IST%45R", "z9hG4bK209%fzsnel234", "f232jadfj23", "", 2),
    "lwsdisp": ("OPTIONS", "z9hG4bKkdjuw", "323", "", 0),
    "longreq": ("INVITE", "", "1" + "298" * 50 + "2424", "", 1),
    "dblreq": ("REGISTER", "z9hG4bKkdjuw23492", "43251j3j324", "", 1),
    "semiuri": ("OPTIONS", "z9hG4bKkdjuw", "33242", "", 0),
    "transports": ("OPTIONS", "z9hG4bKkdjuw", "323", "", 0),
    "mpart01": ("MESSAGE", "z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543-", "2fb0dcc9", "", 1),
    "unreason": ("INVITE", "z9hG4bK1324923", "11141343", "2229", 1),
    "noreason": ("INVITE", "z9hG4bK2398ndaoe", "39ansfi3", "902jndnke3", 1),
}
# Section 3.1.2: invalid ones that could be taken apart in two ways, or whose frame is wrong.
REFUSED = {
    "badvers", "bigcode", "clerr", "insuf", "lwsruri", "mcl01", "mismatch01", "mismatch02", "multi01", "ncl",
    "scalar02", "scalarlg",
}


@NEEDS_DATA
@pytest.mark.parametrize("name", sorted(VALID))
def test_valid_torture_messages_are_read(name: str) -> None:
    """RFC 4475, section 3.1.1: method, branch, tags and Contacts are found in each valid message."""
    (raw,) = (item.raw for item in corpus.torture(4475) if item.where == f"{name}.dat")
    message = message_from_bytes(raw)
    found = (message.method, message.branch, message.from_tag, message.to_tag, len(message.all("contact")))
    assert found == VALID[name]
    assert_is_sound(message)


@NEEDS_DATA
def test_dangerous_torture_messages_are_refused() -> None:
    """RFC 4475: all others are read; a proxy's or registrar's reasons to reject them are none of natfix's."""
    refused = set()
    for item in corpus.torture(4475):
        try:
            assert_is_sound(message_from_bytes(item.raw))
        except MalformedMessage:
            refused.add(item.where.removesuffix(".dat"))
    assert refused == REFUSED


@NEEDS_DATA
def test_ipv6_torture_messages_are_read() -> None:
    """RFC 5118: all but the copy whose Content-Length is wrong; natfix will leave their addresses alone."""
    refused = []
    for item in corpus.torture(5118):
        try:
            assert_is_sound(message_from_bytes(item.raw))
        except MalformedMessage as problem:
            refused.append((item.where, str(problem)))
    assert refused == [("RFC5118_4_6.sip", "Content-Length is longer than the datagram")]


@NEEDS_DATA
def test_messages_by_others_are_sound() -> None:
    """Every message of the data folder is read and sound, or malformed; nearly all captured ones are read."""
    for item in corpus.messages():
        assert_read_or_malformed(item.raw)
    malformed = []
    for item in corpus.captured():
        try:
            assert_is_sound(message_from_bytes(item.raw))
        except MalformedMessage:
            malformed.append(item.where)
    assert len(malformed) <= 3
    assert len(corpus.captured()) > 5000


@NEEDS_DATA
def test_another_parser_reads_the_same() -> None:
    """Wherever the package sipmessage accepts a message as well, both agree on what it is."""
    compared = 0
    for item in [*corpus.messages(), *corpus.captured()[::10]]:
        try:
            message, other = message_from_bytes(item.raw), sipmessage.Message.parse(item.raw)
            expected = identity_by_other(other)
        except (ValueError, KeyError, AttributeError):
            continue            # one of them refuses it
        assert identity(message) == expected, item.where
        compared += 1
    assert compared > 500


def identity(message: Message) -> list[object]:
    """Return what natfix finds of a message's identity."""
    counts = [len(message.all(name)) for name in ("record-route", "content-type", "user-agent")]
    return [message.call_id, message.cseq, message.cseq_method, message.from_tag, message.to_tag, *counts]


def identity_by_other(other: sipmessage.Message) -> list[object]:
    """Return what the package sipmessage finds; raises where it finds something invalid."""
    names = ("Record-Route", "Content-Type", "User-Agent")
    tags = [address.parameters.get("tag") or "" for address in (other.from_address, other.to_address)]
    counts = [len(other.headers.getlist(name)) for name in names]
    return [other.call_id, other.cseq.sequence, other.cseq.method, *tags, *counts]
