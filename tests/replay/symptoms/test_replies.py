"""D12 and D29: replies that reach the UA at another place than it asked from."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Fixed, Severity, Side, Vantage
from natfix.replay.symptoms import replies
from tests.replay.sip import PHONE, PROVIDER, article, record, request, response
from tests.replay.symptoms.capture import EXT, Capture, check, repeat

WRONG = Endpoint(PHONE.host, 17973)
REGISTER = request("REGISTER")
CHALLENGE = response(401, "REGISTER", seen_as=EXT)


def of_article(stages: str = "iIoO") -> Capture:
    """The article's eight records, as fw monitor's text gives them."""
    capture = Capture(Vantage.BOTH, "n.n.n.n", ())
    capture.view.sides |= {"a.b.c.d": Side.INSIDE, "n.n.n.n": Side.OUTSIDE, "w.x.y.z": Side.OUTSIDE}
    capture.sightings = article(stages)
    return capture


def test_the_article() -> None:
    """The eight records alone: the handler between i and I, hide NAT at O, the reply where nobody listens."""
    finding = of_article().only("D12")
    assert finding.severity is Severity.BREAKS
    assert finding.fixed_by_natfix is Fixed.NO
    assert [packet.number for packet in finding.packets] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert finding.title == "the reply is delivered to a.b.c.d:17973, the request came from port 5060"
    assert finding.where == "the firewall itself, between eth1.10:i and eth1.10:I"
    assert "from 5060 to 17973 already between eth1.10:i and eth1.10:I, before routing" in finding.cause
    assert "a protocol handler (SIP ALG), since hide NAT works behind routing" in finding.cause
    assert "Between eth0:o and eth0:O hide NAT then took 40625" in finding.cause
    assert "goes to a.b.c.d:17973, where nobody listens" in finding.cause
    for said in ("Between eth1.10:i and eth1.10:I its source became a.b.c.d:17973 (packets 1, 2).",
                 "Between eth0:o and eth0:O its source became n.n.n.n:40625 (packets 3, 4).",
                 "502 to 510 octets between eth0:o and eth0:O (packets 3, 4)",
                 "404 to 398 octets between eth0:i and eth0:I (packets 5, 6)",
                 "a sign that the text was rewritten"):
        assert said in finding.evidence
    assert finding.remedy.startswith("Check Point (")
    assert "set Protocol Type from SIP_UDP to None" in finding.remedy
    assert "capture again" in finding.remedy


@pytest.mark.parametrize("stages", ["iO", "IO", "iIO"])
def test_fewer_stages_of_the_article(stages: str) -> None:
    """With some stages only, as `fw monitor -m` records them, what they still show is said and no more."""
    findings = of_article(stages).findings()
    assert [each.code for each in findings] == ([] if "i" not in stages else ["D12"])
    for finding in findings:
        check(finding)


def test_records_of_plain_nat() -> None:
    """Hide NAT that puts back what it took, with or without another port, is no fault."""
    capture = Capture(Vantage.BOTH)
    for number, (source, destination, stage) in enumerate((
        (PHONE, PROVIDER, "i"), (PHONE, PROVIDER, "I"), (PHONE, PROVIDER, "o"), (EXT, PROVIDER, "O"),
        (PROVIDER, EXT, "i"), (PROVIDER, PHONE, "I"), (PROVIDER, PHONE, "o"), (PROVIDER, PHONE, "O"),
    ), 1):
        capture.sightings.append(record(source, destination, stage, number, identification=number > 4))
    assert capture.findings() == []
    assert len(capture.context.records) == 2


def two_sided(delivered: Endpoint = WRONG, shown: bytes = REGISTER) -> Capture:
    """REGISTER and its challenge on both sides of a gateway."""
    capture = Capture(Vantage.BOTH)
    capture.out(REGISTER, shown)
    capture.back(CHALLENGE, destination=delivered)
    return capture


def test_two_captures() -> None:
    """Inside and outside pcap: the reply comes to the right outside port and goes to a wrong inside one."""
    finding = two_sided().only("D12")
    assert finding.title == f"401 to REGISTER is delivered to {WRONG}, the request came from port 5060"
    assert finding.call_id == "1"
    assert [str(packet) for packet in finding.packets] == ["inside:1", "outside:2", "outside:3", "inside:4"]
    assert "Between inside and outside its source became 203.0.113.1:40625" in finding.evidence
    assert "Plain NAT puts back exactly what it took away" in finding.cause
    assert finding.where == "the gateway, between inside and outside"
    assert "Protocol Type from SIP_UDP to None" in finding.remedy
    assert "natfix explain --alg" in finding.remedy


def test_a_rewritten_text_shows_in_its_length() -> None:
    """A request whose length changes on the way is named as rewritten."""
    shown = request("REGISTER", via=EXT, contact=f"{EXT};line=1")
    finding = two_sided(shown=shown).only("D12")
    assert f"{len(REGISTER)} to {len(shown)} octets between inside and outside" in finding.evidence


def test_two_captures_of_plain_nat() -> None:
    """A gateway that puts back what it took is no fault, whatever port it chose."""
    assert two_sided(PHONE).findings() == []


def test_inside_alone() -> None:
    """Captured at the UA: the reply comes to a port that was never asked from; ICMP and repetitions tell."""
    capture = Capture()
    capture.sip(REGISTER)
    capture.sip(CHALLENGE, PROVIDER, WRONG)
    capture.icmp(PHONE.host, "port-unreachable", PROVIDER, WRONG)
    repeat(capture, REGISTER, 2)
    finding = capture.only("D12")
    assert "192.168.1.10 answers with ICMP port-unreachable (packet 3)." in finding.evidence
    assert "The UA repeats its request as if there were no reply (packets 4, 5)." in finding.evidence


def test_the_port_in_via_is_where_replies_go() -> None:
    """A UA that sends from another port than its Via names gets its replies there (RFC 3261, 18.2.2)."""
    capture = Capture()
    sender = Endpoint(PHONE.host, 33333)
    capture.sip(REGISTER.replace(b";rport", b""), sender)
    capture.sip(CHALLENGE, PROVIDER, PHONE)
    assert capture.findings() == []


def test_a_reply_that_was_taken_is_no_fault() -> None:
    """The UA goes on with credentials: it got the reply, on whatever port it listens."""
    capture = Capture()
    capture.sip(REGISTER)
    capture.sip(CHALLENGE, PROVIDER, WRONG)
    capture.sip(request("REGISTER", cseq=2, branch="z9hG4bK2"))
    assert capture.findings() == []


def test_reply_from_another_address() -> None:
    """The UA asks one address, another one answers, and the UA goes on asking."""
    capture = Capture()
    other = Endpoint("198.51.100.21", 5060)
    capture.sip(REGISTER)
    capture.sip(CHALLENGE, other, PHONE)
    repeat(capture, REGISTER, 2)
    finding = capture.only("D12")
    assert finding.title == f"401 to REGISTER comes from {other}, the request went to {PROVIDER}"
    assert "the server has several addresses" in finding.cause


def test_another_address_that_the_ua_takes() -> None:
    """A provider that answers from a second address, to a UA that does not care, is no fault."""
    capture = Capture()
    capture.sip(REGISTER)
    capture.sip(CHALLENGE, Endpoint("198.51.100.21", 5060), PHONE)
    capture.sip(request("REGISTER", cseq=2, branch="z9hG4bK2"))
    assert capture.findings() == []


def test_a_repetition_that_crossed_the_reply() -> None:
    """A repetition that left while the reply was on its way says nothing."""
    capture = Capture()
    capture.sip(REGISTER)
    capture.sip(REGISTER, after=0.5)
    capture.sip(CHALLENGE, Endpoint("198.51.100.21", 5060), PHONE, after=0.01)
    assert capture.findings() == []


SENDER = Endpoint(PHONE.host, 33333)
NO_RPORT = REGISTER.replace(b";rport", b"")
PLAIN_CHALLENGE = response(401, "REGISTER")


def test_asymmetric_signalling() -> None:
    """D29: Via names 5060 without rport, the reply goes to the source port, the UA does not hear it."""
    capture = Capture()
    capture.sip(NO_RPORT, SENDER)
    capture.sip(PLAIN_CHALLENGE, PROVIDER, SENDER)
    capture.sip(NO_RPORT, SENDER, after=0.5)
    capture.sip(PLAIN_CHALLENGE, PROVIDER, SENDER)
    capture.sip(NO_RPORT, SENDER, after=1.0)
    finding = capture.only("D29")
    assert finding.title == "the UA sends from port 33333 and listens at 5060"
    assert "its Via names port 5060 and has no rport" in finding.evidence


def test_asymmetric_signalling_without_mapping() -> None:
    """D29: the reply goes to the port in Via, as it may, and the NAT knows nothing of that port."""
    capture = Capture(Vantage.BOTH)
    capture.out(NO_RPORT, source=SENDER)
    capture.sip(PLAIN_CHALLENGE, PROVIDER, Endpoint(EXT.host, 5060), "outside")
    capture.out(NO_RPORT, source=SENDER, after=0.5)
    finding = capture.only("D29")
    assert "is not seen inside" in finding.evidence


@pytest.mark.parametrize("asked", [NO_RPORT.replace(b":5060;branch", b":5060;rport;branch"), REGISTER])
def test_rport_was_asked_for(asked: bytes) -> None:
    """A UA that wrote rport wants its replies at the source port: nothing to say, though it repeats."""
    capture = Capture()
    capture.sip(asked, SENDER)
    capture.sip(PLAIN_CHALLENGE, PROVIDER, SENDER)
    capture.sip(asked, SENDER, after=0.5)
    assert capture.findings() == []


def test_asymmetric_signalling_that_works() -> None:
    """The UA hears at its source port after all, and goes on."""
    capture = Capture()
    capture.sip(NO_RPORT, SENDER)
    capture.sip(PLAIN_CHALLENGE, PROVIDER, SENDER)
    capture.sip(request("REGISTER", cseq=2, branch="z9hG4bK2"), SENDER)
    assert capture.findings() == []


def test_exports() -> None:
    """The rules are found by name."""
    assert replies.replies_elsewhere in replies.CONVERSATION
    assert replies.records_elsewhere in replies.CAPTURE
