"""Plain tables for a terminal: columns as wide as they need to be, nothing drawn, safe to print.

Much of what natfix shows was written by strangers (a caller's name, a User-Agent), so whatever could
steer a terminal is replaced before it gets there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MAX_WIDTH = 48      # of one column but the last; longer text is cut


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[str] = ()) -> str:
    """Return *rows* under their *columns*, one line each, without a final line end.

    Columns named in *numbers* are set flush right.
    """
    right = frozenset(numbers)
    lines = [tuple(columns), *(tuple(map(printable, row)) for row in rows)]
    last = len(columns) - 1
    lines = [tuple(_cut(cell) if index < last else cell for index, cell in enumerate(line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, columns, strict=True)
        ).rstrip() for line in lines
    )


def printable(value: Any) -> str:
    """Return *value* as text of one line that cannot steer a terminal; "" for None."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def duration(seconds: float) -> str:
    """Return a length of time for people: "47s", "3m05s", "2h14m", "5d03h"."""
    total = max(0, int(seconds))
    minutes, second = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else text[:MAX_WIDTH - 3] + "..."
