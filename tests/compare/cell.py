"""One cell of the table: every part of one scenario in one world, each in a lab of its own.

``python -m tests.compare.cell WORLD SCENARIO`` prints the cell as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import Any, NamedTuple

from tests.compare import calls, far, media, parties, trouble
from tests.compare.parts import PARTS, Failed, Part
from tests.compare.worlds import WORLDS, World
from tests.lab import leftovers
from tests.lab.host import LabError

MODULES = (calls, media, parties, trouble, far)      # importing them is what fills PARTS
WORKS, FAILS, NOT_APPLICABLE, NOT_PLAYED = "works", "fails", "n/a", "not played"
NO_PROCESS = "the kernel does all of it, so there is nothing to kill"
# How something that did not happen shows up in the building blocks of the scenario tests.
PROBLEMS = (LabError, AssertionError, subprocess.SubprocessError)


class PartResult(NamedTuple):
    """What came of one part."""

    name: str
    verdict: str
    evidence: str
    seconds: float
    first: str = ""         # what decided the first try, where there was a second one


class Cell(NamedTuple):
    """What came of one scenario in one world."""

    world: str
    scenario: int
    parts: tuple[PartResult, ...]

    @property
    def verdict(self) -> str:
        """Fails where one part does; n/a where no part makes sense."""
        verdicts = {each.verdict for each in self.parts}
        return next(each for each in (FAILS, WORKS, NOT_APPLICABLE, NOT_PLAYED) if each in verdicts)

    @property
    def at_second_try(self) -> list[PartResult]:
        """The parts that failed at first, and then worked."""
        return [each for each in self.parts if each.verdict == WORKS and each.first]

    @property
    def evidence(self) -> str:
        """What decided it, with how many other parts fail as well; "" where all works."""
        deciding = [each for each in self.parts if each.verdict == self.verdict]
        if self.verdict != FAILS:
            return deciding[0].evidence
        name = f"{deciding[0].name}: " if deciding[0].name else ""
        count = f" ({len(deciding)} of {len(self.parts)} parts)" if len(deciding) < len(self.parts) else ""
        return f"{name}{deciding[0].evidence}{count}"


def parts_of(scenario: int) -> list[Part]:
    """Return the parts of a scenario, in order."""
    return [each for each in PARTS if each.scenario == scenario]


def play(world: str, scenario: int, name: str | None = None) -> Cell:
    """Play the parts of *scenario* (only the one called *name*) in *world*."""
    chosen = [each for each in parts_of(scenario) if name in (None, each.name)]
    return Cell(world, scenario, tuple(play_part(WORLDS[world], each) for each in chosen))


def not_played(world: str, scenario: int, reason: str) -> Cell:
    """Return the cell of a world that this machine cannot play, for a *reason*."""
    return Cell(world, scenario, (PartResult("", NOT_PLAYED, reason, 0.0),))


def play_part(kind: type[World], chosen: Part) -> PartResult:
    """Play it, and what fails once more, in a new lab: whatever is only late on a busy machine comes then.

    The verdict is that of the second try; what decided the first one is kept.
    """
    if chosen.crashes and not kind.has_process:
        return PartResult(chosen.name, NOT_APPLICABLE, NO_PROCESS, 0.0)
    try:
        first = _play_part(kind, chosen)
    except (ValueError, LookupError) as problem:        # a log that was read while it was written
        traceback.print_exc()
        first = PartResult(chosen.name, FAILS, f"{type(problem).__name__}: {problem}", 0.0)
    if first.verdict != FAILS:
        return first
    second = _play_part(kind, chosen)
    return second._replace(first=first.evidence, seconds=round(first.seconds + second.seconds, 1))


def _play_part(kind: type[World], chosen: Part) -> PartResult:
    start = time.monotonic()
    with kind(chosen.setting, **chosen.options) as world:
        verdict, evidence = _verdict(world, chosen)
        if evidence and os.environ.get("NATFIX_LAB_KEEP"):
            print(f"== {chosen.scenario} {chosen.name}, {kind.title}\n{world.report()}", file=sys.stderr)
    return PartResult(chosen.name, verdict, evidence, round(time.monotonic() - start, 1))


def _verdict(world: World, chosen: Part) -> tuple[str, str]:
    try:
        chosen.play(world)
    except Failed as problem:
        return FAILS, str(problem)
    except PROBLEMS as problem:
        what = str(problem).partition("\n")[0] or type(problem).__name__
        return FAILS, world.tap.read().lost_message() or what
    return WORKS, ""


def cell_from_json(document: dict[str, Any]) -> Cell:
    """Return the cell that :func:`main` printed."""
    return Cell(document["world"], document["scenario"],
                tuple(PartResult(**each) for each in document["parts"]))


def json_from_cell(cell: Cell) -> dict[str, Any]:
    """Return *cell* for JSON."""
    return {"world": cell.world, "scenario": cell.scenario, "verdict": cell.verdict,
            "evidence": cell.evidence, "parts": [each._asdict() for each in cell.parts]}


def main(world: str, scenario: str, name: str | None = None) -> int:
    """Play one cell and print it; 130 when interrupted, with nothing left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    leftovers.sweep()
    try:
        print(json.dumps(json_from_cell(play(world, int(scenario), name))), flush=True)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
