"""Decisions as text and JSON: one line per note, printable, without credentials, only when asked."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import pytest

from natfix.commands import Note, Outcome
from natfix.journal import RING, Decision, Journal, line_from_note, lines_from_decision, set_up_log, time_text

EDIT = Note("contact", "Contact", "192.168.1.2:5060", "203.0.113.1:5060", "the UA's own address", "RFC 3261")


def decision(*notes: Note, summary: str = "INVITE sip:bob@example.com") -> Decision:
    outcome = Outcome(notes=list(notes), summary=summary, call_id="c1")
    return Decision(1_700_000_000.25, "forward lan0 wan0", outcome, False)


def test_entry_holds_the_whole_reason() -> None:
    """A decision as JSON has time, place, message, verdict and every note; what is absent is left out."""
    journal = Journal()
    journal.record(decision(EDIT, Note("sdp", reason="nothing to change")))
    assert journal.entries() == [{
        "at": "2023-11-14T22:13:20.250Z", "where": "forward lan0 wan0",
        "summary": "INVITE sip:bob@example.com", "call_id": "c1", "verdict": "accept", "changed": False,
        "notes": [
            {"rule": "contact", "header": "Contact", "old": "192.168.1.2:5060", "new": "203.0.113.1:5060",
             "reason": "the UA's own address", "rfc": "RFC 3261"},
            {"rule": "sdp", "reason": "nothing to change"},
        ],
    }]


def test_ring_keeps_the_last() -> None:
    """The ring holds the last RING decisions, oldest first, and gives as many as are asked for."""
    journal = Journal()
    for number in range(RING + 50):
        journal.record(decision(summary=f"OPTIONS {number}"))
    assert len(journal.entries()) == RING
    last = [entry["summary"] for entry in journal.entries(2)]
    assert last == [f"OPTIONS {RING + 48}", f"OPTIONS {RING + 49}"]
    assert journal.entries(0) == []


def test_silence_is_not_kept() -> None:
    """A keep-alive without summary or notes takes no place in the ring."""
    journal = Journal()
    journal.record(decision(summary=""))
    assert journal.entries() == []


def test_one_line_per_note_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """At level debug each note is one line; at info nothing is formatted or written."""
    journal = Journal()
    with caplog.at_level(logging.INFO, "natfix"):
        journal.record(decision(EDIT))
    assert caplog.text == ""
    with caplog.at_level(logging.DEBUG, "natfix"):
        journal.record(decision(EDIT, Note("sdp", reason="nothing to change")))
    assert len(caplog.records) == 2
    assert "'192.168.1.2:5060' -> '203.0.113.1:5060'" in caplog.records[0].getMessage()


def test_message_without_notes_is_one_line() -> None:
    """A message that needed nothing says so."""
    assert list(lines_from_decision(decision())) == ["INVITE sip:bob@example.com [c1]: untouched"]


def test_hostile_text_cannot_steer_a_terminal() -> None:
    """Escape sequences and line ends in SIP text are shown, not sent."""
    note = Note("contact", "Contact", "a\x1b[2Jb", "c\r\nd", "reason\nwith\x9b line")
    for line in (line_from_note(note), *lines_from_decision(decision(note, summary="INVITE \x1b]0;x\x07"))):
        assert line.isprintable()


def test_credentials_are_never_shown() -> None:
    """A note about a header with credentials tells the rule, not the value, in text and in JSON."""
    note = Note("uri", "Proxy-Authorization", 'response="6629fae4"', "x", "left alone")
    journal = Journal()
    journal.record(decision(note))
    assert "6629fae4" not in line_from_note(note) + str(journal.entries())


def test_time_text_is_utc_with_milliseconds() -> None:
    """Times are RFC 3339 in UTC."""
    assert time_text(0.0) == "1970-01-01T00:00:00.000Z"


def test_log_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """set_up_log writes to stderr from the level asked for on, once however often it is called."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log = logging.getLogger("natfix")
    before = log.handlers[:], log.propagate, log.level
    try:
        set_up_log("info")
        set_up_log("info")
        log.info("natfix: ready")
        log.debug("hidden")
    finally:
        log.handlers[:], log.propagate = before[:2]
        log.setLevel(before[2])
    assert stream.getvalue().splitlines()[0].endswith("INFO natfix: ready")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_log_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stderr that takes nothing (ENOSPC) raises nothing, whatever is logged."""
    log = logging.getLogger("natfix")
    before = log.handlers[:], log.propagate, log.level
    full = open("/dev/full", "w", buffering=1)      # noqa: SIM115 (closing it fails, too)
    monkeypatch.setattr(sys, "stderr", full)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    try:
        set_up_log("info")
        with pytest.raises(OSError, match="No space left"):
            print("it is full", file=full)
        log.error("natfix: a line that is lost")
    finally:
        log.handlers[:], log.propagate = before[:2]
        log.setLevel(before[2])
        with contextlib.suppress(OSError):
            full.close()


def test_a_limit_is_an_alarm_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """An empty port pool is said in one sentence with the cure, not once per message."""
    journal = Journal()
    full = Note("limit", "m=audio", reason="every port of [media] ports is in use")
    for at in (1000.0, 1001.0, 1059.0, 1061.0):
        journal.record(Decision(at, "forward lan0 wan0", Outcome(notes=[full]), False))
    assert len(caplog.records) == 2
    assert "every port of [media] ports is in use" in caplog.text
    assert "natfix.toml" in caplog.text


def test_a_rate_is_an_alarm_that_says_what_becomes_of_the_packets(caplog: pytest.LogCaptureFixture) -> None:
    """Who floods is named, and what the operator can do."""
    note = Note("rate", reason="[limits] requests_per_peer is reached by 203.0.113.9")
    Journal().record(Decision(1000.0, "", Outcome(notes=[note]), dropped=True))
    (record,) = caplog.records
    assert "203.0.113.9" in record.message
    assert "dropped" in record.message
    assert "[[peer]]" in record.message
