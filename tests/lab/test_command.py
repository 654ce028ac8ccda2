"""tools/lab: list, up, exec and down do what they say, and refuse with a sentence."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.lab import command, leftovers, namespaces
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone may have a lab standing on this machine: these tests see and remove only their own."""
    monkeypatch.setattr(leftovers, "STATE", tmp_path / "state")
    everything = namespaces.list_namespaces
    own = f"nfx{os.getpid()}"
    monkeypatch.setattr(namespaces, "list_namespaces", lambda prefix="nfx": [
        name for name in everything(prefix) if name.startswith(own)])


def run(text: str) -> int:
    """Run tools/lab with the words of *text*."""
    return command.main(shlex.split(text))


def test_up_exec_list_down(lab: Lab, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab stands, runs a command with its exit code in the caller's directory, and goes."""
    monkeypatch.setenv("NATFIX_CALLER", str(tmp_path))
    assert run("up gateway --phones 1") == 0
    assert "phone1     192.168.1.10 (eth0)" in capfd.readouterr().out
    assert run("list") == 0
    assert "(standing): gateway pbx phone1 provider remote1 stranger" in capfd.readouterr().out
    assert run("exec phone1 -- sh -c 'pwd; ip -br addr; exit 7'") == 7
    printed = capfd.readouterr().out
    assert "192.168.1.10/24" in printed
    assert str(tmp_path) in printed
    assert run("up gateway") == 1
    assert "stands already" in capfd.readouterr().err
    assert run("down") == 0
    assert "removed nfx" in capfd.readouterr().out
    assert run("down --all") == 0
    assert namespaces.list_namespaces(lab.prefix)       # a running lab is not touched


def test_exec_without_lab_or_host_is_refused(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Each mistake has a sentence that says what to do."""
    assert run("exec phone1 -- true") == 1
    assert "tools/lab up gateway builds one" in capfd.readouterr().err
    run("up gateway")
    assert run("exec nobody -- true") == 1
    assert "there are gateway, pbx" in capfd.readouterr().err
    assert run("exec phone1 --") == 1
    assert "no command" in capfd.readouterr().err
    run("down")


def test_unknown_topology_is_a_usage_error() -> None:
    """Exit code 2, as for every usage error."""
    with pytest.raises(SystemExit, match="2"):
        run("up nonsense")
