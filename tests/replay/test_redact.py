"""natfix.replay.redact: nobody is named any more, and everything else is as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay.model import Side
from natfix.replay.network import is_private, is_public
from natfix.replay.reading import Input
from natfix.replay.redact import Redactor
from natfix.replay.replay import Options, run
from natfix.replay.sightings import Reader
from natfix.sip.message import message_from_bytes
from tests.replay.sip import audio, request

INVITE = request(
    call_id="4711@pbx.acme.example", sdp=audio(Endpoint("192.168.1.10", 12000)) + "a=ice-pwd:s3cretpwd\r\n",
    headers=(
        'P-Asserted-Identity: "Alice Example" <sip:+4930123456@acme.example>, <tel:+4930123456>',
        'Proxy-Authorization: Digest username="alice", realm="acme.example", nonce="n0nce", qop=auth, '
        'nc=00000001, '
        'uri="sip:bob@example.com", response="0123456789abcdef0123456789abcdef"',
        "User-Agent: Acme/1.2", "X-Customer: Alice Example, 12345", "Allow: INVITE, ACK"))
SECRETS = (b"alice", b"Alice", b"Example", b"+4930123456", b"acme", b"n0nce", b"0123456789abcdef",
           b"s3cretpwd", b"192.168.1.10", b"12345", b"4711@")


def test_nobody_is_named() -> None:
    """Users, names, numbers, hosts, addresses, credentials, keys, and what unknown headers say are gone."""
    shown = Redactor().payload(INVITE)
    assert [secret for secret in SECRETS if secret in shown] == []
    assert len(shown) == len(INVITE)


def test_the_rest_stays() -> None:
    """What the message does, and who made the program, stays readable; quoted uri= fits the Request-URI."""
    redactor = Redactor()
    shown = redactor.payload(INVITE)
    message = message_from_bytes(shown)
    assert (message.method, message.cseq, message.branch) == ("INVITE", 1, "z9hG4bK1")
    for kept in (b"User-Agent: Acme/1.2", b"Allow: INVITE, ACK", b"qop=auth, nc=00000001", b"m=audio 12000 "
                                                                                           b"RTP"):
        assert kept in shown
    start, end = message.request_uri
    assert b'uri="' + shown[start:end] + b'"' in shown


def test_the_same_is_the_same() -> None:
    """One text has one token in a run, in headers, SDP and IP addresses alike; another run has others."""
    one, other = Redactor(b"1"), Redactor(b"2")
    assert one.payload(INVITE) == one.payload(INVITE) != other.payload(INVITE)
    address = one.host("192.168.1.10").encode()
    assert one.payload(INVITE).count(address) == INVITE.count(b"192.168.1.10")


octets = st.integers(0, 255)


@given(st.tuples(octets, octets, octets, octets), st.tuples(octets, octets))
@settings(max_examples=300, deadline=None)
def test_addresses_keep_their_kind(octets: tuple[int, int, int, int], other: tuple[int, int]) -> None:
    """As long, private or public as before, neighbours in the same network, and no two become one."""
    redactor = Redactor(b"key")
    host = ".".join(map(str, octets))
    neighbour = ".".join(map(str, (*octets[:2], *other)))
    shown, shown_neighbour = redactor.host(host), redactor.host(neighbour)
    assert len(shown) == len(host)
    assert (is_private(shown), is_public(shown)) == (is_private(host), is_public(host))
    assert shown.split(".")[:2] == shown_neighbour.split(".")[:2]
    assert (shown == shown_neighbour) is (host == neighbour)


@pytest.mark.parametrize("text", [
    "10.0.0.1", "172.16.5.4", "172.31.255.255", "192.168.0.1", "100.64.0.1", "8.8.8.8", "0.0.0.0",
    "127.0.0.1", "224.0.1.75", "255.255.255.255"])
def test_special_addresses(text: str) -> None:
    """Hold, loopback, multicast and broadcast mean something, and stay."""
    shown = Redactor().host(text)
    if text.split(".")[0] in ("0", "127", "224", "255"):
        assert shown == text
    assert is_private(shown) == is_private(text)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_whatever_comes(junk: bytes) -> None:
    """Any octets are redacted without an exception, and stay as many."""
    for raw in (junk, INVITE[:60] + junk + INVITE[60:]):
        assert len(Redactor(b"k").payload(raw)) == len(raw)


def test_real_captures_name_nobody(data_folder: Path) -> None:
    """No user, display name, address or credential of a real capture is left, and it still parses."""
    path = data_folder / "eim-lab-maryls" / "sip.pcap"
    redactor = Redactor()
    for item in Reader(str(path)):
        before, after = item.payload, redactor.item(item).payload       # type: ignore[union-attr]
        found = set(re.findall(rb"sips?:([^@>;\s\"]{3,})@", before))
        found |= set(re.findall(rb"\d+(?:\.\d+){3}", before))
        found |= set(re.findall(rb'(?:username|nonce|response)="([^"]{4,})"', before))
        assert found
        assert [each for each in found if each in after] == []
        message_from_bytes(after)


@pytest.mark.parametrize(
    "name", ["eim-lab-maryls/sip.pcap", "goffinet-sip-captures/Forensic_challenge_4.pcap"])
def test_the_diagnosis_is_the_same(data_folder: Path, name: str) -> None:
    """Redacted or not, the same is found wrong, by the same packets, on the same sides."""
    results = [run(Options((Input(str(data_folder / name)),), redact=redact)) for redact in (False, True)]
    plain, redacted = ([(f.code, f.packets) for f in result.findings] for result in results)
    assert plain == redacted
    views = [result.network for result in results]
    assert views[0].vantage is views[1].vantage
    assert [view.side_of(view.outside) for view in views] == [Side.OUTSIDE] * 2 or not views[0].outside
