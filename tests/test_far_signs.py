"""natfix.far_signs: each test by name, and who is left alone."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import LIKELY_SIGNS, SURE_SIGNS
from natfix.far_signs import SDP_PRIVATE, SIGNS, is_unreachable, private_network, signs
from natfix.sip.message import message_from_bytes

SOURCE = Endpoint("198.51.100.7", 41000)


def register(via: str = "10.0.0.5:5060", contact: str = "<sip:a@10.0.0.5:5060>", more: str = "") -> bytes:
    return (f"REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1\r\n{more}"
            f"From: <sip:a@pbx.example>;tag=1\r\nTo: <sip:a@pbx.example>\r\nCall-ID: 1\r\n"
            f"CSeq: 1 REGISTER\r\nContact: {contact}\r\nContent-Length: 0\r\n\r\n").encode()


def found(raw: bytes, source: Endpoint = SOURCE) -> frozenset[str]:
    return signs(message_from_bytes(raw), source, SURE_SIGNS + LIKELY_SIGNS)


def test_a_phone_behind_a_nat_shows_all_of_them() -> None:
    """Private Via and Contact, another address and another port than the packet's source."""
    assert found(register()) == frozenset(SIGNS)


@pytest.mark.parametrize(("via", "contact", "expected"), [
    ("198.51.100.7:41000", "<sip:a@198.51.100.7:41000>", set()),
    ("198.51.100.7:5060", "<sip:a@198.51.100.7:41000>", {"source-port-differs"}),
    ("203.0.113.9:41000", "<sip:a@198.51.100.7:41000>", {"via-differs-from-source"}),
    ("198.51.100.7:41000", "<sip:a@203.0.113.9:41000>", {"contact-differs-from-source"}),
    ("198.51.100.7:41000", "<sip:a@100.100.0.1>", {"contact-private", "contact-differs-from-source"}),
    ("192.0.0.2:41000", "<sip:a@198.51.100.7:41000>", {"via-private", "via-differs-from-source"}),
    ("phone.example:41000", "*", set()),
    ("phone.example:41000", "<sip:a@phone.example>, <tel:+49>", set()),
])
def test_each_sign_by_itself(via: str, contact: str, expected: set[str]) -> None:
    """What is right raises no sign, what is wrong just its own."""
    assert found(register(via, contact)) == expected


def test_every_sign_can_be_chosen() -> None:
    """The configuration knows each test by its name, and no other."""
    assert {*SURE_SIGNS, *LIKELY_SIGNS} == {*SIGNS, SDP_PRIVATE}


def test_only_chosen_signs_count() -> None:
    """Each test can be switched off."""
    assert signs(message_from_bytes(register()), SOURCE, ["via-private"]) == {"via-private"}
    assert signs(message_from_bytes(register()), SOURCE, []) == frozenset()


@pytest.mark.parametrize("raw", [
    register(more="Via: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK0\r\n"),
    register(via="10.0.0.5;branch=z9hG4bK0, SIP/2.0/UDP 10.0.0.6"),
    register(contact='<sip:a@10.0.0.5>;reg-id=1;+sip.instance="<urn:uuid:1>"'),
    register(contact="<sip:a@10.0.0.5;ob>"),
    register().replace(b"REGISTER sip:pbx.example SIP/2.0", b"SIP/2.0 200 OK"),
])
def test_who_is_left_alone(raw: bytes) -> None:
    """What came by a proxy, a response, and a UA that has seen to its NAT by itself (RFC 5626)."""
    assert found(raw) == frozenset()


def test_one_private_network_is_no_nat() -> None:
    """A carrier's own network, or a VPN: source and Contact of one block raise no private sign."""
    seen = found(register("10.1.1.1:5060", "<sip:a@10.1.1.2>"), Endpoint("10.9.9.9", 5060))
    assert seen == {"via-differs-from-source", "contact-differs-from-source"}
    assert is_unreachable("10.1.1.1", "192.168.0.1")
    assert not is_unreachable("198.51.100.1", "192.168.0.1")


@pytest.mark.parametrize(("host", "is_private"), [
    ("10.0.0.1", True), ("172.15.255.255", False), ("172.16.0.1", True), ("172.31.255.255", True),
    ("172.32.0.1", False), ("192.168.255.1", True), ("100.63.0.1", False), ("100.64.0.1", True),
    ("100.127.255.255", True), ("100.128.0.1", False), ("192.0.0.2", True), ("192.0.0.8", False),
    ("192.0.2.1", False), ("169.254.3.4", True), ("phone.example", False), ("", False),
])
def test_private_blocks(host: str, is_private: bool) -> None:
    """RFC 1918, 6598, 7335 and 3927, to their very ends."""
    assert (private_network(host) is not None) is is_private
