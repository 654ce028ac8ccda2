"""D30, D31: what shows them, and what looks like them and is none; the lab's captures show both, too."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Direction, Finding, Fixed, Vantage
from natfix.replay.symptoms import dialogs, transfers
from tests.replay.sip import PHONE, PROVIDER, TO, request, response
from tests.replay.symptoms.capture import Capture, check

TAGGED = TO + ";tag=b"
OLD, NEW = "198.51.100.20:5060", "198.51.100.20:5070"
NOWHERE = "sip:carol@192.168.1.11"


def found(capture: Capture, *modules: object) -> list[Finding]:
    """Return what this module's rules (and those of *modules*) find; every finding is whole."""
    capture.context.end = capture.time + 1
    findings = [finding for conversation in capture.conversations() for module in (transfers, *modules)
                for rule in module.CONVERSATION     # type: ignore[attr-defined]
                for finding in rule(conversation, capture.context)]
    for finding in findings:
        check(finding)
    return findings


def moved(status: int = 200, contact: str = NEW) -> Capture:
    """A call that the provider moves to another *contact* by re-INVITE, which is answered *status*."""
    capture = Capture()
    capture.sip(request())
    capture.sip(response(contact=f"sip:bob@{OLD}"), PROVIDER, PHONE)
    capture.sip(request("ACK", branch="z9hG4bKa", contact="", uri=f"sip:bob@{OLD}", to=TAGGED))
    capture.sip(request(via=PROVIDER, contact=contact, branch="z9hG4bKr", uri=f"sip:alice@{PHONE}",
                        to=TAGGED), PROVIDER, PHONE)
    capture.sip(response(status, via=PROVIDER, branch="z9hG4bKr", contact=f"sip:alice@{PHONE}"))
    return capture


def hangs_up(capture: Capture, target: str, times: int = 5, status: int = 0, headers: tuple[str, ...] = ()
             ) -> Capture:
    """Let the phone send BYE for *target*."""
    bye = request("BYE", branch="z9hG4bKb", contact="", cseq=2, uri=f"sip:bob@{target}", to=TAGGED,
                  headers=headers)
    for number in range(times):
        capture.sip(bye, after=0.5 * 2 ** number)
    if status:
        capture.sip(response(status, "BYE", branch="z9hG4bKb", cseq=2), PROVIDER, PHONE)
    return capture


def test_the_old_target_does_not_answer() -> None:
    """D30: BYE goes to the Contact of before, again and again; D06 has nothing to add."""
    finding, = found(hangs_up(moved(), OLD), dialogs)
    assert (finding.code, finding.fixed_by_natfix) == ("D30", Fixed.PARTLY)
    assert f"has Contact {NEW}, before it was {OLD}" in finding.evidence
    assert "sent 5 times" in finding.evidence


def test_the_old_target_knows_nothing_of_the_call() -> None:
    """D30: whoever is at the old Contact answers 481."""
    finding, = found(hangs_up(moved(), OLD, 1, 481))
    assert "is answered 481" in finding.evidence


@pytest.mark.parametrize("capture", [
    hangs_up(moved(), NEW, 1, 200), hangs_up(moved(), OLD, 1, 200), hangs_up(moved(491), OLD),
    hangs_up(moved(contact=OLD), OLD), hangs_up(moved(), OLD, headers=("Route: <sip:198.51.100.20;lr>",)),
    hangs_up(moved(), OLD, 2),
], ids=["followed", "both answer", "refused", "same", "by a proxy", "just begun"])
def test_targets_that_are_right(capture: Capture) -> None:
    """Followed; still answered; a move that was refused, or is none; a route set; a capture that ends."""
    assert found(capture) == []


# -- D31


def transfer(target: str, notify: str = "", status: int = 202, vantage: Vantage = Vantage.OUTSIDE,
             inward: bool = False) -> Capture:
    """A REFER to *target*, its answer, and the NOTIFY that says *notify*."""
    capture = Capture(vantage)
    ours = Endpoint("203.0.113.1", 5060) if vantage is Vantage.OUTSIDE else PHONE
    one, two = (PROVIDER, ours) if inward else (ours, PROVIDER)
    refer = request("REFER", via=one, contact=one, to=TAGGED, headers=(f"Refer-To: <{target}>",))
    capture.sip(refer, one, two)
    capture.sip(response(status, "REFER", via=one), two, one)
    if notify:
        body = f"SIP/2.0 {notify}\r\n"
        ask = request("NOTIFY", via=two, contact=two, branch="z9hG4bKn", to=TAGGED, sdp=body)
        capture.sip(ask.replace(b"application/sdp", b"message/sipfrag"), two, one)
        capture.sip(response(200, "NOTIFY", via=two, branch="z9hG4bKn"), one, two)
    return capture


@pytest.mark.parametrize(("capture", "said"), [
    (transfer(NOWHERE, "408 Timeout"), "NOTIFY says 408"), (transfer(NOWHERE, status=403), "answered 403"),
], ids=["notified", "refused"])
def test_a_transfer_to_an_inside_address(capture: Capture, said: str) -> None:
    """D31: Refer-To leaves with a private address, and the transfer fails."""
    finding, = found(capture)
    assert finding.code == "D31"
    assert "Refer-To 192.168.1.11:5060" in finding.evidence
    assert said in finding.evidence


def test_the_peer_names_an_address_of_its_own_network() -> None:
    """D31, and natfix cannot help: the other side's Refer-To names a host that only it can reach."""
    finding, = found(transfer("sip:carol@10.9.8.7", "408 Timeout", vantage=Vantage.INSIDE, inward=True))
    assert finding.fixed_by_natfix is Fixed.NO


@pytest.mark.parametrize("capture", [
    transfer(NOWHERE, "200 OK"), transfer(NOWHERE), transfer("sip:carol@example.com", "486 Busy Here"),
    transfer(NOWHERE, status=401),
], ids=["works", "no word", "busy", "challenged"])
def test_transfers_that_are_none_of_that(capture: Capture) -> None:
    """It works all the same; nothing is known; a number that is busy; credentials are asked for."""
    assert found(capture) == []


def test_the_result_never_arrives() -> None:
    """D31: NOTIFY is sent again and again; where it is seen to arrive, the phone is at fault."""
    for vantage, count in ((Vantage.OUTSIDE, 1), (Vantage.BOTH, 0)):
        capture = transfer("sip:carol@example.com", vantage=vantage)
        notify = request("NOTIFY", via=PROVIDER, contact=PROVIDER, branch="z9hG4bKn", to=TAGGED)
        for number in range(5):
            if vantage is Vantage.BOTH:
                capture.back(notify, after=0.5 * 2 ** number)
            else:
                capture.sip(notify, PROVIDER, Endpoint("203.0.113.1", 5060), after=0.5 * 2 ** number)
        findings = found(capture)
        assert [finding.code for finding in findings] == ["D31"] * count
    assert Direction.INWARD in {each.direction for each in capture.conversations()[0].passages}
