"""No new calls while natfix waits for the last ones."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import Verdict
from natfix.draining import MOST_REFUSED, Draining
from natfix.sip.message import message_from_bytes
from tests.datagram import Datagram, packet_bytes

PHONE, PROVIDER = Endpoint("192.168.1.10", 5062), Endpoint("198.51.100.20", 5060)
SHOWN = Endpoint("203.0.113.1", 5062)
HEAD = (
    "Via: SIP/2.0/UDP 192.168.1.10:5062;branch=z9hG4bK1;rport\r\n"
    "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK0\r\n"
    "From: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>{tag}\r\n"
    "Call-ID: {call}\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
)


def sip(
    method: str, call: str = "new", tag: str = "", way: tuple[Endpoint, Endpoint] = (PHONE, PROVIDER),
) -> bytes:
    """Return a request as a packet."""
    text = f"{method} sip:b@example.com SIP/2.0\r\n" + HEAD.format(tag=tag, call=call, method=method)
    return packet_bytes(Datagram(*way, text.encode()))


@pytest.fixture
def draining() -> Draining:
    return Draining({"running"}, {PHONE: SHOWN}.get)


def test_a_new_call_is_told_503(draining: Draining) -> None:
    """The INVITE ends here; its answer comes from whom it was for, and is well made."""
    outcome = draining.judge(sip("INVITE"), "forward")
    assert outcome is not None
    assert outcome.verdict is Verdict.DROP
    assert outcome.notes[0].rule == "draining"
    packet, = outcome.send
    assert (packet.source, packet.destination) == (PROVIDER, PHONE)
    answer = message_from_bytes(packet.payload)
    assert (answer.status, answer.cseq, answer.cseq_method, answer.call_id) == (503, 7, "INVITE", "new")
    assert answer.text("via").endswith(";branch=z9hG4bK1;rport=5062;received=192.168.1.10")
    assert len(answer.all("via")) == 2
    assert answer.to_tag
    assert b"\r\nRetry-After: 60\r\n" in packet.payload


def test_a_call_from_outside(draining: Draining) -> None:
    """The answer comes from the outside endpoint that stands for the phone; without one, from the phone's."""
    for source, expected in ((PHONE, SHOWN), (PHONE._replace(port=1), PHONE._replace(port=1))):
        outcome = draining.judge(sip("INVITE", way=(PROVIDER, source)), "forward")
        assert outcome is not None
        assert (outcome.send[0].source, outcome.send[0].destination) == (expected, PROVIDER)


def test_a_call_by_another_outside_link() -> None:
    """The answer comes from what stands for the phone at the link that the call came by."""
    other = Endpoint("198.51.100.1", 5062)
    draining = Draining((), {PHONE: SHOWN, PHONE._replace(link="ppp0"): other}.get)
    outcome = draining.judge(sip("INVITE", way=(PROVIDER, PHONE)), "forward", "ppp0")
    assert outcome is not None
    assert outcome.send[0].source == other


def test_a_pbx_on_the_gateway(draining: Draining) -> None:
    """What is for the gateway itself is answered from its own address."""
    outcome = draining.judge(sip("INVITE", way=(PROVIDER, PHONE)), "input")
    assert outcome is not None
    assert outcome.send[0].source == PHONE


def test_retransmissions_and_the_ack(draining: Draining) -> None:
    """Each retransmission gets the same answer, and the ACK goes no further."""
    first, second = (draining.judge(sip("INVITE"), "forward") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.send == second.send
    ack = draining.judge(sip("ACK", tag=";tag=x"), "forward")
    assert ack is not None
    assert ack.verdict is Verdict.DROP
    assert not ack.send


@pytest.mark.parametrize("raw", [
    sip("INVITE", "running"), sip("INVITE", tag=";tag=2"), sip("ACK", "other"), sip("BYE"), sip("REGISTER"),
    sip("OPTIONS"), packet_bytes(Datagram(PHONE, PROVIDER, b"\r\n\r\n")), b"",
    packet_bytes(Datagram(PHONE, PROVIDER, b"INVITE x")),
], ids=range(9))
def test_all_else_is_the_engines(draining: Draining, raw: bytes) -> None:
    """Calls that run, re-INVITEs, other methods and what is no SIP are treated as ever."""
    assert draining.judge(raw, "forward") is None


def test_memory_is_bounded(draining: Draining) -> None:
    """Of many refused calls the oldest are forgotten."""
    for number in range(MOST_REFUSED + 1):
        draining.judge(sip("INVITE", f"call{number}"), "forward")
    assert draining.judge(sip("ACK", "call0"), "forward") is None
    assert draining.judge(sip("ACK", "call1"), "forward") is not None
