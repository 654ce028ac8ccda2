"""Tables: aligned, one line a row, and harmless whatever a stranger wrote."""

from __future__ import annotations

from typing import Any

import pytest

from natfix.tables import MAX_WIDTH, duration, printable, table


def test_columns_are_aligned() -> None:
    """Text is flush left, numbers are flush right, and no line ends in spaces."""
    rows = [("100", 7, "short"), ("a longer name", 1234, "")]
    assert table(("FROM", "PACKETS", "NOTE"), rows, numbers=("PACKETS",)).splitlines() == [
        "FROM           PACKETS  NOTE",
        "100                  7  short",
        "a longer name     1234",
    ]


def test_no_rows_is_the_heading() -> None:
    """A table without rows still says what it would show."""
    assert table(("CALL", "STATE"), []) == "CALL  STATE"


def test_long_cells_are_cut_but_the_last_is_not() -> None:
    """A hostile name cannot push the other columns away; the last column may be as long as it likes."""
    lines = table(("NAME", "TEXT"), [("x" * 500, "y" * 500)]).splitlines()
    assert lines[1] == "x" * (MAX_WIDTH - 3) + "...  " + "y" * 500


@pytest.mark.parametrize(("value", "text"), [
    ("\x1b[2Jgone", "?[2Jgone"),
    ("two\nlines", "two?lines"),
    ("\u202eright to left", "?right to left"),
    ("Müller", "Müller"),
    (None, ""),
    (5, "5"),
])
def test_terminal_is_safe(value: Any, text: str) -> None:
    """Escape sequences, line ends and text direction marks of strangers are taken out."""
    assert printable(value) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (-5, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"),
    (86399, "23h59m"), (86400, "1d00h"), (10 * 86400 + 7200, "10d02h"),
])
def test_durations(seconds: float, text: str) -> None:
    """Lengths of time keep the two units that matter."""
    assert duration(seconds) == text
