"""Mermaid: a diagram per call, in which nothing of the capture is obeyed."""

from __future__ import annotations

import io
import re

from natfix.replay.mermaid import label, write_mermaid
from natfix.replay.result import Result
from tests.replay.small import call, finding, result_of


def text_of(result: Result, call_id: str = "") -> str:
    file = io.StringIO()
    write_mermaid(result, file, call_id)
    return file.getvalue()


def test_a_call() -> None:
    """Requests are full and responses dashed arrows; natfix's changes and findings are notes."""
    result = result_of(*call())
    result.findings = [finding()]
    text = text_of(result)
    assert text.startswith("```mermaid\nsequenceDiagram\n    participant p1 as 192.168.1.10\n")
    assert "p1->>p2: INVITE sip:bob@example.com" in text
    assert "p2-->>p1: 200 Reason (INVITE)" in text
    assert "Note over p1,p2: natfix changes Via, Contact" in text
    assert "Note over p1,p2: D01 One-way audio" in text
    assert text.endswith("```\n")


def test_one_diagram_per_call() -> None:
    """Each call has a diagram of its own; --call leaves one."""
    result = result_of(*call("1"), *call("2", number=6))
    assert text_of(result).count("sequenceDiagram") == 2
    assert text_of(result, "2").count("sequenceDiagram") == 1
    assert text_of(result, "3") == ""


def test_labels() -> None:
    """What means something to Mermaid, HTML or Markdown is escaped; a label is one short line."""
    escaped = label("a;b#c<script>`%%\nend\x1b")
    assert re.fullmatch(r"(?:[ -~])+", escaped)
    assert not re.search(r"[<>`%\n\x1b]|;(?<!#\d\d;)(?<!#\d\d\d;)|\bend\b", escaped)
    assert label("send") == "send"
    assert len(label("x" * 10_000)) < 200
