"""Rules take their time by the packet: whatever a flood looks like, judging it stays quick."""

from __future__ import annotations

import time

import pytest

from natfix.address import Endpoint
from natfix.replay.diagnosis import judge_conversation
from natfix.replay.model import PacketId, Vantage
from tests.replay.sip import PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import EXT, Capture

COUNT = 3000
SLOWEST = 6.0       # seconds; some 0.5 alone, a square of COUNT takes minutes
WRONG = Endpoint(PHONE.host, 17973)


def one_transaction() -> Capture:
    """One request, and thousands of copies of it and of its reply, to a wrong port."""
    capture = Capture()
    for number in range(COUNT):
        capture.sip(request("OPTIONS"), after=0.5)
        capture.sip(response(200, "OPTIONS", headers=(f"X: {number}",)), PROVIDER, WRONG)
    return capture


def many_transactions() -> Capture:
    """Thousands of transactions in one Call-ID, which the UA takes all the same."""
    capture = Capture()
    for number in range(COUNT):
        names = {"cseq": number + 1, "branch": f"z9hG4bK{number}"}
        capture.sip(request("REGISTER", **names))
        capture.sip(response(401, "REGISTER", **names), PROVIDER, WRONG)
    return capture


def vanished() -> Capture:
    """Thousands of messages that never leave, each of which the kernel's helper would drop."""
    capture = Capture(Vantage.BOTH)
    sdp = audio(PHONE).replace("c=IN IP4 192.168.1.10", "c=IN IP4 pbx")
    for number in range(COUNT):
        capture.sip(request(sdp=sdp, cseq=number + 1, branch=f"z9hG4bK{number}"), file="inside", after=1)
    return capture


def damaged() -> Capture:
    """Thousands of damaged datagrams, all answered."""
    capture = Capture()
    for number in range(COUNT):
        names = {"cseq": number + 1, "branch": f"z9hG4bK{number}"}
        capture.sip(request("OPTIONS", **names), checksum_wrong=number > 0)
        capture.sip(response(200, "OPTIONS", seen_as=EXT, **names), PROVIDER, PHONE)
    return capture


def large() -> Capture:
    """Thousands of large requests without an answer, and as many ICMP errors about something else."""
    capture = Capture()
    for number in range(COUNT // 4):
        names = {"cseq": number + 1, "branch": f"z9hG4bK{number}"}
        for _ in range(4):
            capture.sip(request(headers=("Subject: " + "x" * 1300,), **names), after=0.5)
        capture.icmp("192.168.1.1", "fragmentation-needed", PHONE, Endpoint("192.0.2.1", number))
    return capture


def answered(**changes: object) -> Capture:
    """Hundreds of INVITEs in one Call-ID, each answered again and again, with an ACK for each."""
    capture = Capture()
    for number in range(COUNT // 6):
        names = {"cseq": number + 1, "branch": f"z9hG4bK{number}"}
        capture.sip(request(sdp=audio(PHONE), **names))
        for _ in range(4):
            capture.sip(response(sdp=audio(PROVIDER), **names, **changes), PROVIDER, PHONE, after=0.5)
        capture.sip(request("ACK", contact="", **names), after=0.1)
        capture.time += 20
    capture.context.end = capture.time
    return capture


def routed() -> Capture:
    """The same with a Record-Route of the phone's own network, which the requests did not have."""
    return answered(headers=("Record-Route: <sip:192.168.1.9;lr>",))


def private() -> Capture:
    """The same with a Contact that cannot be reached; the phone knows better."""
    return answered(contact="sip:bob@10.20.30.40")


def hung_up() -> Capture:
    """Thousands of BYEs, answered and not, and RTCP that is refused."""
    capture = Capture()
    for number in range(COUNT // 4):
        names = {"cseq": number + 1, "branch": f"z9hG4bK{number}"}
        for _ in range(3):
            capture.sip(request("BYE", contact="", **names), after=0.5)
        capture.icmp(PROVIDER.host, "port-unreachable", PHONE, PROVIDER)
    return capture


@pytest.mark.parametrize("make", [answered, routed, private, hung_up])
def test_floods_of_calls(make: object) -> None:
    """The same of the rules about calls."""
    capture: Capture = make()       # type: ignore[operator]
    conversation, = capture.conversations()
    began = time.perf_counter()
    findings = [*judge_conversation(conversation, capture.context)]
    assert time.perf_counter() - began < SLOWEST
    assert len(findings) <= 4


@pytest.mark.parametrize("make", [one_transaction, many_transactions, vanished, damaged, large])
def test_floods(make: object) -> None:
    """Thousands of packets of one kind are judged in seconds, with few findings."""
    capture: Capture = make()       # type: ignore[operator]
    conversations = capture.conversations()
    assert len(conversations) == 1
    began = time.perf_counter()
    findings = capture.findings()
    assert time.perf_counter() - began < SLOWEST
    assert len(findings) <= 2
    assert all(len(finding.packets) <= 40 for finding in findings)
    assert all(isinstance(packet, PacketId) for finding in findings for packet in finding.packets)
