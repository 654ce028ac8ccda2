"""The table: which runs are valid, what a cell says, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compare.cell import FAILS, NOT_APPLICABLE, WORKS, Cell, PartResult, cell_from_json, not_played
from tests.compare.table import (
    BEGIN,
    END,
    Invalid,
    check,
    document_from_cells,
    table_from_cells,
    write_section,
)

LOST = "BYE sip:alice@192.168.1.10:5060, 203.0.113.50:5060 -> 192.168.1.5:5060, an inside address"


def cell(world: str, scenario: int, *verdicts: str, evidence: str = LOST, first: str = "") -> Cell:
    """Return a cell with one part for each of *verdicts*."""
    parts = tuple(PartResult(f"part {number}", verdict, "" if verdict == WORKS else evidence, 1.0, first)
                  for number, verdict in enumerate(verdicts, start=1))
    return Cell(world, scenario, parts)


CONTROLS = [cell("helper", 0, WORKS, WORKS), cell("proxy", 0, WORKS, WORKS)]


def test_a_run_with_both_controls_is_valid() -> None:
    """What else fails, also the masquerade's own control call, does not make a run invalid."""
    check([*CONTROLS, cell("masquerade", 0, FAILS, WORKS), cell("helper", 18, FAILS)])


@pytest.mark.parametrize(("broken", "why"), [
    (cell("proxy", 0, WORKS, FAILS), "a control call fails with Kamailio, rtpengine: part 2: BYE sip:alice"),
    (cell("proxy", 18, WORKS), "the control calls were not played with Kamailio, rtpengine"),
    (not_played("proxy", 0, "rtpengine"), "was not played: this machine lacks rtpengine"),
])
def test_a_run_without_a_peers_controls_is_invalid(broken: Cell, why: str) -> None:
    """A peer whose plain or busy call fails, or was not played, says nothing about anything else."""
    with pytest.raises(Invalid, match=why):
        check([CONTROLS[0], broken])


def test_a_cell_fails_with_its_first_failing_part() -> None:
    """One failing part decides, named with its evidence and with how many fail; one that is n/a does not."""
    assert cell("helper", 9, WORKS, FAILS, FAILS).evidence == f"part 2: {LOST} (2 of 3 parts)"
    assert cell("helper", 9, FAILS).evidence == f"part 1: {LOST}"
    assert cell("helper", 21, NOT_APPLICABLE, WORKS).verdict == WORKS
    assert cell("helper", 21, NOT_APPLICABLE, NOT_APPLICABLE).verdict == NOT_APPLICABLE


def test_rows_columns_and_totals() -> None:
    """One row per scenario, one column per world, the control and what is n/a are not counted."""
    cells = [*CONTROLS, cell("helper", 18, FAILS), cell("proxy", 18, WORKS, first=LOST),
             cell("helper", 21, NOT_APPLICABLE, evidence="nothing to kill"), cell("proxy", 21, WORKS)]
    lines = table_from_cells(cells).splitlines()
    assert lines[0] == "| | scenario | nf_nat_sip | Kamailio, rtpengine |"
    assert lines[3].endswith(f"| **fails**: part 1: {LOST} | works at the second try |")
    assert lines[4].endswith("| n/a: nothing to kill | works |")
    assert lines[5] == "| | **scenarios that work** | **0 of 1** | **2 of 2** |"


def test_a_world_that_cannot_be_played_says_so_in_its_column() -> None:
    """Each of its cells tells what the machine lacks, and its total is no number."""
    lines = table_from_cells([not_played("helper", 18, "nf_nat_sip")]).splitlines()
    assert lines[2].endswith("| not played: this machine lacks nf_nat_sip |")
    assert lines[3].endswith("| not played |")


def test_json_holds_every_part_with_both_tries() -> None:
    """What --json writes can be read back to the same cells, the first try's evidence included."""
    made = cell("proxy", 18, WORKS, FAILS, first="the first try")
    document = document_from_cells([*CONTROLS, made], 61.4)
    assert document["seconds"] == 61
    assert document["works"]["proxy"] == 0
    assert document["scenarios"]["18"]["proxy"]["verdict"] == FAILS
    assert cell_from_json(document["scenarios"]["18"]["proxy"]) == made


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    """Writing twice leaves one section; a file without markers is left alone."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("first", "second"):
        write_section(readme, text)
    assert readme.read_text() == f"before\n{BEGIN}\nsecond\n{END}\nafter\n"
    readme.write_text("no markers\n")
    with pytest.raises(Invalid, match="lacks the lines"):
        write_section(readme, "third")
    assert readme.read_text() == "no markers\n"
