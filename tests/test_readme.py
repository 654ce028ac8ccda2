"""What README.md promises is backed by tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.lab.host import PROJECT

SECTION = "What happens to calls when ..."
NAMED = re.compile(r"`((?:tests|tools)/[^`]+)`")


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of the section's table, without its head."""
    section = text.partition(f"\n## {SECTION}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


ROWS = rows((PROJECT / "README.md").read_text())


def test_the_table_is_there() -> None:
    """It has its three columns, and a line for each event that the issue names."""
    assert len(ROWS) > 25
    assert {len(row) for row in ROWS} == {3}
    events = " ".join(row[0] for row in ROWS)
    for word in ("killed", "hangs", "upgraded", "flush ruleset", "outside address", "a day in the life"):
        assert word in events


@pytest.mark.parametrize("row", ROWS, ids=[re.sub(r"\W+", "-", row[0])[:40] for row in ROWS])
def test_each_line_names_tests_that_exist(row: list[str]) -> None:
    """The last column has at least one file, and each is there and has tests, or is a tool."""
    named = NAMED.findall(row[2])
    assert named, row
    for path in named:
        assert (PROJECT / path).is_file(), path
        assert path.startswith("tools/") or "\ndef test_" in (PROJECT / path).read_text(), path
