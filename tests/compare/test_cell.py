"""Cells: what fails is played once more, what makes no sense is not played at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.compare import cell
from tests.compare.cell import FAILS, NOT_APPLICABLE, WORKS, play_part
from tests.compare.parts import PARTS, TITLES, Failed, Part
from tests.compare.worlds import WORLDS, Setting
from tests.lab.host import LabError


class Quiet:
    """A world without a lab, in which no message was lost."""

    title, has_process = "quiet", True

    def __init__(self, setting: Setting, **options: object) -> None:
        self.tap = self

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> Quiet:
        return self

    def lost_message(self) -> str:
        return ""


class Kernel(Quiet):
    """The same, but the kernel does it all."""

    has_process = False


def part(*outcomes: Exception | None, crashes: bool = False) -> Part:
    """Return a part whose tries end one after the other with *outcomes*."""
    left = list(outcomes)

    def play(_: Any) -> None:
        if problem := left.pop(0):
            raise problem
    return Part(1, "tried", play, Setting(), crashes=crashes)


@pytest.mark.parametrize(("outcomes", "verdict", "evidence", "first"), [
    ((None,), WORKS, "", ""),
    ((Failed("no audio"), None), WORKS, "", "no audio"),
    ((LabError("late"), Failed("no audio")), FAILS, "no audio", "late"),
    ((ValueError("half a log"), None), WORKS, "", "ValueError: half a log"),
])
def test_what_fails_is_played_twice(
    outcomes: tuple[Exception | None, ...], verdict: str, evidence: str, first: str
) -> None:
    """The second try decides, the first one's evidence stays; what works is played once."""
    result = play_part(Quiet, part(*outcomes))      # type: ignore[arg-type]
    assert (result.verdict, result.evidence, result.first) == (verdict, evidence, first)


def test_the_comparisons_own_fault_is_nobodys_failure() -> None:
    """A program error that comes twice is no verdict: the cell cannot be played."""
    with pytest.raises(ValueError, match="again"):
        play_part(Quiet, part(ValueError("once"), ValueError("again")))     # type: ignore[arg-type]


def test_killing_what_has_no_process_is_not_applicable() -> None:
    """By rule, and before anything is played."""
    assert play_part(Kernel, part(crashes=True)).verdict == NOT_APPLICABLE      # type: ignore[arg-type]
    crashing: Callable[[Part], bool] = lambda each: each.crashes       # noqa: E731
    assert {each.scenario for each in filter(crashing, PARTS)} == {21}
    assert [key for key, world in WORLDS.items() if not world.has_process] == ["masquerade", "helper"]


def test_every_scenario_has_parts() -> None:
    """The control, 25 scenarios and far phones are played; the parts of one have names of their own."""
    assert sorted({each.scenario for each in PARTS}) == sorted(TITLES) == list(range(30))
    for scenario in TITLES:
        names = [each.name for each in cell.parts_of(scenario)]
        assert len(set(names)) == len(names), scenario
