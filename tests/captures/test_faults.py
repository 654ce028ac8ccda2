"""Each capture of pcaps/faults shows what it is called for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.replay.reading import Input
from natfix.replay.replay import Options, run
from tests.captures.__main__ import FAULT_FOLDER, faults_readme, file_of
from tests.captures.every_fault import FAULTS
from tests.captures.faults import record_fault
from tests.replay.symptoms.capture import check

WITHOUT_A_CAPTURE = {"D01", "D27"}      # pcaps/call-masquerade.pcapng; a line of a kernel log


def codes(path: Path) -> tuple[str, ...]:
    findings = run(Options((Input(str(path)),))).findings
    for finding in findings:
        check(finding)
    return tuple(finding.code for finding in findings)


@pytest.mark.parametrize("name", FAULTS)
def test_findings(name: str) -> None:
    """The findings are just those of the table, in their order; where nearly a fault is shown, none."""
    assert codes(file_of(name)) == FAULTS[name].codes


def test_names() -> None:
    """Who is called for a code finds it, who is called for nearly doing so finds nothing."""
    for name, found in FAULTS.items():
        code = name.partition("-")[0].upper()
        if "-not-" in name or not code.startswith("D"):
            assert found.codes == ()
        else:
            assert code in found.codes


def test_every_code_has_its_capture() -> None:
    """Each of D01 to D34 is shown by a capture, but for those that are shown elsewhere."""
    shown = {code for found in FAULTS.values() for code in found.codes}
    assert shown | WITHOUT_A_CAPTURE == {f"D{number:02d}" for number in range(1, 35)}


def test_every_file_has_its_scene_and_its_line() -> None:
    """The folder holds what the table has, and its README says so."""
    assert {path.stem for path in FAULT_FOLDER.glob("*.pcapng")} == set(FAULTS)
    assert (FAULT_FOLDER / "README.md").read_text() == faults_readme()


@pytest.mark.lab
@pytest.mark.parametrize("name", [
    "d11-via-stays-rewritten", "d15-content-length-too-small", "d12-not-symmetric-nat", "d34-scanner"])
def test_recorded_anew(tmp_path: Path, name: str) -> None:
    """The recorder is alive: the lab shows the same again."""
    record_fault(FAULTS[name], tmp_path / "again.pcapng")
    assert codes(tmp_path / "again.pcapng") == FAULTS[name].codes
