"""Each capture of pcaps/faults shows what it is called for, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from natfix.replay import diagnosis
from natfix.replay.model import Finding
from natfix.replay.reading import Input
from natfix.replay.replay import Options, run
from tests.captures.__main__ import FAULT_FOLDER, faults_readme, file_of
from tests.captures.every_fault import FAULTS
from tests.captures.faults import record_fault
from tests.replay.symptoms.capture import check

TABLE: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("faults.toml").read_text())["finding"]
RULED = {code for module in diagnosis.MODULES for code in re.findall(r"D[0-9]{2}", str(module.__doc__))}
ALL = {f"D{number:02d}" for number in range(1, 35)}
LONGEST_LIST = 6        # packets of a finding that are compared


def findings(path: Path) -> list[Finding]:
    found = run(Options((Input(str(path)),))).findings
    for each in found:
        check(each)
    return found


def codes(path: Path) -> tuple[str, ...]:
    return tuple(each.code for each in findings(path))


@pytest.mark.parametrize("name", FAULTS)
def test_findings(name: str) -> None:
    """The findings are just those of the table, in their order; where nearly a fault is shown, none."""
    if missing := set(FAULTS[name].codes) - RULED:
        pytest.skip(f"no rule yet for {', '.join(sorted(missing))}")
    shown = [(each.code, [packet.number for packet in each.packets[:LONGEST_LIST]])
             for each in findings(file_of(name))]
    assert shown == [(row["code"], row["packets"]) for row in TABLE if row["capture"] == name]


def test_the_table_is_of_these_captures() -> None:
    """Each row names a capture, and gives a reason with packets; codes are those that the capture is for."""
    for row in TABLE:
        assert re.search(r"packets? [0-9]", row["reason"]), row
    for name, found in FAULTS.items():
        if RULED.issuperset(found.codes):
            assert found.codes == tuple(row["code"] for row in TABLE if row["capture"] == name)
    assert {row["capture"] for row in TABLE} <= set(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_names(name: str) -> None:
    """What is called for a code is to show it, what is called for nearly doing so is to show nothing."""
    code = name.partition("-")[0].upper()
    if "-not-" in name or code not in ALL:
        assert FAULTS[name].codes == ()
    else:
        assert code in FAULTS[name].codes


def test_every_code_has_a_capture_and_a_near_miss() -> None:
    """Each of D01 to D34 is shown by a capture, and nearly shown by another one."""
    assert {code for found in FAULTS.values() for code in found.codes} == ALL
    assert {name.partition("-")[0].upper() for name in FAULTS if "-not-" in name} == ALL


def test_every_file_has_its_scene_and_its_line() -> None:
    """The folder holds what the table has, and its README says so."""
    files = {path.name for path in FAULT_FOLDER.iterdir()}
    assert files == {*(file_of(name).name for name in FAULTS), "README.md"}
    assert (FAULT_FOLDER / "README.md").read_text() == faults_readme()


@pytest.mark.lab
@pytest.mark.parametrize("name", [
    "d11-via-stays-rewritten", "d15-content-length-too-small", "d12-not-symmetric-nat", "d34-scanner"])
def test_recorded_anew(tmp_path: Path, name: str) -> None:
    """The recorder is alive: the lab shows the same again."""
    record_fault(FAULTS[name], tmp_path / "again.pcapng")
    assert codes(tmp_path / "again.pcapng") == FAULTS[name].codes
