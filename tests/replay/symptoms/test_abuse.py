"""D34: scanners and holes for services; and guests, peers and phones that are neither."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natfix.address import Endpoint
from natfix.document import Document
from natfix.errors import ConfigError
from natfix.replay.model import Severity, Vantage
from natfix.replay.symptoms.abuse import scanner_named, scanners, scanners_from_document, scanners_from_file
from tests.replay.sip import PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import GATEWAY, Capture

STRANGER = Endpoint("192.0.2.66", 5090)


def visits(users: int, method: str = "REGISTER", agent: str = "", status: int = 404, known: bool = False,
           count: int = 12) -> Capture:
    """A host outside asks for some users, *count* times."""
    capture = Capture(Vantage.INSIDE)
    if known:
        capture.sip(request("REGISTER", call_id="own", branch="z9hG4bKown"), PHONE, STRANGER)
    headers = (f"User-Agent: {agent}",) if agent else ()
    for number in range(count):
        user = f"{100 + number % users}"
        names = {"call_id": f"scan{number}", "branch": f"z9hG4bKs{number}"}
        target = f"<sip:{user}@{GATEWAY}>"
        capture.sip(request(method, via=STRANGER, contact=STRANGER, uri=f"sip:{user}@{GATEWAY}", to=target,
                            headers=headers, **names), STRANGER, PHONE)
        if status:
            answer = response(status, method, via=STRANGER, to=f"{target};tag=x", **names)
            capture.sip(answer, PHONE, STRANGER)
    return capture


@pytest.mark.parametrize("agent", [
    "friendly-scanner", "sipcli/v1.8", "VaxSIPUserAgent/3.1", "SIPVicious 0.3",
])
def test_a_known_scanner(agent: str) -> None:
    """A scanner is known by its name, from its first request on; all its requests are one finding."""
    finding = visits(3, agent=agent, count=4).only("D34")
    assert finding.severity is Severity.WARNS
    assert finding.title == "192.0.2.66 scans: 4 REGISTER"
    assert f'It calls itself "{agent}", which natfix knows as a scanner' in finding.evidence
    assert "Answers: 4 times 404." in finding.evidence


def test_a_scanner_inside() -> None:
    """A scanner in the own network is told of, too."""
    capture = Capture()
    capture.sip(request("OPTIONS", headers=("User-Agent: friendly-scanner",)), PHONE,
                Endpoint("192.168.1.20", 5060))
    finding = capture.only("D34")
    assert finding.where == "inside, at 192.168.1.10"
    assert "nobody here had asked" not in finding.evidence


def test_an_unknown_scanner() -> None:
    """A host that nobody asked anything tries many users, and reaches none."""
    finding = visits(6).only("D34")
    assert 'for 6 users ("100", "101", "102", "103")' in finding.evidence


def test_invites_for_everybody() -> None:
    """Calls to one number after the other, all refused: toll fraud at work."""
    assert visits(12, "INVITE", status=404).only("D34").title == "192.0.2.66 scans: 12 INVITE"


def test_a_scanner_that_got_in() -> None:
    """Where it was accepted, that is worse."""
    finding = visits(6, "INVITE", "friendly-scanner", 200).only("D34")
    assert finding.severity is Severity.HURTS
    assert "Some of its requests were accepted." in finding.cause


@pytest.mark.parametrize("capture", [
    visits(6, known=True), visits(6, "INVITE", status=200), visits(2), visits(6, count=8),
    visits(6, "OPTIONS", status=0, known=True), visits(12, "INVITE", status=480),
    visits(12, "INVITE", status=0),
], ids=["our provider", "calls that are answered", "few users", "few requests", "a provider that pings",
        "a trunk whose phones are off", "a trunk whose calls get lost"])
def test_peers_are_no_scanners(capture: Capture) -> None:
    """Who is registered with, who is answered, who asks for few: no scanner."""
    assert "D34" not in capture.codes()


def test_a_servers_own_capture() -> None:
    """Where nobody is inside, a host with many users that are refused may be a customer's NAT."""
    capture = visits(6)
    capture.view.inside, capture.view.sides = (), {}
    assert capture.findings() == []


@pytest.mark.parametrize("agent", ["Asterisk PBX 18", "my friendly-scanner", "snom", ""])
def test_names_that_are_no_scanners(agent: str) -> None:
    """A name counts from its beginning."""
    assert scanner_named(agent) is None


def hole(port: int = 445, host: str = PHONE.host, contact: object = PHONE, sdp: str = "") -> Capture:
    """An INVITE from inside whose SDP names a port."""
    capture = Capture()
    capture.sip(request(contact=contact, sdp=sdp or audio(Endpoint(host, port))))
    return capture


def test_a_hole_for_a_service() -> None:
    """An SDP that names a service's port of an inside host asks an ALG to open it."""
    assert hole().only("D34").evidence == \
        "Packet 1 from 192.168.1.10:5060 to 198.51.100.20:5060: m=audio names port 445 of 192.168.1.10."


def test_a_hole_by_contact() -> None:
    """So does a Contact."""
    capture = Capture()
    capture.sip(request("REGISTER", contact="192.168.1.77:3389"))
    assert "Contact names 192.168.1.77:3389." in capture.only("D34").evidence


@pytest.mark.parametrize("capture", [
    hole(4000), hole(9), hole(445, "198.51.100.7"), hole(4000, contact="192.168.1.10:5080"),
    hole(4000, contact="192.168.1.10:443;transport=wss"),
], ids=["RTP", "trickle ICE", "outside", "another SIP port", "WebSocket"])
def test_ports_that_are_no_services(capture: Capture) -> None:
    """Media ports, port 9, others' hosts, WebSocket servers ask for nothing."""
    assert capture.findings() == []


def test_a_call_is_no_visit() -> None:
    """One call from outside, answered, with its ACK and BYE."""
    capture = Capture()
    names = {"via": PROVIDER, "call_id": "in"}
    capture.sip(request(contact=PROVIDER, **names), PROVIDER, PHONE)
    capture.sip(response(200, contact=f"sip:alice@{PHONE}", **names), PHONE, PROVIDER)
    capture.sip(request("ACK", to="<sip:bob@example.com>;tag=b", branch="z9hG4bK2", **names), PROVIDER, PHONE)
    assert capture.findings() == []


def test_the_file_of_scanners() -> None:
    """Every scanner that comes along has a source."""
    assert len(scanners()) >= 8
    assert all(each.source for each in scanners())


@pytest.mark.parametrize(("text", "said"), [
    ('[[scanner]]\nuser_agent = "abc"\nsource = "x"',
     'x:2: user_agent = "abc" in [[scanner]] must be how a '),
    ('[[scanner]]\nuseragent = "abcd"\nsource = "x"',
     'x:2: unknown key "useragent" in [[scanner]]; did you '),
    ('[[scaner]]\n', 'x:1: unknown table "scaner"; did you mean "scanner"?'),
    ('[scanner]\n', 'x:1: scanner must be a table: write [[scanner]]'),
])
def test_a_wrong_file_is_refused(text: str, said: str) -> None:
    """A fault is named with file, line, key and what may have been meant."""
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(said)}"):
        scanners_from_document(Document(text, "x"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is a sentence."""
    with pytest.raises(ConfigError, match="there is no such scanners file"):
        scanners_from_file(tmp_path / "none.toml")


