"""Colours where they are wanted and can be had, the same plain text everywhere else."""

from __future__ import annotations

import io
import re
import sys

import pytest

from natfix.terminal import fitted, painter, screen

TEXT = "FROM  TO  STATE\nsip:a@192.168.1.10:5060  sip:b  confirmed\n    ! ONE-WAY: nothing [bold]x[/bold]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def test_a_terminal_gets_colours(terminal: Terminal) -> None:
    """With rich installed the text is coloured, and is otherwise the same, markup of strangers included."""
    pytest.importorskip("rich", reason="rich is not installed: pip install natfix[ui]")
    painted = painter(terminal)(TEXT)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == TEXT


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_declined(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str,
) -> None:
    """NO_COLOR and a dumb terminal mean plain text."""
    monkeypatch.setenv(name, value)
    assert painter(terminal)(TEXT) == TEXT


def test_a_file_gets_plain_text(terminal: Terminal) -> None:
    """What is no terminal is never coloured."""
    assert painter(io.StringIO())(TEXT) == TEXT


def test_without_rich_all_is_plain(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is optional."""
    for name in ("rich", "rich.console", "rich.text"):
        monkeypatch.setitem(sys.modules, name, None)
    assert painter(terminal)(TEXT) == TEXT


def test_a_screen_holds_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long lines are cut, and of too many lines the last one says how many there are."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    shown = fitted("\n".join(f"line {number} " + "x" * 50 for number in range(10))).split("\n")
    assert [len(line) for line in shown] == [20] * 4
    assert shown[-1].startswith("... 7 lines more")
    assert fitted("short") == "short"


def test_a_screen_is_drawn_over_the_last() -> None:
    """Only the first one clears all; each line clears what was longer before, and the end what was lower."""
    assert screen("a\nb", is_first=False) == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    assert screen("a", is_first=True).startswith("\x1b[2J\x1b[H")
