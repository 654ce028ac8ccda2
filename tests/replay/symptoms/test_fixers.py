"""D11: what a second fixer leaves in Via, Contact, SDP; and what looks like one and is none."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Fixed, Severity, Vantage
from natfix.replay.symptoms import fixers
from tests.replay.sip import OUTSIDE, PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import EXT, Capture

OK_URI = f"sip:alice@{PHONE}"
PUBLIC_URI = f"sip:alice@{EXT}"


def test_via_comes_back_changed() -> None:
    """The topmost Via of a response is not what the UA wrote, with the same branch: a fixer forgot it."""
    capture = Capture()
    capture.sip(request("OPTIONS"))
    capture.sip(response(200, "OPTIONS", via=EXT, seen_as=EXT), PROVIDER, PHONE)
    finding = capture.only("D11")
    assert finding.severity is Severity.BREAKS
    assert finding.title == f"the topmost Via of 200 to OPTIONS says {EXT}, the UA wrote {PHONE}"
    assert "RFC 3261, section 18.1.2" in finding.cause
    assert "natfix explain --alg" in finding.remedy


def test_the_place_where_via_was_changed() -> None:
    """Where the request was seen behind the gateway, too, the evidence says that it was changed there."""
    capture = Capture(Vantage.BOTH)
    capture.out(request("OPTIONS"), request("OPTIONS", via=EXT))
    capture.back(response(200, "OPTIONS", via=EXT))
    assert f"The request already had Via {EXT} in packet outside:2." in capture.only("D11").evidence


@pytest.mark.parametrize("written", [
    "192.168.1.10", "192.168.1.10 : 5060", "192.168.1.10:5060",
])
def test_via_in_another_spelling(written: str) -> None:
    """5060 put in or left out, and white space, are the same place."""
    capture = Capture()
    capture.sip(request("OPTIONS", via=written))
    capture.sip(response(200, "OPTIONS", seen_as=EXT), PROVIDER, PHONE)
    assert capture.findings() == []


def test_via_of_a_proxy_in_between() -> None:
    """A proxy's own Via on top of the UA's is another transaction, and nobody's fault."""
    capture = Capture(Vantage.UNKNOWN)
    on_top = b"Via: SIP/2.0/UDP 198.51.100.20;branch=z9hG4bKp\r\nVia:"
    relayed = request("OPTIONS").replace(b"Via:", on_top, 1)
    answer = response(200, "OPTIONS").replace(b"Via:", on_top, 1)
    server = Endpoint("198.51.100.99", 5060)
    capture.sip(request("OPTIONS"))
    capture.sip(relayed, PROVIDER, server)
    capture.sip(answer, server, PROVIDER)
    capture.sip(response(200, "OPTIONS", seen_as=EXT), PROVIDER, PHONE)
    assert capture.findings() == []


def register(sent: object, listed: str, seen_as: Endpoint = EXT) -> Capture:
    """A registration from the UA's side."""
    capture = Capture()
    capture.sip(request("REGISTER", contact=sent))
    capture.sip(response(200, "REGISTER", contact=listed, seen_as=seen_as), PROVIDER, PHONE)
    return capture


def test_a_public_contact_was_changed() -> None:
    """The UA registered its public address, and the registrar lists another port: changed again."""
    finding = register(EXT, f"sip:alice@{EXT.host}:17973").only("D11")
    assert finding.title == f"the registrar lists Contact {EXT.host}:17973, the UA sent {EXT}"
    assert finding.severity is Severity.HURTS
    assert "changed it once more" in finding.cause


def test_the_registrar_fixes_what_stun_had_fixed() -> None:
    """The registrar lists where the packet came from, the UA had written something else: both fix."""
    finding = register(OUTSIDE, PUBLIC_URI).only("D11")
    assert finding.severity is Severity.WARNS
    assert "the registrar's wins" in finding.cause
    assert finding.remedy.startswith("Switch STUN")


@pytest.mark.parametrize(("sent", "listed"), [
    (PHONE, OK_URI),                                    # nobody fixes
    (PHONE, PUBLIC_URI),                                # the registrar fixes a private Contact: far-end NAT
    (EXT, PUBLIC_URI),                                  # STUN, and nobody else
    (EXT, f"{PUBLIC_URI}>, <sip:alice@{EXT.host}:999"),     # an older binding beside it
    (EXT, "sip:bob@203.0.113.77:5060"),                 # somebody else's
    (EXT, "sip:alice@203.0.113.77:5060;line=x"),        # another phone of the same user
])
def test_registrations_that_are_none(sent: object, listed: str) -> None:
    """Far-end fixes of private Contacts, old bindings and other phones are no second fixer."""
    assert register(sent, listed).findings() == []


def test_half_fixed_by_the_ua() -> None:
    """Contact names the gateway, SDP the LAN, already where the UA sent it: its own settings do it."""
    capture = Capture()
    capture.sip(request(contact=EXT, sdp=audio(PHONE)))
    finding = capture.only("D11")
    assert finding.title == "INVITE mixes public and private addresses"
    assert finding.evidence == "Packet 1: Contact names 203.0.113.1, and c= 192.168.1.10."
    assert finding.fixed_by_natfix is Fixed.YES
    assert "external_media_address" in finding.remedy


def test_half_fixed_on_the_way() -> None:
    """All private inside, Contact fixed outside and SDP not: the gateway's fixer knows headers only."""
    capture = Capture(Vantage.BOTH)
    capture.out(request(sdp=audio(PHONE)), request(contact=EXT, sdp=audio(PHONE)))
    finding = capture.only("D11")
    assert finding.fixed_by_natfix is Fixed.NO
    assert "knows one part of the message only" in finding.cause


def test_half_fixed_the_other_way_round() -> None:
    """SDP fixed and Contact not is a mixture, too; so is o= fixed and c= not."""
    capture = Capture()
    capture.sip(request(sdp=audio(Endpoint(EXT.host, 4000))))
    assert "c= names 203.0.113.1, and Contact 192.168.1.10" in capture.only("D11").evidence
    capture = Capture()
    capture.sip(request(contact="pbx.example.com", sdp=audio(PHONE).replace(
        "o=- 1 1 IN IP4 192.168.1.10", "o=- 1 1 IN IP4 203.0.113.1")))
    assert "o= names 203.0.113.1, and c= 192.168.1.10" in capture.only("D11").evidence


@pytest.mark.parametrize("sdp", [
    audio(Endpoint(EXT.host, 4000)),                                                    # all public
    audio(Endpoint(EXT.host, 4000)).replace("o=- 1 1 IN IP4 203.0.113.1", "o=- 1 1 IN IP4 192.168.1.10"),
    audio(PHONE).replace("m=audio 5060", "m=audio 0"),                                  # rejected stream
    audio(PHONE) + "a=candidate:1 1 UDP 1 192.168.1.10 5060 typ host\r\n",              # ICE decides
    "",
])
def test_no_mixture(sdp: str) -> None:
    """A private o= alone, a rejected stream, ICE: nothing is half fixed."""
    capture = Capture()
    capture.sip(request(contact=EXT, sdp=sdp))
    assert capture.findings() == []


def test_all_private_is_no_mixture() -> None:
    """A UA that knows of no NAT at all is not half fixed."""
    capture = Capture()
    capture.sip(request(sdp=audio(PHONE)))
    assert capture.findings() == []


def test_a_wrong_port_was_written() -> None:
    """The ALG wrote Contact port 5060, the packet left from 40625; a later INVITE to 5060 is lost."""
    capture = Capture(Vantage.BOTH)
    capture.out(request("REGISTER", call_id="1"), request("REGISTER", contact=OUTSIDE))
    assert capture.only("D11").severity is Severity.HURTS
    capture.sip(request("OPTIONS", branch="z9hG4bK9", cseq=9), PROVIDER, OUTSIDE, "outside")
    finding = capture.only("D11")
    assert finding.severity is Severity.BREAKS
    assert finding.title == "Contact says 203.0.113.1:5060, the packet left from port 40625"
    assert "A request to 203.0.113.1:5060 never comes inside (packet outside:3)." in finding.evidence


def test_the_right_port_was_written() -> None:
    """A near-end fix that names where the packet leaves from is right, whoever made it."""
    capture = Capture(Vantage.BOTH)
    capture.out(request("REGISTER"), request("REGISTER", contact=EXT, via=EXT))
    capture.back(response(200, "REGISTER", via=EXT, contact=PUBLIC_URI),
                 response(200, "REGISTER", contact=OK_URI))
    assert capture.findings() == []


def refreshed(later: str, version: int = 1, ports: tuple[int, int] = (4000, 4000)) -> Capture:
    """An INVITE and its refresh, with the same SDP inside; outside the second one is *later*."""
    capture = Capture(Vantage.BOTH)
    for cseq, shown in ((1, audio(Endpoint(EXT.host, 30000))), (2, later)):
        origin = f"o=- 1 {version ** (cseq - 1)}"
        sdp = audio(Endpoint(PHONE.host, ports[cseq - 1])).replace("o=- 1 1", origin)
        names = {"cseq": cseq, "branch": f"z9hG4bK{cseq}"}
        capture.out(request(sdp=sdp, **names), request(sdp=shown, via=EXT, contact=EXT, **names))
    return capture


def test_the_same_sdp_is_shown_in_two_ways() -> None:
    """A session refresh with the same SDP leaves with another port and the same version."""
    finding = refreshed(audio(Endpoint(EXT.host, 30002))).only("D11")
    assert finding.title == "the same SDP leaves as 203.0.113.1:30000, and later as 203.0.113.1:30002"
    assert "both with version 1 in o=" in finding.evidence


@pytest.mark.parametrize("capture", [
    refreshed(audio(Endpoint(EXT.host, 30000))),
    refreshed(audio(Endpoint(EXT.host, 30002)), version=2),
    refreshed(audio(Endpoint(EXT.host, 30002)), ports=(4000, 4002)),
], ids=["the same", "another version", "another port inside"])
def test_offers_that_may_differ(capture: Capture) -> None:
    """The same again, or a new offer of the UA itself, is no fixer's doing."""
    assert capture.findings() == []


def test_an_alg_leaves_its_mark() -> None:
    """FortiGate's nat-trace line names the product, with its commands; for information."""
    capture = Capture()
    sdp = audio(PROVIDER).replace("t=0", "i=(o=IN IP4 10.1.1.1)\r\nt=0")
    capture.sip(response(200, sdp=sdp), PROVIDER, PHONE)
    finding = capture.only("D11")
    assert finding.severity is Severity.INFORMS
    assert "FortiGate" in finding.title
    assert finding.evidence == 'Packet 1 has "i=(o=IN IP4 ".'


def test_a_b2bua_may_change_everything() -> None:
    """An SBC has Call-ID, tags, Via and Contact of its own on its other side: two calls, no ALG."""
    capture = Capture(Vantage.UNKNOWN)
    server = Endpoint("198.51.100.99", 5060)
    capture.sip(request(call_id="phone", sdp=audio(PHONE)))
    capture.sip(request(call_id="sbc", via=PROVIDER, contact=PROVIDER, branch="z9hG4bK-sbc",
                        sdp=audio(PROVIDER)), PROVIDER, server)
    capture.sip(response(200, call_id="sbc", via=PROVIDER, branch="z9hG4bK-sbc", contact=f"sip:bob@{server}",
                         sdp=audio(server)), server, PROVIDER)
    capture.sip(response(200, call_id="phone", contact=f"sip:bob@{PROVIDER}", seen_as=EXT,
                         sdp=audio(PROVIDER)), PROVIDER, PHONE)
    assert capture.findings() == []


def test_exports() -> None:
    """All six rules are told of."""
    assert len(fixers.CONVERSATION) == 6
