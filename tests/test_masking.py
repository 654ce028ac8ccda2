"""Secrets are made unreadable, everything else stays."""

from __future__ import annotations

import re

import pytest

from natfix.masking import masked
from tests import corpus

LINES = {
    'Authorization: Digest username="alice", realm="x", nonce="SECRET", uri="sip:x", response="SECRET"':
        ("SECRET", 'username="alice", realm="x"'),
    'proxy-authorization : Digest username="a",\r\n response=SECRET, algorithm=MD5':
        ("SECRET", "algorithm=MD5"),
    'WWW-Authenticate: Digest realm="x", nonce="SECRET", opaque="SECRET"': ("SECRET", 'realm="x"'),
    "Authorization: Basic SECRET": ("SECRET", "Authorization:"),
    "Authorization: Bearer SECRET.SECRET": ("SECRET", "Authorization:"),
    'Authentication-Info: nextnonce="SECRET", rspauth="SECRET"': ("SECRET", "Authentication-Info:"),
    'Authorization: Digest response="SECRET': ("SECRET", "Digest"),
    "Identity: SECRET;info=<https://x>": ("SECRET", "Identity:"),
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET|2^20": ("SECRET", "AES_CM_128_HMAC_SHA1_80"),
    "a=ice-pwd:SECRET": ("SECRET", "a=ice-pwd:"),
    "a=key-mgmt:mikey SECRET": ("SECRET", "a=key-mgmt:"),
    "k=clear:SECRET": ("SECRET", "k="),
    "Contact: <sip:alice:SECRET@10.0.0.1:5060>": ("SECRET", "@10.0.0.1:5060>"),
}


@pytest.mark.parametrize("line", LINES)
def test_a_secret_is_crossed_out(line: str) -> None:
    """Of a secret nothing is left but its length; who it belongs to stays readable."""
    secret, kept = LINES[line]
    message = f"OPTIONS sip:a@b SIP/2.0\r\n{line}\r\nCSeq: 1 OPTIONS\r\n\r\n".encode()
    shown = masked(message)
    assert len(shown) == len(message)
    assert secret.encode() not in shown
    assert kept.encode() in shown
    assert b"CSeq: 1 OPTIONS" in shown


def test_a_message_without_secrets_stays_as_it_is() -> None:
    """Nothing is touched that is none: a port is no password, a session has no keys."""
    message = (b"INVITE sip:bob@10.0.0.1:5060 SIP/2.0\r\nFrom: <sip:a@b:5060>;tag=1\r\n\r\n"
               b"v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n")
    assert masked(message) == message


@pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)
def test_nothing_of_the_data_folder_gets_out() -> None:
    """In all that others have captured, no response, nonce or key is left after masking."""
    secret = re.compile(
        rb"(?:response|nonce|cnonce|rspauth|opaque)[ \t]*=[ \t]*\"([0-9A-Za-z+/=]{6,})\""
        rb"|inline:([0-9A-Za-z+/=]{16,})|a=ice-pwd:([0-9A-Za-z+/]{16,})")
    seen = 0
    for _, message in (*corpus.messages(), *corpus.captured()):
        shown = masked(message)
        assert len(shown) == len(message)
        for found in secret.finditer(message):
            start, end = found.span(found.lastindex or 0)
            seen += 1
            assert set(shown[start:end]) <= {ord("x")}, found[0]
    assert seen > 400
