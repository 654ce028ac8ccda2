"""Diffs: what was changed is marked to the character, with natfix's reasons; hostile text stays text."""

from __future__ import annotations

import time

from natfix.commands import Note
from natfix.replay.diff import Line, Piece, diff_of_payloads, diff_of_repair, lines_of
from natfix.replay.model import Repair

BEFORE = b"INVITE sip:bob SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10;rport\r\nTo: <sip:bob>\r\n\r\n"
AFTER = BEFORE.replace(b"192.168.1.10", b"203.0.113.1")
VIA = Note("via", "Via", "192.168.1.10", "203.0.113.1", "shown outside", "RFC 3261")


def repair(before: bytes, after: bytes, *notes: Note) -> Repair:
    """natfix replaced each note's old text, where it first stands."""
    spans = tuple((before.index(note.old.encode("latin-1")),) * 2 for note in notes)
    spans = tuple((start, start + len(note.old)) for (start, _), note in zip(spans, notes, strict=True))
    return Repair(before, after, notes, spans=spans)


def text_of(pieces: tuple[Piece, ...]) -> str:
    return "".join(f"[{text}]" if is_changed else text for text, is_changed in pieces)


def test_natfix_marks_what_it_replaced() -> None:
    """The changed characters are marked on both sides, with the reason; other lines are as they were."""
    lines = diff_of_repair(repair(BEFORE, AFTER, VIA))
    assert [line.is_changed for line in lines] == [False, True, False, False]
    assert text_of(lines[1].before) == "Via: SIP/2.0/UDP [192.168.1.10];rport"
    assert text_of(lines[1].after) == "Via: SIP/2.0/UDP [203.0.113.1];rport"
    assert lines[1].notes == (VIA,)
    assert text_of(lines[0].before) == text_of(lines[0].after) == "INVITE sip:bob SIP/2.0"


def test_several_changes_of_one_line() -> None:
    """A line has all its changes and reasons, in the order in which they stand."""
    host = Note("via", "Via", "10.0.0.1", "10.0.0.2")
    port = Note("rport", "Via", "rport", "rport=5060")
    (line,) = diff_of_repair(repair(b"Via: 10.0.0.1;rport;x", b"Via: 10.0.0.2;rport=5060;x", port, host))
    assert text_of(line.after) == "Via: [10.0.0.2];[rport=5060];x"
    assert line.notes == (host, port)


def test_lines_that_come_and_go() -> None:
    """A line that natfix takes out or puts in stands beside nothing."""
    gone = Note("sdp-rtcp", "a=rtcp", "a=rtcp:7\r\n", "")
    lines = diff_of_repair(repair(b"a=x\r\na=rtcp:7\r\na=y\r\n", b"a=x\r\na=y\r\n", gone))
    assert [text_of(line.before) for line in lines] == ["a=x", "[a=rtcp:7\n]a=y"]
    assert [text_of(line.after) for line in lines] == ["a=x", "a=y"]


def test_spans_that_do_not_fit_are_not_believed() -> None:
    """Where the edits do not lead to what natfix let go, the two payloads are compared."""
    broken = Repair(BEFORE, AFTER, (VIA,), spans=((3, 5),))
    lines = diff_of_repair(broken)
    assert text_of(lines[1].after) == "Via: SIP/2.0/UDP [203.0.113.1];rport"
    assert not any(line.notes for line in lines)


def test_what_others_changed_is_found() -> None:
    """Without edits the lines are compared, and within a line whole addresses."""
    lines = diff_of_payloads(BEFORE, AFTER.replace(b"To:", b"X: 1\r\nTo:"))
    assert [text_of(line.after) for line in lines if line.is_changed] == [
        "Via: SIP/2.0/UDP [203.0.113.1];rport", "[X: 1]"]
    assert not any(line.is_changed for line in diff_of_payloads(BEFORE, BEFORE))


def test_hostile_text_is_spelled_out() -> None:
    """Controls, NULs and marks that turn text around are shown as such; UTF-8 is read where it is that."""
    hostile = "A: \x00\x1b[1m\u202eABC\r\nB: Žofie\r\n".encode() + b"C: \xff\xfe\rD"
    assert lines_of(hostile) == ["A: \\x00\\x1b[1m\\u202eABC", "B: Žofie", "C: ÿþ\\rD"]
    lines = diff_of_payloads(hostile, hostile.replace(b"\x1b", b""))
    assert all(piece.text.replace("\n", "").isprintable() for line in lines for piece in line.before)


def test_large_messages_are_compared_in_short_time() -> None:
    """Neither thousands of lines nor thousands of characters on one take long."""
    begun = time.process_time()
    for hostile in (b"\n" * 60_000, b"a,b;" * 15_000, b"x" * 60_000, b"a\nb\n" * 190 + b"()" * 9999):
        lines = diff_of_payloads(hostile, hostile[::-1] + b"y")
        assert "".join(text_of(line.after) for line in lines)
    assert time.process_time() - begun < 5
    assert isinstance(lines[0], Line)
