"""Per-UA statistics: who was seen when, messages, errors, challenges, retransmissions."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.agents import MOST_AGENTS, Agents
from natfix.commands import Outcome, Treated
from natfix.journal import Decision
from natfix.packet import UDP
from natfix.segment import TCP
from natfix.show import uas_text
from tests.schema import problems

PHONE, REGISTRAR = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.20", 5060)
OUTSIDE = ("wan0",)


def saw(agents: Agents, source: Endpoint, destination: Endpoint, line: str, at: float = 0.0,
        payload: bytes = b"", protocol: int = UDP) -> None:
    where = "forward lan0 wan0" if source.host.startswith("192.") else "forward wan0 lan0"
    octets = payload or f"{line}\r\nUser-Agent: Unit/1\r\n\r\n".encode()
    treated = Treated("c1", protocol, source, destination, octets, source, destination, octets)
    agents.on_decision(Decision(at, where, Outcome(treated=[treated]), False))


def test_a_registration_and_an_error() -> None:
    """Challenges are apart from errors, and both count for who sent and for who was sent them."""
    agents = Agents()
    lines = ("REGISTER sip:x SIP/2.0", "SIP/2.0 401 No", "REGISTER sip:y SIP/2.0", "SIP/2.0 403 No")
    for at, line in enumerate(lines):
        ends = (PHONE, REGISTRAR) if line.startswith("R") else (REGISTRAR, PHONE)
        saw(agents, *ends, line, float(at))
    registrar, phone = agents.rows(OUTSIDE, 10.0)
    assert (phone["address"], phone["side"], registrar["side"]) == (str(PHONE), "inside", "outside")
    for row in (phone, registrar):
        assert (row["messages"], row["errors"], row["challenges"], row["user_agent"]) == (2, 1, 1, "Unit/1")
    assert (phone["last_seen"], registrar["last_seen"]) == (8.0, 7.0)
    assert problems({"schema_version": 1, "uas": [phone, registrar]}, "uas") == []


def test_retransmissions() -> None:
    """The same bytes to the same place within 32 s are one; elsewhere, or later, they are not."""
    agents = Agents()
    for at, destination in ((0.0, REGISTRAR), (0.5, REGISTRAR), (1.0, PHONE), (40.0, REGISTRAR)):
        saw(agents, Endpoint("192.168.1.11", 5060), destination, "OPTIONS sip:x", at)
    row, = agents.rows(OUTSIDE, 40.0)
    assert (row["messages"], row["retransmissions"]) == (4, 1)


def test_a_stream_repeats_no_messages() -> None:
    """Over TCP the same request twice is two requests."""
    agents = Agents()
    for _ in range(2):
        saw(agents, PHONE, REGISTRAR, "OPTIONS sip:x SIP/2.0", protocol=TCP)
    row, = agents.rows(OUTSIDE, 0.0)
    assert (row["messages"], row["retransmissions"]) == (2, 0)


def test_scanners_push_out_only_the_quietest() -> None:
    """There are MOST_AGENTS at most, and the one that was quiet longest goes."""
    agents = Agents()
    saw(agents, PHONE, REGISTRAR, "OPTIONS sip:x")
    for number in range(MOST_AGENTS - 1):
        saw(agents, Endpoint("203.0.113.9", 1024 + number), REGISTRAR, "OPTIONS sip:x")
    saw(agents, PHONE, REGISTRAR, "OPTIONS sip:y")
    saw(agents, Endpoint("203.0.113.10", 5060), REGISTRAR, "OPTIONS sip:x")
    addresses = {row["address"] for row in agents.rows(OUTSIDE, 0.0)}
    assert {str(PHONE), "203.0.113.10:5060"} <= addresses
    assert len(agents._agents) == MOST_AGENTS
    assert Endpoint("203.0.113.9", 1024) not in agents._agents


def test_hostile_names_are_harmless() -> None:
    """A User-Agent with escape sequences, or of 10 kB, is cut and printed without them."""
    agents = Agents()
    payload = b"OPTIONS sip:x SIP/2.0\r\nuser-agent:\x1b[2J\x9b" + b"x" * 10_000 + b"\r\n\r\n"
    saw(agents, PHONE, REGISTRAR, "OPTIONS sip:\x1b]0;x\x07" + "y" * 10_000, payload=payload)
    text = uas_text({"uas": agents.rows(OUTSIDE, 0.0)})
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000
    assert uas_text({"uas": []}) == "nobody has sent SIP yet"


def test_what_is_no_message_is_not_counted() -> None:
    """Reports, and packets in which natfix did not read SIP, are no UA's messages."""
    agents = Agents()
    agents.on_decision(Decision(0.0, "", Outcome(), False))
    agents.on_decision(Decision(0.0, "forward lan0 wan0", Outcome(), False, b"\x45" * 60))
    assert agents.rows(OUTSIDE, 0.0) == []
