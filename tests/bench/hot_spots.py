"""Where the time of a profile goes: by module, and the functions that cost most by themselves."""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from pathlib import Path

TOP = 16            # functions
TOP_MODULES = 12
WAITING = "<method 'poll' of 'select.epoll' objects>"
BUILT_IN = "~"      # pstats' file name of what is written in C


def top_lines(profile: cProfile.Profile) -> list[str]:
    """Return lines: the modules' shares, then the functions'; waiting is left out.

    What is written in C counts for the module that calls it, and has lines of its own below.
    """
    rows = {where: row for where, row in pstats.Stats(profile).stats.items()    # type: ignore[attr-defined]
            if where[2] != WAITING}
    whole = sum(own for _, _, own, _, _ in rows.values()) or 1.0
    modules: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in rows.items():
        if file == BUILT_IN:
            for (caller, _, _), (_, _, spent, _) in callers.items():
                modules[Path(caller).name] += spent
        else:
            modules[Path(file).name] += own
    functions = sorted(((own, calls, where) for where, (calls, _, own, _, _) in rows.items()), reverse=True)
    return [*(f"{100 * own / whole:5.1f} % {name}" for name, own in modules.most_common(TOP_MODULES)),
            "of which the functions:",
            *(f"{100 * own / whole:5.1f} % {calls:8} calls  {_name(*where)}"
              for own, calls, where in functions[:TOP])]


def _name(file: str, line: int, function: str) -> str:
    return function if file == BUILT_IN else f"{Path(file).name}:{line} {function}"
