"""Text for people: what is wrong first, 80 columns, nothing in it that a terminal would obey."""

from __future__ import annotations

import io
import re

import pytest

from natfix.replay.as_text import BOLD, RED, WIDTH, printable, write_text
from natfix.replay.result import Result
from tests.replay.sip import article
from tests.replay.small import call, finding, result_of

HOSTILE = "\x1b]0;title\x07\x9b31m‮\x00evil\nline"


def text_of(result: Result, call_id: str = "", is_coloured: bool = False) -> str:
    file = io.StringIO()
    write_text(result, file, call_id, is_coloured)
    return file.getvalue()


def test_a_healthy_call() -> None:
    """What was read, the network with its guesses, and the messages with natfix's changes."""
    text = text_of(result_of(*call()))
    assert text.startswith("call.pcap: pcap, 12 packets, 5 SIP messages\n")
    assert "inside 192.168.1.0/24; outside address 203.0.113.1; captured inside" in text
    assert "INVITE alice to bob: 200, 60.0 s" in text
    assert "Via, Contact 192.168.1.10:5060 -> 203.0.113.1:5060" in " ".join(text.split())
    assert "(again)" in text
    assert "signalling 192.168.1.10:5060 as 203.0.113.1:5060" in text


def test_findings_come_first() -> None:
    """Findings stand before the calls, with evidence, cause, place, remedy, and whether natfix cures it."""
    result = result_of(*call())
    result.findings = [finding()]
    text = text_of(result)
    assert text.index("D01 One-way audio") < text.index("INVITE alice")
    for part in ("breaks the call; packets 1, 3; call 1", "Seen: packet 1", "Cause:", "Where:", "Remedy:",
                 "natfix on the gateway cures it."):
        assert part in text


def test_one_call() -> None:
    """--call shows one call and its findings; an unknown one is said to be unknown."""
    result = result_of(*call("1"), *call("2", number=6))
    result.findings = [finding("1"), finding("2", "D05")]
    text = text_of(result, "2")
    assert "D05" in text
    assert "D01" not in text
    assert "Call-ID 1" not in text
    assert "no such call" in text_of(result, "3")


def test_records() -> None:
    """Packets of which only the headers are known are listed, and masked hosts are the inside."""
    text = text_of(result_of(*article()))
    assert "inside a.b.c.d; outside address n.n.n.n" in text
    assert "1, 2, 3, 4 a.b.c.d:5060 -> w.x.y.z:5060 UDP, 502 octets, header only" in text


def test_many_calls_are_one_line_each() -> None:
    """Of many calls the messages are left out, and of very many some calls."""
    sightings = [each for number in range(60) for each in call(str(number), number=5 * number + 1)]
    text = text_of(result_of(*sightings))
    assert text.count("Call-ID ") == 50
    assert "ACK" not in text
    assert "and 10 more" in text


@pytest.mark.parametrize("is_coloured", [True, False])
def test_hostile_text(is_coloured: bool) -> None:
    """What a capture says reaches the terminal as letters, within 80 columns, whatever it is."""
    result = result_of(*call())
    result.findings = [finding(title=HOSTILE * 9, evidence=HOSTILE, call_id=HOSTILE, remedy="x" * 300)]
    result.warnings = [HOSTILE]
    result.network.guesses = [HOSTILE]
    text = text_of(result, is_coloured=is_coloured)
    assert (BOLD + RED in text) is is_coloured
    plain = re.sub(r"\033\[[0-9]*m", "", text) if is_coloured else text
    assert all(line.isprintable() for line in plain.split("\n"))
    assert max(map(len, plain.split("\n"))) <= WIDTH


def test_printable() -> None:
    """Printable text stays; escape sequences, bidirectional marks and line ends are spelled out."""
    assert printable("Žluťoučký kůň") == "Žluťoučký kůň"
    assert printable("\x1b[31m\u202e\n") == "\\x1b[31m\\u202e\\n"


def test_any_encoding() -> None:
    """A terminal that knows ASCII only is not sent anything else."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    result = result_of(*call())
    result.warnings = ["ž"]
    write_text(result, file)
    file.seek(0)
    assert "\\u017e" in file.read()
