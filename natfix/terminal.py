"""Where answers are printed: a terminal gets colours where the library rich is there, all else plain text.

What is printed is the same text either way, so that what is seen on a terminal can be searched for with grep.
Text of strangers is harmless before it comes here (:mod:`natfix.tables`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TextIO

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
WHOLE = "\x1b[2J"       # before the first screen

# What stands out, as rich's styles; later ones win.
STYLES = (
    (r"^[A-Z][A-Z -]*(?:  +[A-Z][A-Z -]*)+$", "bold"),              # a table's head
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "cyan"),
    (r"\b(?:confirmed|answered|registered|reachable|flows both ways)\b", "green"),
    (r"\b(?:early|ringing|held|paused|DROPPED|lost|limit|shortage|over-rate|refused \d+)\b", "yellow"),
    (r"(?m)^\s*! .*$|\bONE-WAY[^|\n]*|\balarm\b.*$", "bold red"),
)

Paint = Callable[[str], str]


def painter(stream: TextIO) -> Paint:
    """Return what makes a text ready for *stream*: coloured on a terminal, unless NO_COLOR is set
    (https://no-color.org), the terminal is a dumb one, or rich is not installed."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return str
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return str
    console = Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False,
                      soft_wrap=True)

    def paint(text: str) -> str:
        styled = Text(text)
        for pattern, style in STYLES:
            styled.highlight_regex(pattern, style)
        with console.capture() as caught:
            console.print(styled, end="")
        return caught.get()

    return paint


def fitted(text: str) -> str:
    """Return as much of *text* as the terminal's window holds, and how many lines more there are."""
    columns, rows = shutil.get_terminal_size()
    lines = [line[:columns] for line in text.split("\n")]
    if len(lines) > rows - 1:
        hidden = len(lines) - rows + 2
        lines[rows - 2:] = [f"... {hidden} lines more; a higher window shows them"[:columns]]
    return "\n".join(lines)


def screen(text: str, is_first: bool) -> str:
    """Return what draws *text* over what is on the terminal, without a flicker."""
    body = f"{CLEAR_LINE}\n".join(text.split("\n"))
    return f"{WHOLE if is_first else ''}{HOME}{body}{CLEAR_LINE}\n{CLEAR_BELOW}"
