"""Which headers name addresses, and where."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.headers import (
    ADDRESS_RULES,
    CONTACT,
    ECHOED_ONLY,
    TEXT_RULES,
    address_or_none,
    hostports_in_text,
    is_signed,
    top_via,
    uri_or_none,
)
from natfix.sip.message import Message, message_from_bytes

ENDPOINT = Endpoint("192.168.1.10", 5060)
LINES = ("INVITE sip:alice@192.168.1.10 SIP/2.0", "Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1",
         "From: <sip:a@b>;tag=1", "To: <sip:c@d>", "Call-ID: c1", "CSeq: 1 INVITE")


def message(*lines: str) -> Message:
    return message_from_bytes("\r\n".join((*LINES, *lines, "", "")).encode())


def test_tables_are_by_the_parsers_names() -> None:
    """Every rule is found under the name that a parsed header has, and no header has two."""
    assert all(name == rule.header.lower() for name, rule in (ADDRESS_RULES | TEXT_RULES).items())
    assert ADDRESS_RULES.keys() >= ECHOED_ONLY
    assert not ADDRESS_RULES.keys() & TEXT_RULES.keys()
    assert ADDRESS_RULES["contact"].kind == ADDRESS_RULES["refer-to"].kind == CONTACT


@pytest.mark.parametrize(("text", "found"), [
    ("399 192.168.1.10:5060 \"x\"", 1), ("399 192.168.1.10:50601 \"x\"", 0),
    ("399 1192.168.1.10:5060 \"x\"", 0),
    ("399 x.192.168.1.10:5060 \"x\"", 0), ("399 192.168.1.10 \"x\"", 0),
    ("399 a \"192.168.1.10:5060, 192.168.1.10:5060\"", 2),
])
def test_an_endpoint_in_free_text(text: str, found: int) -> None:
    """Only the whole endpoint: not one that it is the beginning or end of."""
    parsed = message("Warning: " + text)
    header = parsed.first("warning")
    assert header is not None
    spans = hostports_in_text(parsed.raw, header, ENDPOINT)
    assert [parsed.raw[span.start:span.end] for span in spans] == [b"192.168.1.10:5060"] * found


def test_what_cannot_be_read_is_none() -> None:
    """Nonsense in one place is no reason to leave the whole message alone."""
    raw = b"<sip:x@[>  ::  sip:y@192.168.1.10"
    assert uri_or_none(raw, 0, 8) is None
    assert address_or_none(raw, 0, 8) is None
    assert uri_or_none(raw, 15, len(raw)) is not None


def test_the_topmost_via() -> None:
    """The first entry of the first Via, or none."""
    via = top_via(message("Via: SIP/2.0/UDP 198.51.100.7"))
    assert via is not None
    assert via.sent_by.host == ENDPOINT.host
    assert top_via(message_from_bytes(b"\r\n".join(line.encode() for line in (
        *LINES[:1], "Via: nonsense", *LINES[2:], "", "")))) is None


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization"])
def test_credentials_quote_the_request_uri(name: str) -> None:
    """What uri= equals must reach the UA as it is; another uri= does not matter."""
    for uri, signed in (("sip:alice@192.168.1.10", True), ("sip:bob@192.168.1.10", False)):
        parsed = message(f'{name}: Digest username="a", uri="{uri}", response="x"')
        assert is_signed(parsed, *parsed.request_uri) is signed
