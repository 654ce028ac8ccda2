"""Media policy by peer, by domain, and for all."""

from __future__ import annotations

import pytest

from natfix.config import Domain, Media, Peer, Settings
from natfix.edits import Edits
from natfix.packet import packet_from_bytes
from natfix.policies import MediaPolicies
from natfix.sip.message import message_from_bytes
from natfix.turn import Turn
from tests.datagram import Datagram, packet_bytes
from tests.replay.sip import PHONE, PROVIDER, request

DOMAINS = (
    Domain("voip.example.com", "full"), Domain("*.example.com", "never"), Domain("Example.ORG", "never"))


def policy(settings: Settings, to: str, caller: str = "sip:alice@here.test") -> str:
    """Return the policy for an INVITE from *caller* to *to*."""
    payload = request(to=f"<{to}>").replace(b"sip:alice@example.com", caller.encode())
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PROVIDER, payload)))
    turn = Turn(packet, message_from_bytes(payload), Edits(payload), 0.0, None, None)
    return MediaPolicies(settings).of(turn)


@pytest.mark.parametrize(("to", "expected"), [
    ("sip:bob@voip.example.com", "full"), ("sip:bob@VOIP.example.com:5070", "full"),
    ("sip:bob@a.b.example.com", "never"), ("sip:bob@example.com", "auto"), ("sip:bob@example.org", "never"),
    ("sip:bob@notexample.com", "auto"), ("tel:+4930123", "auto"),
])
def test_a_domain_has_its_own(to: str, expected: str) -> None:
    """The most particular name counts, in any case; "*." stands for subdomains, not for the domain itself."""
    assert policy(Settings(domains=DOMAINS), to) == expected


def test_the_callers_domain_counts_as_well() -> None:
    """Where the callee's domain has none."""
    assert policy(Settings(domains=DOMAINS), "sip:bob@there.test", "sip:alice@voip.example.com") == "full"


def test_a_peer_comes_first() -> None:
    """Then the domain, then what holds for all."""
    peers = (Peer(PROVIDER.host, "auto"),)
    assert policy(Settings(domains=DOMAINS, peers=peers), "sip:bob@voip.example.com") == "auto"
    assert policy(Settings(media=Media(policy="full")), "sip:bob@voip.example.com") == "full"
