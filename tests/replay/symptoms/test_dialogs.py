"""D05, D06, D13, D26: what shows them, and what looks like them and is none."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Finding, Fixed, Severity, Vantage
from natfix.replay.symptoms import dialogs
from tests.replay.sip import PHONE, PROVIDER, TO, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture, check

PBX = Endpoint("192.168.1.5", 5060)
TAGGED = TO + ";tag=b"
PROVIDER_URI, PBX_URI = "sip:bob@198.51.100.20:5060", "sip:bob@192.168.1.5:5060"


def found(capture: Capture) -> list[Finding]:
    """Return what this module's rules find; every finding is whole."""
    capture.context.end = capture.time + 1
    findings = [finding for conversation in capture.conversations() for rule in dialogs.CONVERSATION
                for finding in rule(conversation, capture.context)]
    for finding in findings:
        check(finding)
    return findings


def called(contact: str = PBX_URI, record_route: str = "", answers: int = 6, vantage: Vantage = Vantage.BOTH,
           shown: str = "") -> Capture:
    """A PBX inside is called from outside; its 200 goes out *answers* times."""
    capture = Capture(vantage)
    invite = request(via=PROVIDER, contact=PROVIDER)
    headers = (f"Record-Route: <{record_route}>",) if record_route else ()
    if vantage is Vantage.BOTH:
        capture.back(invite, destination=PBX, ext=Endpoint(GATEWAY, 5060))
    else:
        capture.sip(invite, PROVIDER, PBX)
    for number in range(answers):
        wait = min(4.0, 0.5 * 2 ** number)
        answer = response(via=PROVIDER, contact=contact, headers=headers)
        if vantage is Vantage.BOTH:
            capture.out(answer, response(via=PROVIDER, contact=shown or contact, headers=headers), PBX,
                        Endpoint(GATEWAY, 5060), after=wait)
        else:
            capture.sip(answer, PBX, PROVIDER, after=wait)
    return capture


def test_contact_is_private() -> None:
    """(a) The 200 leaves with an inside Contact: the ACK goes there."""
    finding, = found(called())
    assert (finding.code, finding.fixed_by_natfix) == ("D05", Fixed.YES)
    assert "Its Contact names 192.168.1.5:5060" in finding.cause
    assert "was sent 5 times more" in finding.evidence


def test_record_route_is_private() -> None:
    """(b) The Record-Route leaves with an inside address: that, and D13, are found."""
    findings = found(called(record_route="sip:192.168.1.5;lr"))
    assert [finding.code for finding in findings] == ["D05", "D13"]
    assert "Record-Route names 192.168.1.5:5060" in findings[0].cause


def acked(uri: str, destination: Endpoint = PROVIDER, to: str = TAGGED) -> Capture:
    """An inside phone calls; the provider's 200 comes again and again although the phone sends an ACK."""
    capture = Capture()
    capture.sip(request())
    answer = response(contact=PROVIDER_URI)
    capture.sip(answer, PROVIDER, PHONE)
    ack = request("ACK", branch="z9hG4bKa", contact="", uri=uri, to=to)
    capture.sip(ack, PHONE, destination)
    for number in range(5):
        capture.sip(answer, PROVIDER, PHONE, after=min(4.0, 0.5 * 2 ** number))
        capture.sip(ack, PHONE, destination)
    return capture


@pytest.mark.parametrize(("capture", "cause"), [
    (acked("sip:bob@203.0.113.77:5060"), "ACK is for 203.0.113.77:5060, the answer's Contact is "
                                         "198.51.100.20:5060"),
    (acked(PROVIDER_URI, Endpoint("198.51.100.99", 5060)), "went to 198.51.100.99:5060; the answer asks for "
                                                           "it at"),
    (acked(PROVIDER_URI, to=TO + ";tag=other"), 'To tag "other", the answer "b"'),
    (acked(PROVIDER_URI), "passed this point, and is lost behind it"),
], ids=["c", "d", "e", "lost behind"])
def test_an_ack_was_sent(capture: Capture, cause: str) -> None:
    """(c) another Request-URI, (d) another host, (e) another To tag; else it is lost behind the capture."""
    finding, = found(capture)
    assert finding.code == "D05"
    assert cause in finding.cause


def test_a_few_retransmissions_are_no_failure() -> None:
    """One 200 that came twice, then the ACK: lost packets, no more."""
    capture = acked(PROVIDER_URI)
    capture.sightings = capture.sightings[:5]
    assert found(capture) == []


def test_retransmissions_while_the_ack_is_on_its_way() -> None:
    """A translated Contact, and an ACK after the second 200."""
    capture = called(answers=2, shown="sip:bob@203.0.113.1:5060")
    ack = request("ACK", via=PROVIDER, branch="z9hG4bKa", contact="", uri=PBX_URI, to=TAGGED)
    capture.back(ack, destination=PBX, ext=Endpoint(GATEWAY, 5060))
    assert found(capture) == []


def far_contact(status: int = 183, source: Endpoint = PROVIDER, headers: tuple[str, ...] = (),
                contact: str = "sip:bob@172.16.20.118:5060", ack: Endpoint | None = None) -> Capture:
    """An inside phone calls; the answer from outside names its own network's address as Contact."""
    capture = Capture()
    capture.sip(request(), PHONE, source)
    capture.sip(response(status, contact=contact, headers=headers), source, PHONE)
    if ack is not None:
        capture.sip(request("ACK", branch="z9hG4bKa", contact="", uri=contact, to=TAGGED), PHONE, ack)
    return capture


def test_the_peers_contact_is_private() -> None:
    """What the phone sends next goes to an address that means nothing here; and if it did, that is shown."""
    finding, = found(far_contact())
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D05", Severity.HURTS, Fixed.NO)
    finding, = found(far_contact(200, ack=Endpoint("172.16.20.118", 5060)))
    assert finding.severity is Severity.BREAKS
    assert "Requests go there (packet 3)" in finding.evidence


@pytest.mark.parametrize("capture", [
    far_contact(200, ack=PROVIDER), far_contact(headers=("Record-Route: <sip:198.51.100.20;lr>",)),
    far_contact(contact=f"sip:bob@{PHONE}"), far_contact(486), far_contact(source=Endpoint("10.0.0.9", 5060)),
    far_contact(contact="sip:bob@198.51.100.99"),
], ids=["the phone knows better", "by a proxy", "an inside address", "refused", "a private peer", "public"])
def test_contacts_of_peers_that_are_no_fault(capture: Capture) -> None:
    """Where the phone's next request finds its way, or there is none, nothing is wrong."""
    assert found(capture) == []


def test_a_private_contact_of_a_call_that_failed() -> None:
    """After 183 comes 480: nothing more has to go there."""
    capture = far_contact()
    capture.sip(response(480), PROVIDER, PHONE)
    assert found(capture) == []


def test_an_answer_with_a_private_contact_again_and_again() -> None:
    """The same where the 200 is repeated: told once, with the reason."""
    capture, contact = far_contact(200), "sip:bob@172.16.20.118:5060"
    for number in range(5):
        capture.sip(request("ACK", branch="z9hG4bKa", contact="", uri=contact, to=TAGGED), PHONE,
                    Endpoint("172.16.20.118", 5060))
        capture.sip(response(contact=contact), PROVIDER, PHONE, after=min(4.0, 0.5 * 2 ** number))
    finding, = found(capture)
    assert "The answer's Contact names 172.16.20.118:5060" in finding.cause


def test_an_ack_that_came_late() -> None:
    """Four times 200, then the ACK, and quiet: the call goes on."""
    capture = called(answers=5, shown="sip:bob@203.0.113.1:5060")
    ack = request("ACK", via=PROVIDER, branch="z9hG4bKa", contact="", uri=PBX_URI, to=TAGGED)
    capture.back(ack, destination=PBX, ext=Endpoint(GATEWAY, 5060))
    assert [finding.code for finding in found(capture)] == ["D05"]     # the capture ends too early to tell
    capture.time += 30
    assert found(capture) == []


def test_the_word_of_who_gave_up() -> None:
    """BYE with Reason: ACK timeout says it; other reasons do not."""
    for text, codes in (('SIP;cause=200;text="ACK timeout"', ["D05"]), ('Q.850;cause=16', [])):
        capture = Capture()
        capture.sip(request("BYE", contact="", to=TAGGED, headers=(f"Reason: {text}",)))
        capture.sip(response(method="BYE"), PROVIDER, PHONE)
        assert [finding.code for finding in found(capture)] == codes


def hung_up(times: int, answered: bool = False, target: Endpoint = PHONE, source: Endpoint = PROVIDER
            ) -> Capture:
    """BYE, again and again."""
    capture = Capture(Vantage.OUTSIDE)
    bye = request("BYE", via=source, contact="", uri=f"sip:alice@{target}", to=TAGGED)
    for number in range(times):
        capture.sip(bye, source, EXT, after=min(4.0, 0.5 * 2 ** number))
    if answered:
        capture.sip(response(481, "BYE", via=source), EXT, source)
    return capture


def test_bye_goes_nowhere() -> None:
    """BYE for an inside address, sent from outside, never answered: ghost call."""
    finding, = found(hung_up(8))
    assert (finding.code, finding.fixed_by_natfix) == ("D06", Fixed.YES)
    assert "BYE for 192.168.1.10:5060" in finding.evidence


def test_bye_to_one_that_is_gone() -> None:
    """For a public address: it says so, and blames no translation."""
    finding, = found(hung_up(8, target=EXT))
    assert finding.fixed_by_natfix is Fixed.PARTLY


def test_bye_by_a_route() -> None:
    """Where BYE has a Route it goes there, whatever the Request-URI names."""
    bye = request("BYE", via=PROVIDER, contact="", uri=f"sip:alice@{PHONE}", to=TAGGED,
                  headers=("Route: <sip:203.0.113.1;lr>",))
    capture = Capture(Vantage.OUTSIDE)
    for number in range(8):
        capture.sip(bye, PROVIDER, EXT, after=min(4.0, 0.5 * 2 ** number))
    finding, = found(capture)
    assert "BYE for 203.0.113.1:5060" in finding.evidence
    assert finding.fixed_by_natfix is Fixed.PARTLY


@pytest.mark.parametrize("capture", [hung_up(8, answered=True), hung_up(2)], ids=["481", "capture ends"])
def test_bye_that_ends_the_call(capture: Capture) -> None:
    """A 481 ends a call too; two BYEs at the end of a capture prove nothing."""
    assert found(capture) == []


def routed(answer: int) -> Capture:
    """A proxy inside names itself in Record-Route; the provider's BYE is answered by *answer*, 0 for not."""
    capture = Capture(Vantage.BOTH)
    route = ("Record-Route: <sip:192.168.1.5;lr>",)
    capture.out(request(headers=route), request(via=EXT, contact=EXT, headers=route), PBX)
    capture.back(response(via=EXT, contact=PROVIDER_URI, headers=route), response(contact=PROVIDER_URI),
                 destination=PBX)
    bye = request("BYE", via=PROVIDER, branch="z9hG4bKb", contact="", cseq=2, to=TAGGED)
    capture.back(bye, destination=PBX)
    if answer:
        capture.out(response(answer, "BYE", via=PROVIDER, branch="z9hG4bKb", cseq=2), source=PBX)
    return capture


@pytest.mark.parametrize(("answer", "codes"), [(0, ["D13"]), (481, ["D13"]), (200, [])])
def test_private_record_route(answer: int, codes: list[str]) -> None:
    """A Record-Route that leaves untranslated is one where it hurts; a peer that finds its way needs none."""
    assert [finding.code for finding in found(routed(answer))] == codes


PRIVATE, PUBLIC = "sip:10.13.0.2:5060", "sip:198.51.100.20:5060"
OWN = "sip:192.168.1.5"


def crossing(routes: list[str], request_routes: list[str] | None = None, vias: int = 1) -> Capture:
    """The provider's answer, from a public address, with *routes* in Record-Route."""
    capture = Capture()
    if request_routes is not None:
        capture.sip(request(headers=tuple(f"Record-Route: <{each};lr>" for each in request_routes)))
    more = (f"Via: SIP/2.0/UDP {PHONE};branch=z9hG4bKu",) * (vias - 1)
    headers = (*more, *(f"Record-Route: <{each};lr>" for each in routes))
    capture.sip(response(contact=PROVIDER_URI, headers=headers), PROVIDER, PHONE)
    return capture


@pytest.mark.parametrize("capture", [
    crossing([PRIVATE + ";r2=on", PUBLIC + ";r2=on"]), crossing([PUBLIC, PRIVATE], vias=2),
    crossing([PUBLIC, OWN], [OWN]), crossing([PUBLIC]), crossing([PRIVATE, "sip:sbc.example.com"]),
], ids=["the public leg comes first", "request unknown", "its own, given back", "public", "a name"])
def test_routes_that_are_no_fault(capture: Capture) -> None:
    """A UAC goes through an answer's routes from the end, and gets on from a proxy that it can reach."""
    assert found(capture) == []


def test_the_provider_names_a_private_address() -> None:
    """The entry nearest to us is one that we cannot reach: nothing that natfix here can cure."""
    finding, = found(crossing([PUBLIC, PRIVATE]))
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D13", Severity.WARNS, Fixed.NO)
    assert "Record-Route comes with 10.13.0.2:5060" in finding.title


def test_routes_of_a_request_from_outside() -> None:
    """Private entries of the provider's that our answer gives back are not ours; ours beside them is."""
    theirs = ("Record-Route: <sip:198.51.100.20;lr;r2=on>", "Record-Route: <sip:10.13.0.2;lr;r2=on>")
    ours = ("Record-Route: <sip:192.168.1.5;lr>",)
    for own, codes in (((), []), (ours, ["D13"])):
        capture = Capture(Vantage.BOTH)
        capture.back(request(via=PROVIDER, contact=PROVIDER, headers=theirs), destination=PBX)
        capture.out(response(via=PROVIDER, contact="sip:a@203.0.113.1", headers=own + theirs), source=PBX)
        assert [finding.code for finding in found(capture)] == codes


def test_a_record_route_where_it_makes_no_route() -> None:
    """In BYE, or in answers to OPTIONS, it says nothing (RFC 3261, 12.1)."""
    for method in ("BYE", "OPTIONS"):
        capture = Capture(Vantage.BOTH)
        capture.out(request(method, headers=("Record-Route: <sip:192.168.1.5;lr>",)), source=PBX)
        assert found(capture) == []


def refreshed(times: int, age: float = 900.0, answered: bool = False) -> Capture:
    """A call of half-hour sessions; the refresh after *age* seconds is sent *times* times."""
    capture = Capture()
    capture.sip(request())
    capture.sip(response(contact=PROVIDER_URI, headers=("Session-Expires: 1800;refresher=uac",)),
                PROVIDER, PHONE)
    update = request("UPDATE", branch="z9hG4bKu", cseq=2, to=TAGGED)
    capture.time += age
    for number in range(times):
        capture.sip(update, after=min(4.0, 0.5 * 2 ** number))
    if answered:
        capture.sip(response(method="UPDATE", branch="z9hG4bKu", cseq=2), PROVIDER, PHONE)
    return capture


def test_a_refresh_that_is_not_answered() -> None:
    """Half of Session-Expires after the call began, UPDATE goes unanswered."""
    finding, = found(refreshed(8))
    assert finding.code == "D26"
    assert "15 min" in finding.title


@pytest.mark.parametrize("capture", [refreshed(2, answered=True), refreshed(2), refreshed(8, age=20)],
                         ids=["answered", "capture ends", "early update"])
def test_refreshes_that_are_no_fault(capture: Capture) -> None:
    """Answered, cut off by the capture's end, or an UPDATE for something else."""
    assert found(capture) == []
