"""A result for a person at a terminal: what was read, what is wrong, then the calls. 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TextIO

from natfix.commands import Note
from natfix.replay.model import Direction, Finding, Fixed, Severity, Vantage
from natfix.replay.network import inside_names
from natfix.replay.result import Result
from natfix.replay.spool import Row
from natfix.replay.summaries import packet_ref

WIDTH = 80
MOST_CALLS = 50             # that are listed; --call and JSON show the others
DETAILED = 12               # calls or fewer: each message is shown
MOST_MESSAGES = 200         # of one call
MOST_MAPPINGS = 20
MOST_PACKETS = 12           # that a finding names
MOST_WARNINGS = 20

BOLD, RED, YELLOW, GREEN, DIM, PLAIN = "\033[1m", "\033[31m", "\033[33m", "\033[32m", "\033[2m", "\033[0m"
SEVERITIES = {
    Severity.BREAKS: ("breaks the call", RED), Severity.HURTS: ("hurts", YELLOW),
    Severity.WARNS: ("warning", YELLOW), Severity.INFORMS: ("note", DIM),
}
CURES = {
    Fixed.YES: "natfix on the gateway cures it.", Fixed.PARTLY: "natfix on the gateway cures a part of it.",
    Fixed.NO: "natfix on the gateway does not cure it.",
}
VANTAGES = {
    Vantage.INSIDE: "captured inside", Vantage.OUTSIDE: "captured outside",
    Vantage.BOTH: "captured on both sides", Vantage.ANY: "captured on all interfaces of the gateway",
    Vantage.UNKNOWN: "where it was captured is unknown",
}
ARROWS = {Direction.OUTWARD: "->", Direction.INWARD: "<-"}


def printable(text: str) -> str:
    """Return *text* with whatever a terminal might obey, or that turns text around, spelled out."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


class Page:
    """Lines of text, with colours where they are wanted; everything that is written becomes printable."""

    def __init__(self, file: TextIO, is_coloured: bool) -> None:
        self._file, self._is_coloured = file, is_coloured

    def line(self, text: str = "", colour: str = "", indent: int = 0) -> None:
        """Write one line, cut to the width."""
        text = printable(text)
        room = WIDTH - indent
        if len(text) > room:
            text = text[:room - 3] + "..."
        self._put(" " * indent + self._coloured(text, colour))

    def paragraph(self, text: str, indent: int = 0, hanging: int = 0, colour: str = "") -> None:
        """Write text over as many lines as it takes; line breaks in it stay, as commands have them."""
        for part in text.split("\n"):
            first, other = " " * indent, " " * (indent + hanging)
            for line in textwrap.wrap(printable(part), WIDTH, initial_indent=first, subsequent_indent=other,
                                      break_on_hyphens=False):
                self._put(self._coloured(line, colour))

    def _coloured(self, text: str, colour: str) -> str:
        return f"{colour}{text}{PLAIN}" if colour and self._is_coloured else text

    def _put(self, text: str) -> None:
        encoding = self._file.encoding or "utf-8"
        self._file.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def write_text(result: Result, file: TextIO, call_id: str = "", is_coloured: bool = False) -> None:
    """Write everything; with *call_id* only what is about that call."""
    page = Page(file, is_coloured)
    _write_input(page, result)
    _write_network(page, result)
    _write_findings(page, result, call_id)
    _write_calls(page, result, call_id)
    if not call_id:
        _write_mappings(page, result)
    _write_warnings(page, result)


def _write_input(page: Page, result: Result) -> None:
    for each in result.input["files"]:
        page.paragraph(f"{each['name']}: {each['format']}, {each['packets']:,} packets, {each['sip']:,} SIP "
                       f"messages", hanging=2, colour=BOLD)
    if result.input["end"]:
        seconds = result.input["end"] - result.input["start"]
        page.line(f"from {_date(result.input['start'])}, {_duration(seconds)}", indent=2)


def _write_network(page: Page, result: Result) -> None:
    network = result.network
    facts = [f"inside {', '.join(inside_names(network)) or 'unknown'}",
             f"outside address {network.outside or 'unknown'}", VANTAGES[network.vantage]]
    page.paragraph("; ".join(facts), 2, 2)
    for guess in network.guesses:
        page.paragraph(f"- {guess}", 2, 2, DIM)


def _write_findings(page: Page, result: Result, call_id: str) -> None:
    findings = [each for each in result.findings if not call_id or each.call_id == call_id]
    page.line()
    if not findings:
        page.line("Nothing wrong was found.", BOLD + GREEN)
        return
    page.line(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}", BOLD)
    for finding in findings:
        _write_finding(page, finding)


def _write_finding(page: Page, finding: Finding) -> None:
    what, colour = SEVERITIES[finding.severity]
    page.line()
    page.paragraph(f"{finding.code} {finding.title}", hanging=4, colour=BOLD + colour)
    packets = [str(packet_ref(packet)) for packet in finding.packets]
    shown = ", ".join(packets[:MOST_PACKETS]) + (" ..." if len(packets) > MOST_PACKETS else "")
    about = f"; call {finding.call_id}" if finding.call_id else ""
    page.paragraph(f"{what}; packets {shown}{about}", 4, 2, DIM)
    for name, text in (("Seen", finding.evidence), ("Cause", finding.cause), ("Where", finding.where),
                       ("Remedy", finding.remedy)):
        if text:
            page.paragraph(f"{name}: {text}", 4, 2)
    page.paragraph(CURES[finding.fixed_by_natfix], 4, 2)


def _write_calls(page: Page, result: Result, call_id: str) -> None:
    dialogs = [each for each in result.dialogs() if not call_id or each["call_id"] == call_id]
    dialogs.sort(key=lambda each: (each["start"], each["call_id"]))
    page.line()
    if not dialogs:
        page.line("There is no such call." if call_id else "No SIP dialog was seen.", BOLD)
        if not call_id:
            _write_records(page, result)
        return
    page.line(f"{len(dialogs):,} dialog{'s' if len(dialogs) > 1 else ''}", BOLD)
    wanted = {each["call_id"] for each in dialogs} if len(dialogs) <= DETAILED else set()
    rows = _rows_of(result, wanted)
    for dialog in dialogs[:MOST_CALLS]:
        _write_dialog(page, dialog, rows.get(dialog["call_id"], []))
    if len(dialogs) > MOST_CALLS:
        page.paragraph(f"... and {len(dialogs) - MOST_CALLS:,} more; --call CALL-ID or --format json shows "
                       "them")


def _write_records(page: Page, result: Result) -> None:
    """Without dialogs there may be packets of which only the headers are known."""
    for row in islice(result.rows(), MOST_MESSAGES):
        numbers = ", ".join(str(packet_ref(packet)) for packet in row.packets)
        page.line(f"{numbers:>14} {row.seen_source} -> {row.seen_destination} {row.summary}", indent=2)


def _rows_of(result: Result, wanted: set[str]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {call_id: [] for call_id in wanted}
    if wanted:
        for row in result.rows():
            if row.call_id in wanted and len(rows[row.call_id]) <= MOST_MESSAGES:
                rows[row.call_id].append(row)
    return rows


def _write_dialog(page: Page, dialog: dict[str, Any], rows: list[Row]) -> None:
    codes = f"  {' '.join(dialog['findings'])}" if dialog["findings"] else ""
    outcome = dialog["status"] or "no answer"
    page.line()
    page.line(f"{dialog['method']} {_name(dialog['from'])} to {_name(dialog['to'])}: {outcome}, "
              f"{_duration(dialog['end'] - dialog['start'])}{codes}", BOLD, 2)
    page.line(f"Call-ID {dialog['call_id']}", DIM, 4)
    for row in rows[:MOST_MESSAGES]:
        _write_message(page, row, dialog["start"])
    if len(rows) > MOST_MESSAGES:
        page.line("... and more; --format json shows them", indent=4)
    for stream in dialog["streams"]:
        page.line(f"{stream['kind']} {stream['source']} -> {stream['destination']}: {stream['packets']:,} "
                  f"packets, {_duration(stream['end'] - stream['start'])}", indent=4)


def _write_message(page: Page, row: Row, start: float) -> None:
    number = str(packet_ref(row.packets[0]))
    arrow = ARROWS.get(row.direction, "--")
    again = " (again)" if row.is_repeat else ""
    page.line(f"{number:>6} {row.time - start:8.3f} {arrow} {row.summary}{again}", indent=2)
    changes = "; ".join(_changes(row.edits))
    if changes and not row.is_repeat:
        page.paragraph(f"natfix: {changes}", 20, 2, GREEN)
    if row.dropped:
        page.paragraph(f"natfix would not let it through: {row.dropped}", 20, 2, YELLOW)


def _changes(edits: Iterable[Note]) -> Iterator[str]:
    """Say what changed; headers in which the same text did are named together."""
    headers: dict[tuple[str, str], list[str]] = {}
    for note in edits:
        headers.setdefault((note.old, note.new), []).append(note.header)
    for (old, new), names in headers.items():
        yield f"{', '.join(dict.fromkeys(names))} {old} -> {new}" if new else f"{names[0]} without {old}"


def _write_mappings(page: Page, result: Result) -> None:
    if not result.mappings:
        return
    page.line()
    page.line(f"natfix would have held {len(result.mappings):,} mappings", BOLD)
    for row in result.mappings[:MOST_MAPPINGS]:
        until = _duration(row["until"] - row["since"]) if row["until"] is not None else "until the end"
        page.line(f"{row['kind']:10} {row['inside']} as {row['outside']}, {until}", indent=2)
    if len(result.mappings) > MOST_MAPPINGS:
        page.line("... and more; --format json shows them", indent=2)


def _write_warnings(page: Page, result: Result) -> None:
    if result.warnings:
        page.line()
    for warning in result.warnings[:MOST_WARNINGS]:
        page.paragraph(f"Note: {warning}", hanging=2, colour=YELLOW)


def _name(header: str) -> str:
    """Return the user part of a From or To, or what else names a party there."""
    uri = header.partition("<")[2].partition(">")[0] or header.partition(";")[0]
    address = uri.partition(":")[2] or uri
    return address.partition("@")[0] or "somebody"


def _date(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.3f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
