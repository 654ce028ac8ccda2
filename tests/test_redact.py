"""natfix.redact: nobody is named any more, and everything else is as it was."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.redact import Redactor
from natfix.replay.network import is_private, is_public
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


@pytest.mark.parametrize("line", [
    'Warning: 399 pbx.secret.example "call of Secret at secret.example"',
    'Event: presence;id=secret', 'Reason: Q.850;text="Secret hung up"',
    "User-Agent: Acme T4 5ec2e7abcdef", "Server: Acme on pbx.secret.example",
    "Authorization: Bearer secret.se",
    "Refer-To: <sip:x@y.example?Replaces=secret%40secret.example%3Bto-tag%3Dsecret>",
    "Contact: <sip:x@y.example;line=secret>", "Alert-Info: <http://secret.example/secret.wav>",
    "Via: SIP/2.0/UDP y.example;branch=z9hG4bK2;received=2001:db8:5ec2:e7::1",
    "Geolocation: <cid:secret@y.example>", "Via: SIP/2.0/UDP y.example;x=secret;branch=z9hG4bK2"])
def test_no_corner_is_forgotten(line: str) -> None:
    """Free text, hardware addresses, other credentials, and what URIs carry along are replaced, too."""
    message = request(headers=(line,))
    shown = Redactor(b"1").payload(message)
    assert len(shown) == len(message)
    assert re.search(rb"(?i)secret|5ec2:?e7", shown) is None


def test_answers_and_attributes() -> None:
    """A reason phrase of somebody's own, tel: parameters and unknown SDP attributes are replaced."""
    redactor = Redactor(b"1")
    assert re.fullmatch(rb"SIP/2.0 404 User (?!secret)[a-z]{6} not found\r\n\r\n",
                        redactor.payload(b"SIP/2.0 404 User secret not found\r\n\r\n"))
    start = redactor.payload(b"MESSAGE tel:+4930;phone-context=secret.example SIP/2.0\r\n\r\n")
    assert b"secret" not in start
    assert start.endswith(b" SIP/2.0\r\n\r\n")
    body = audio(Endpoint("192.168.1.10", 12000)) + "a=path:msrp://secret.example:9/secret;tcp\r\n"
    assert b"secret" not in redactor.payload(request(sdp=body))


def test_candidates() -> None:
    """A candidate stays one: only its addresses and names are others, those of mDNS included."""
    lines = ("a=candidate:1 1 UDP 2130706431 192.168.1.10 10000 typ host\r\n"
             "a=candidate:2 1 UDP 2130706430 0b1f-secret.local 10002 typ host\r\n"
             "a=candidate:3 1 UDP 1694498815 2001:db8::5ec2:e7 10004 typ srflx raddr 0.0.0.0 rport 9\r\n")
    shown = Redactor(b"1").payload(request(sdp=audio(Endpoint("192.168.1.10", 12000)) + lines)).decode()
    assert re.search(r"a=candidate:1 1 UDP 2130706431 192\.168\.\d\.\d\d 10000 typ host\r\n", shown)
    assert re.search(r"a=candidate:2 1 UDP 2130706430 \d[a-z]\d[a-z]-[a-z]{6}\.\w{5} 10002 typ host", shown)
    assert re.search(r"a=candidate:3 1 UDP 1694498815 2001:\S{12} 10004 typ srflx raddr 0\.0\.0\.0", shown)
    assert "secret" not in shown
    assert "5ec2" not in shown


def test_a_call_id_has_one_token() -> None:
    """However it is written, and where another header cites it: so --call finds the call."""
    redactor = Redactor(b"1")
    token = redactor.call_id("ab12@pbx").encode()
    shown = redactor.payload(b"OPTIONS sip:x SIP/2.0\r\nCall-ID:ab12@pbx\r\ni:  ab12@pbx\r\n"
                             b"Replaces: ab12@pbx;to-tag=1;from-tag=2\r\n\r\n")
    assert token != b"ab12@pbx"
    assert shown.count(token) == 3
    assert b";to-tag=1;from-tag=2" in shown


@pytest.mark.parametrize(("network", "host"), [
    ("192.168.1.0/24", "192.168.1.77"), ("172.16.0.0/12", "172.23.4.5"), ("10.1.32.0/20", "10.1.40.9"),
    ("2001:db8:1::/48", "2001:db8:1::7"), ("0.0.0.0/0", "8.8.8.8")])
def test_networks_hold_their_hosts(network: str, host: str) -> None:
    """What the operator says is inside is inside in the redacted capture."""
    redactor = Redactor(b"1")
    found = [ip_network(part) for part in redactor.networks(network)]
    assert any(ip_address(redactor.host(host)) in part for part in found)


def test_no_address_stays() -> None:
    """No octet that is replaced stays by chance what it is."""
    for key in range(20):
        redactor = Redactor(bytes([key]))
        assert all(redactor.host(address) != address for address in ("203.0.113.1", "192.168.7.9"))


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
