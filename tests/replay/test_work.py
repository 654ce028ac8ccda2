"""Work: the progress bar is for terminals."""

from __future__ import annotations

import io

from natfix.replay.work import Bar, Work


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar() -> None:
    """The bar grows, is not drawn at every step, and is wiped away."""
    file = Terminal()
    bar = Bar(file)
    for step in range(1000):
        bar.show(0.5, "reading")
        assert step > 0 or "50%" in file.getvalue()
    assert file.getvalue().count("[") < 10
    bar.close()
    assert file.getvalue().endswith("\r")


def test_nobody_else_does() -> None:
    """Into a file or a pipe nothing is written."""
    file = io.StringIO()
    bar = Bar(file)
    bar.show(0.5, "reading")
    bar.close()
    assert file.getvalue() == ""


def test_who_does_not_ask_is_not_told() -> None:
    """The plain one shows nothing and never stops."""
    work = Work()
    work.show(1.0, "reading")
    assert work.stops == 0
