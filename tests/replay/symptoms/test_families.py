"""D22 and D33: addresses that contradict each other, or that the peer cannot use."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Severity, Vantage
from natfix.replay.symptoms import families
from tests.replay.sip import PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture

MEDIA = Endpoint(PHONE.host, 4000)
HOST = f"a=candidate:1 1 UDP 2130706431 {MEDIA.host} {MEDIA.port} typ host\r\n"
REFLEXIVE = f"a=candidate:2 1 UDP 1694498815 {GATEWAY} 4000 typ srflx raddr {MEDIA.host} rport 4000\r\n"


def test_the_default_is_no_candidate() -> None:
    """c= and m= name what no candidate names: a fixer changed them alone."""
    capture = Capture()
    capture.sip(request(contact=EXT, sdp=audio(Endpoint(GATEWAY, 40000)) + HOST))
    finding = capture.only("D22")
    assert finding.severity is Severity.WARNS
    assert finding.evidence == \
        "Packet 1 has 203.0.113.1:40000 in c= and m=, its candidates are 192.168.1.10:4000."


def test_the_gateway_made_it_so() -> None:
    """Inside they agreed, outside they do not: it was the gateway, and the answer says ice-mismatch."""
    capture = Capture(Vantage.BOTH)
    capture.out(request(sdp=audio(MEDIA) + HOST),
                request(contact=EXT, via=EXT, sdp=audio(Endpoint(GATEWAY, 40000)) + HOST))
    capture.back(response(200, via=EXT, sdp=audio(PROVIDER) + "a=ice-mismatch\r\n"),
                 response(200, sdp=audio(PROVIDER) + "a=ice-mismatch\r\n"))
    finding = capture.only("D22")
    assert finding.severity is Severity.HURTS
    assert finding.where == "the gateway"
    assert "In packet inside:1, before the gateway, they agreed." in finding.evidence
    assert "The answer has a=ice-mismatch (packet outside:3)." in finding.evidence


def test_the_answer_alone() -> None:
    """What the peer got was not captured; its answer says enough."""
    capture = Capture()
    capture.sip(request(sdp=audio(MEDIA) + HOST))
    capture.sip(response(200, sdp=audio(PROVIDER) + "a=ice-mismatch\r\n", seen_as=EXT), PROVIDER, PHONE)
    assert capture.only("D22").title == "the answer says ice-mismatch"


@pytest.mark.parametrize("sdp", [
    audio(MEDIA) + HOST,
    audio(Endpoint(GATEWAY, 4000)) + HOST + REFLEXIVE,
    audio(Endpoint("0.0.0.0", 9)) + HOST,                                       # trickle ICE
    audio(MEDIA).replace("m=audio 4000", "m=audio 0") + HOST,                   # rejected
    audio(MEDIA).replace("192.168.1.10", "pbx.local") + HOST,                   # a name
    audio(MEDIA) + HOST.replace(MEDIA.host, "3e5b.local"),                      # mDNS
    audio(MEDIA),
])
def test_ice_that_is_right(sdp: str) -> None:
    """Defaults among the candidates, trickle ICE, names and rejected streams are no mismatch."""
    capture = Capture()
    capture.sip(request(contact="phone.example.com", sdp=sdp))
    assert capture.findings() == []


def test_a_cut_text_has_not_all_candidates() -> None:
    """Where a part of the message is missing, so may be the candidate."""
    capture = Capture()
    capture.sip(request(contact=EXT, sdp=audio(Endpoint(GATEWAY, 40000)) + HOST), cut=True)
    assert capture.findings() == []


IP6 = audio(MEDIA).replace("c=IN IP4 192.168.1.10", "c=IN IP6 2001:db8::10")


def offered(sdp: str, status: int = 200, answer: str = "", source: Endpoint = PHONE) -> Capture:
    """An offer and what the peer says to it."""
    capture = Capture()
    capture.sip(request(contact="phone.example.com", sdp=sdp), source)
    capture.sip(response(status, sdp=answer, seen_as=EXT), PROVIDER, source)
    return capture


def test_ipv6_for_an_ipv4_peer() -> None:
    """Media in IPv6, answered with an IPv4 address or refused."""
    finding = offered(IP6, answer=audio(PROVIDER)).only("D33")
    assert finding.title == "media in IPv6 for a peer that answers with an IPv4 address"
    assert "c=IN IP6 2001:db8::10" in finding.evidence
    assert offered(IP6, 488).only("D33").title == "media in IPv6 for a peer that answers 488"


@pytest.mark.parametrize("capture", [
    offered(IP6, answer=audio(PROVIDER).replace("c=IN IP4 198.51.100.20", "c=IN IP6 2001:db8::20")),
    offered(IP6, 486), offered(IP6.replace("m=audio 4000", "m=audio 0"), answer=audio(PROVIDER)),
    offered(audio(MEDIA), 488),
    offered(IP6 + HOST.replace("4000 typ", "4000 typ").replace("192.168", "192.168"), answer=audio(PROVIDER)),
], ids=["both IPv6", "busy", "no media", "IPv4", "ICE has both"])
def test_families_that_fit(capture: Capture) -> None:
    """IPv6 for a peer that speaks it, other refusals, and ICE with both families are no fault of families."""
    assert "D33" not in capture.codes()


def test_a_handsets_own_address() -> None:
    """192.0.0.2 in c= is the inside of a 464XLAT handset."""
    capture = Capture(Vantage.OUTSIDE)
    capture.sip(request(contact="192.0.0.2:5060", sdp=audio(Endpoint("192.0.0.2", 4000))), EXT)
    finding = capture.only("D33")
    assert finding.evidence == "Packet 1: c= 192.0.0.2, Contact 192.0.0.2."


@pytest.mark.parametrize("host", ["192.0.0.0", "192.0.0.8", "192.0.2.1", "pbx.example.com"])
def test_addresses_that_are_no_handsets(host: str) -> None:
    """The next address behind 192.0.0.0/29, documentation addresses and names are not 464XLAT."""
    capture = Capture(Vantage.OUTSIDE)
    capture.sip(request(contact=host, sdp=audio(Endpoint(host, 4000))), EXT)
    assert capture.findings() == []


def behind(outside: str, received: str) -> Capture:
    """A gateway with this outside address, whose peer says received."""
    ext = Endpoint(outside, 5060)
    capture = Capture(Vantage.BOTH, outside)
    capture.out(request("OPTIONS"), ext=ext)
    capture.back(response(200, "OPTIONS", seen_as=Endpoint(received, 700)), ext=ext)
    return capture


@pytest.mark.parametrize(("outside", "kind"), [("100.64.3.3", "carrier NAT"), ("10.1.2.3", "a second NAT")])
def test_a_second_nat(outside: str, kind: str) -> None:
    """The gateway leaves from a private address, its peer sees a public one."""
    finding = behind(outside, "203.0.113.200").only("D33")
    assert kind in finding.title
    assert "says received=203.0.113.200" in finding.evidence


@pytest.mark.parametrize(("outside", "received"), [
    (GATEWAY, GATEWAY), ("100.64.3.3", "100.64.3.3"), ("10.1.2.3", "10.1.2.3"), (GATEWAY, "192.0.2.9"),
])
def test_one_nat(outside: str, received: str) -> None:
    """A public outside address, and private peers that see the private one, are one NAT."""
    assert behind(outside, received).findings() == []


def test_exports() -> None:
    """All rules are told of."""
    assert len(families.CONVERSATION) == 4
