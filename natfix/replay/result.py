"""What a replay found: the contract between natfix.replay.replay and the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from natfix.replay.model import Context, Conversation, Finding, NetworkView
from natfix.replay.spool import Row, Spool, row_from_record


@dataclass(slots=True)
class Result:
    """What text, JSON, Mermaid, the report and the repaired capture are made of.

    ``input``          as in JSON: ``{"files": [{"name", "format", "packets", "sip", "start", "end",
                       "truncated"}], "packets", "sip", "start", "end", "truncated", "interrupted"}``; times
                       are seconds since 1970, 0.0 where the input has none.
    ``network``        inside, outside, vantage, and the sentences that say how that was found out.
    ``conversations``  those that are kept, in the order of their first packets: all of a small capture. Of a
                       large one those with findings come first, then the latest; ``left_out`` counts the
                       others, of which only rows are left.
    ``rows()``         every passage in the order of time, read from disk: for JSON's messages and for the
                       repaired capture. See :class:`natfix.replay.spool.Row`.
    ``dialogs()``      one JSON-able dict per conversation, likewise.
    ``mappings``       what natfix would hold: ``{"inside", "outside", "kind", "holder", "since", "until"}``;
                       ``until`` is None where it still held it at the end.
    ``findings``       sorted: what breaks first comes first.
    ``warnings``       sentences: what could not be read, what was left out.
    """

    input: dict[str, Any]
    network: NetworkView
    conversations: list[Conversation] = field(default_factory=list)
    mappings: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    context: Context | None = None              # streams, stations, ICMP errors, log lines
    stages: tuple[str, ...] = ()                # in path order, inside first, where there are several
    left_out: int = 0                           # conversations that are not among ``conversations``
    interrupted: bool = False                   # by Ctrl-C: what comes later was not read
    passages: Spool = field(default_factory=Spool)
    dialog_rows: Spool = field(default_factory=Spool)

    asked: str = ""                             # the Call-ID that was asked for, as it is shown
    only: str = ""                              # a Call-ID: rows() yields no other's

    def of_call(self, call_id: str) -> Result:
        """Return what there is of one call: its conversation, passages and findings."""
        return replace(
            self, only=call_id,
            conversations=[each for each in self.conversations if each.call_id == call_id],
            findings=[each for each in self.findings if each.call_id == call_id])

    def has_call(self, call_id: str) -> bool:
        """Tell whether any message or finding is of this call, those that are only on disk included."""
        known = (each.call_id for held in (self.conversations, self.findings) for each in held)
        return call_id in known or any(row.call_id == call_id for row in self.rows())

    def rows(self) -> Iterator[Row]:
        """Yield every passage, in the order of time."""
        rows = map(row_from_record, self.passages.read())
        return (row for row in rows if row.call_id == self.only) if self.only else rows

    def dialogs(self) -> Iterator[dict[str, Any]]:
        """Yield a summary of every conversation, in the order in which they were judged."""
        return (record[0] for record in self.dialog_rows.read())
