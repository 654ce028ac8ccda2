"""JSON: by its schema, stable, and about one call where that is asked for."""

from __future__ import annotations

import io
import json
from typing import Any

from natfix.replay.as_json import write_json
from natfix.replay.model import Fixed, PacketId
from natfix.replay.result import Result
from tests.replay.sip import article
from tests.replay.small import call, finding, result_of
from tests.schema import problems


def text_of(result: Result, call_id: str = "") -> str:
    file = io.StringIO()
    write_json(result, file, call_id)
    return file.getvalue()


def document_of(result: Result, call_id: str = "") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text_of(result, call_id))
    assert problems(document, "replay") == []
    return document


def test_a_call() -> None:
    """The document obeys the schema; edits say old, new, rule, reason and RFC."""
    document = document_of(result_of(*call()))
    (dialog,) = document["dialogs"]
    assert (dialog["method"], dialog["status"]) == ("INVITE", 200)
    assert (dialog["messages"], dialog["repeats"]) == (5, 1)
    first, again = document["messages"][:2]
    assert first["packet"] == 1
    edit = next(edit for edit in first["edits"] if edit["rule"] == "via")
    assert (edit["old"], edit["new"]) == ("192.168.1.10:5060", "203.0.113.1:5060")
    assert again["repeated"]
    assert {row["kind"] for row in document["mappings"]} == {"signalling", "media"}
    assert document["network"]["outside"] == "203.0.113.1"


def test_it_is_stable() -> None:
    """The same input gives the same bytes."""
    assert text_of(result_of(*call("1"), *call("2", number=6))) == text_of(
        result_of(*call("1"), *call("2", number=6)))


def test_one_call() -> None:
    """--call leaves one dialog, its messages, and its findings."""
    result = result_of(*call("1"), *call("2", number=6))
    result.findings = [finding("1"), finding("2"), finding("")]
    document = document_of(result, "2")
    assert [each["call_id"] for each in document["dialogs"]] == ["2"]
    assert {each["call_id"] for each in document["messages"]} == {"2"}
    assert [each["call_id"] for each in document["findings"]] == ["2"]


def test_findings() -> None:
    """A finding has all that the schema asks for; natfix cures it, does not, or partly."""
    result = result_of(*call())
    result.findings = [finding(fixed_by_natfix=fixed) for fixed in (Fixed.YES, Fixed.NO, Fixed.PARTLY)]
    document = document_of(result)
    assert [each["fixed_by_natfix"] for each in document["findings"]] == [True, False, "partly"]
    assert document["findings"][0]["severity"] == "breaks"


def test_masked_text() -> None:
    """Header-only records of masked hosts are messages without edits; the inside is the masked host."""
    document = document_of(result_of(*article()))
    assert document["network"]["inside"] == ["a.b.c.d"]
    assert [row["packets"] for row in document["messages"]] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_several_inputs_name_their_packets() -> None:
    """With several inputs a packet is "input:number"."""
    sightings = call()
    for each in sightings:
        each.packets = (PacketId(each.packet.number, "lan"),)
    document = document_of(result_of(*sightings))
    assert document["messages"][0]["packet"] == "lan:1"


def test_nothing() -> None:
    """A result without anything is a whole document, too."""
    document = document_of(result_of())
    assert document["messages"] == document["dialogs"] == document["mappings"] == []
