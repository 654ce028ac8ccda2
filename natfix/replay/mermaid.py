"""Calls as Mermaid sequence diagrams, fenced as tickets and README files take them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TextIO

from natfix.address import Endpoint
from natfix.replay.as_text import printable
from natfix.replay.model import Direction, Finding
from natfix.replay.result import Result
from natfix.replay.spool import Row

MOST_CALLS = 50
MOST_MESSAGES = 200         # of one call; Mermaid gives up on much more
MOST_TEXT = 120             # characters of a label
# Whatever has a meaning in Mermaid, HTML or Markdown; "end" ends a block wherever it stands.
_END = re.compile(r"\bend\b", re.I)
ESCAPED = {ord(each): f"#{ord(each)};" for each in "#;<>&\"'`%{}|\\"}


def write_mermaid(result: Result, file: TextIO, call_id: str = "") -> None:
    """Write a diagram per call; with *call_id* that one."""
    wanted = [call_id] if call_id else [
        dialog["call_id"] for dialog in sorted(result.dialogs(), key=lambda each: each["start"])][:MOST_CALLS]
    rows: dict[str, list[Row]] = {each: [] for each in wanted}
    for row in result.rows():
        if row.call_id in rows and len(rows[row.call_id]) < MOST_MESSAGES:
            rows[row.call_id].append(row)
    for each in wanted:
        if rows[each]:
            findings = [finding for finding in result.findings if finding.call_id == each]
            file.write("\n".join(_diagram(rows[each], findings)) + "\n")


def _diagram(rows: list[Row], findings: Iterable[Finding]) -> list[str]:
    names = _participants(rows)
    lines = ["```mermaid", "sequenceDiagram"]
    lines += [f"    participant {name} as {label(str(host))}" for host, name in names.items()]
    for row in rows:
        source, destination = (names[end.host] for end in _ends(row))
        dashed = "" if row.summary[:1].isalpha() else "-"
        lines.append(f"    {source}{dashed}->>{destination}: {label(row.summary)}")
        changes = ", ".join(dict.fromkeys(note.header for note in row.edits))
        if changes and not row.is_repeat:
            lines.append(f"    Note over {source},{destination}: natfix changes {label(changes)}")
    ends = [*names.values()]
    over = ends[0] if len(ends) == 1 else f"{ends[0]},{ends[-1]}"
    lines += [f"    Note over {over}: {label(f'{each.code} {each.title}')}" for each in findings]
    return [*lines, "```"]


def _participants(rows: Iterable[Row]) -> dict[str, str]:
    """Return a name for each host, in the order of their appearance."""
    names: dict[str, str] = {}
    for row in rows:
        for end in _ends(row):
            names.setdefault(end.host, f"p{len(names) + 1}")
    return names


def _ends(row: Row) -> tuple[Endpoint, Endpoint]:
    """Return who sent and who receives a message, whatever NAT is between them."""
    is_inward = row.direction is Direction.INWARD and row.destination is not None and not row.dropped
    return row.seen_source, row.destination if is_inward and row.destination else row.seen_destination


def label(text: str) -> str:
    """Return *text* as a label: one line, nothing in it that Mermaid or what shows it would obey."""
    text = printable(text)
    if len(text) > MOST_TEXT:
        text = text[:MOST_TEXT] + "..."
    return _END.sub("e#110;d", text.translate(ESCAPED))
