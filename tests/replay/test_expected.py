"""Precision: in every capture and trace of the data folder exactly what expected.toml says is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from natfix.replay.reading import Input, NothingReadable
from natfix.replay.replay import Options, run
from tests import corpus
from tests.replay.symptoms.capture import check

TABLE = Path(__file__).with_name("expected.toml")
OWN = Path(__file__).parents[2] / "pcaps"
SUFFIXES = (".pcap", ".pcapng", ".cap")
LONGEST_LIST = 6        # packets of a finding that are compared


@cache
def table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())


def unreadable() -> set[str]:
    return {row["capture"] for row in table()["unreadable"]}


def captures() -> Iterator[Path]:
    """Yield all captures of the data folder, the traces of issue threads, and natfix's own captures."""
    for paths in (corpus.DATA.rglob("*"), OWN.glob("*")):
        yield from (path for path in sorted(paths) if path.suffix in SUFFIXES)
    yield from sorted((corpus.DATA / "issue-traces").glob("*.txt"))


def name(path: Path) -> str:
    root = OWN.parent if path.is_relative_to(OWN) else corpus.DATA
    return str(path.relative_to(root))


@pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)
@pytest.mark.parametrize("path", list(captures()), ids=name)
def test_findings(path: Path) -> None:
    """Every finding is expected and every expected one is found, with its packets."""
    if name(path) in unreadable():
        with pytest.raises(NothingReadable):
            run(Options((Input(str(path)),)))
        return
    found = run(Options((Input(str(path)),))).findings
    expected = [row for row in table()["finding"] if row["capture"] == name(path)]
    for finding in found:
        check(finding)
    shown = [(finding.code, [packet.number for packet in finding.packets[:LONGEST_LIST]])
             for finding in found]
    assert shown == [(row["code"], row["packets"]) for row in expected]


def test_every_row_has_its_capture_and_reason() -> None:
    """A row names a capture that is there, and says why it is right, by packet numbers."""
    if not corpus.is_there():
        pytest.skip(corpus.MISSING)
    names = {name(path) for path in captures()}
    for row in (*table()["finding"], *table()["healthy"]):
        assert row["capture"] in names
        assert re.search(r"packets? [0-9]", row["reason"].lower()), row
        assert len(row["reason"]) > 30
    assert unreadable() <= names


def test_the_captures_are_counted() -> None:
    """The table says of how many captures it speaks, and how many of them have no finding."""
    if not corpus.is_there():
        pytest.skip(corpus.MISSING)
    names = [name(path) for path in captures()]
    ill = {row["capture"] for row in table()["finding"]}
    assert len(names) == table()["counted"]["captures"]
    assert len(names) - len(ill) - len(unreadable()) == table()["counted"]["healthy"]
