"""Messages that were taken apart once: they come back from plain data, and move with edits."""

from __future__ import annotations

import marshal

import pytest

from natfix.edits import EditTuple, apply_edits
from natfix.errors import MalformedMessage
from natfix.replay.parsed import message_from_parts, moved, parts_of
from natfix.sip.message import Message, message_from_bytes
from tests import corpus
from tests.replay.sip import MAPPED, PHONE, PROVIDER, audio, request, response

READ = ("is_request", "method", "status", "reason", "request_uri", "headers", "body", "call_id", "from_tag",
        "to_tag", "cseq", "cseq_method", "branch", "_first")
ROUTE = ("Route: <sip:192.168.1.10;lr>, <sip:198.51.100.20;lr>", "User-Agent: x")
MESSAGES = (
    request(uri=f"sip:alice@{PHONE}", sdp=audio(PHONE), headers=ROUTE),
    response(seen_as=MAPPED, contact=f"sip:alice@{PHONE}", sdp=audio(PROVIDER)),
    response(180), b"SIP/2.0 200 OK\nv:SIP/2.0/UDP 192.168.1.10\ni:1\nCSeq: 1 BYE\nm: sip:192.168.1.10",
)


def check(found: Message, expected: Message) -> None:
    """Compare all that was read."""
    for name in READ:
        assert getattr(found, name) == getattr(expected, name), name
    assert found.raw == expected.raw


def all_edits(raw: bytes, old: bytes, new: bytes) -> EditTuple:
    """Return edits that put *new* for every *old* in front of the body."""
    places, at, end = [], raw.find(old), raw.find(b"\r\n\r\n")
    while 0 <= at < (end if end > 0 else len(raw)):
        places.append((at, at + len(old), new))
        at = raw.find(old, at + 1)
    return tuple(places)


@pytest.mark.parametrize("raw", MESSAGES)
@pytest.mark.parametrize("new", [b"203.0.113.100", b"1.1.1.1", b"192.168.1.99"])
def test_moved(raw: bytes, new: bytes) -> None:
    """After edits that grow, shrink or keep the length, every span is where a new reading finds it."""
    edits = all_edits(raw, b"192.168.1.10", new)
    edited = apply_edits(raw, edits)
    found, expected = moved(message_from_bytes(raw), edits, edited), message_from_bytes(edited)
    check(found, expected)
    assert edits
    assert found.via == expected.via


def test_parts() -> None:
    """Every message of the samples, and of the data folder where there is one, survives being plain data."""
    for raw in (*MESSAGES, *(item.raw for item in corpus.messages())):
        try:
            message = message_from_bytes(raw)
        except MalformedMessage:
            continue
        parts = marshal.loads(marshal.dumps(parts_of(message)))
        again = message_from_parts(raw, parts)
        check(again, message)
        assert (again._via is None) == (message._via is None)
        assert again._via == message._via
