"""Precision: in every capture and trace of the data folder exactly what expected.toml says is found."""

from __future__ import annotations

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


def captures() -> Iterator[Path]:
    """Yield all captures of the data folder, the traces of issue threads, and natfix's own captures."""
    for folder in (corpus.DATA, OWN):
        yield from (path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES)
    yield from sorted((corpus.DATA / "issue-traces").glob("*.txt"))


def name(path: Path) -> str:
    root = OWN.parent if path.is_relative_to(OWN) else corpus.DATA
    return str(path.relative_to(root))


@pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)
@pytest.mark.parametrize("path", list(captures()), ids=name)
def test_findings(path: Path) -> None:
    """Every finding is expected and every expected one is found, with its packets."""
    try:
        result = run(Options((Input(str(path)),)))
    except NothingReadable:
        pytest.skip("text without packets")
    found = [finding for finding in result.findings if finding.code in table()["codes"]]
    expected = [row for row in table()["finding"] if row["capture"] == name(path)]
    for finding in found:
        check(finding)
    shown = [(finding.code, [packet.number for packet in finding.packets[:LONGEST_LIST]])
             for finding in found]
    assert shown == [(row["code"], row["packets"]) for row in expected]


def test_every_row_has_its_capture_and_reason() -> None:
    """A row names a capture that is there, and says why it is right."""
    if not corpus.is_there():
        pytest.skip(corpus.MISSING)
    names = {name(path) for path in captures()}
    for row in table()["finding"]:
        assert row["capture"] in names
        assert row["code"] in table()["codes"]
        assert len(row["reason"]) > 30
