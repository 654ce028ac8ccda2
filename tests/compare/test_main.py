"""The command: what it refuses, and what it says where a machine lacks a peer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compare import __main__ as command
from tests.compare import worlds
from tests.compare.worlds import WORLDS, KernelHelper, OutboundProxy, World


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the signals and the labs of whoever runs the tests alone."""
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command.leftovers, "sweep", lambda: None)


def test_a_world_that_this_machine_cannot_play_makes_the_run_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its column and the last line say what is lacking, in JSON as well; exit 1, and nothing is written."""
    for world in WORLDS.values():
        monkeypatch.setattr(world, "lacking", classmethod(lambda cls: f"all of {cls.title}"))
    assert command.main(["--scenarios", "3", "--json", str(tmp_path / "run.json")]) == 1
    printed = capsys.readouterr().out
    assert printed.count("| not played: this machine lacks all of nf_nat_sip |") == 2
    assert "invalid: nf_nat_sip was not played: this machine lacks all of nf_nat_sip" in printed
    cell = json.loads((tmp_path / "run.json").read_text())["scenarios"]["3"]["helper"]
    assert (cell["verdict"], cell["evidence"]) == ("not played", "all of nf_nat_sip")


@pytest.mark.parametrize(("arguments", "why"), [
    (["--write", "--scenarios", "3"], "--write takes the whole table"),
    (["--write", "--worlds", "helper,proxy"], "--write takes the whole table"),
    (["--scenarios", "30"], "there is no scenario 30"),
    (["--worlds", "asterisk"], "asterisk is none of masquerade, helper, proxy, natfix"),
])
def test_what_cannot_be_asked_for(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong word, or a table with holes for the README, is refused before anything is played."""
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert why in capsys.readouterr().err


def test_the_control_belongs_to_every_choice() -> None:
    """Scenario 0 is played whichever are asked for, ranges included."""
    options = command._parser().parse_args(["--scenarios", "9-11,2"])
    assert options.scenarios == [0, 2, 9, 10, 11]


def test_what_a_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper by the kernel's symbols, where they can be read; the proxy by its programs."""
    assert World.lacking() == ""
    symbols = tmp_path / "kallsyms"
    monkeypatch.setattr(worlds, "SYMBOLS", symbols)
    assert KernelHelper.lacking() == ""
    symbols.write_text("0000000000000000 t nf_nat_ftp\n")
    assert KernelHelper.lacking().startswith("the kernel's nf_nat_sip")
    symbols.write_text("0000000000000000 t nf_nat_sip_expect\t[nf_nat_sip]\n")
    assert KernelHelper.lacking() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert OutboundProxy.lacking() == "kamailio and rtpengine"
