"""A result as JSON, by the schema natfix/schemas/replay.json; large ones are written row by row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from natfix.commands import Note
from natfix.replay.model import Finding, Fixed
from natfix.replay.network import inside_names
from natfix.replay.result import Result
from natfix.replay.spool import Row
from natfix.replay.summaries import packet_ref

SCHEMA_VERSION = 1
_FIXED: dict[Fixed, bool | str] = {Fixed.YES: True, Fixed.NO: False, Fixed.PARTLY: "partly"}


def write_json(result: Result, file: TextIO, call_id: str = "") -> None:
    """Write one document; with *call_id* only what is about that call."""
    parts: tuple[tuple[str, Any], ...] = (
        ("schema_version", SCHEMA_VERSION),
        ("input", result.input),
        ("network", _network(result)),
        ("dialogs", _about(result.dialogs(), call_id)),
        ("messages", _about(map(message_row, result.rows()), call_id)),
        ("mappings", (_without_none(row) for row in result.mappings)),
        ("findings", _about(map(finding_row, result.findings), call_id)),
        ("warnings", result.warnings),
    )
    file.write("{")
    for number, (name, value) in enumerate(parts):
        file.write(f"{',' if number else ''}\n  {json.dumps(name)}: ")
        if isinstance(value, Iterator):
            _write_rows(value, file)
        else:
            file.write(_text(value))
    file.write("\n}\n")


def _write_rows(rows: Iterable[Any], file: TextIO) -> None:
    file.write("[")
    number = -1
    for number, row in enumerate(rows):
        file.write(f"{',' if number else ''}\n    {_text(row)}")
    file.write("\n  ]" if number >= 0 else "]")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)     # a capture may hold anything; a terminal may show this


def _about(rows: Iterable[dict[str, Any]], call_id: str) -> Iterator[dict[str, Any]]:
    return (row for row in rows if not call_id or row["call_id"] == call_id)


def _network(result: Result) -> dict[str, Any]:
    network = result.network
    return {
        "inside": inside_names(network), "outside": network.outside, "vantage": str(network.vantage),
        "stages": [*result.stages], "guesses": network.guesses,
    }


def message_row(row: Row) -> dict[str, Any]:
    """Return a passage as JSON shows it among ``messages``."""
    shown: dict[str, Any] = {
        "packet": packet_ref(row.packets[0]),
        "packets": [packet_ref(packet) for packet in row.packets],
        "time": row.time,
        "summary": row.summary,
        "call_id": row.call_id,
        "direction": str(row.direction),
        "transport": row.transport,
        "source": str(row.seen_source),
        "destination": str(row.seen_destination),
        "edits": [_note(note) for note in row.edits],
        "left_alone": [_note(note) for note in row.left_alone],
    }
    if row.source is not None and row.destination is not None:
        shown["fixed_source"], shown["fixed_destination"] = str(row.source), str(row.destination)
    if row.dropped:
        shown["dropped"] = row.dropped
    if row.is_repeat:
        shown["repeated"] = True
    return shown


def _note(note: Note) -> dict[str, str]:
    return {"header": note.header, "old": note.old, "new": note.new, "rule": note.rule, "reason": note.reason,
            "rfc": note.rfc}


def finding_row(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON shows it."""
    return {
        "code": finding.code, "severity": finding.severity.name.lower(), "title": finding.title,
        "call_id": finding.call_id, "packets": [packet_ref(packet) for packet in finding.packets],
        "evidence": finding.evidence, "cause": finding.cause, "where": finding.where,
        "remedy": finding.remedy, "fixed_by_natfix": _FIXED[finding.fixed_by_natfix],
        "time": finding.time,
    }


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
