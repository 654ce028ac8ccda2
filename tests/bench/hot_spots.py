"""The functions of a profile that cost most by themselves."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

TOP = 20    # lines
WAITING = ("<method 'poll' of 'select.epoll' objects>",)


def top_lines(profile: cProfile.Profile) -> list[str]:
    """Return the first lines of *profile*, without waiting: share, seconds, calls, function."""
    statistics = pstats.Stats(profile).stats      # type: ignore[attr-defined]
    rows = sorted(((own, calls, where) for where, (calls, _, own, _, _) in statistics.items()
                   if where[2] not in WAITING), reverse=True)
    whole = sum(own for own, _, _ in rows) or 1.0
    return [f"{100 * own / whole:5.1f} % {own:8.3f} s {calls:8} {_name(*where)}"
            for own, calls, where in rows[:TOP]]


def _name(file: str, line: int, function: str) -> str:
    return f"{Path(file).name}:{line} {function}" if line else function
