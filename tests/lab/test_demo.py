"""tools/demo: what it says, what it writes, and that Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import namespaces
from tests.lab.demo import Call, Round, main, write_json
from tests.lab.host import PROJECT, wait_until
from tests.lab.lab import Lab
from tests.lab.tones import Heard

GOOD = Heard(440, 3.5, -9.0, -120.0, 3.6)
DEAF = Heard(880, 0.0, -120.0, -120.0, 0.0)


def demo(*arguments: str) -> subprocess.Popen[str]:
    """Start the demo in its own process."""
    return subprocess.Popen([sys.executable, "-m", "tests.lab.demo", *arguments], cwd=PROJECT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.lab
def test_natfix_makes_every_call_two_way(lab: Lab, tmp_path: Path) -> None:
    """0 of 2 through plain masquerade, 2 of 2 with natfix, and the captures agree with its account."""
    document = tmp_path / "demo.json"
    running = demo("--json", str(document))
    printed, _ = running.communicate(timeout=90)
    assert printed.splitlines()[-1] == "demo: 2 of 2 calls had two-way audio", printed
    assert running.returncode == 0
    result = json.loads(document.read_text())
    assert (result["calls"], result["two_way_audio"]) == (2, 2)
    assert result["without_natfix"]["two_way_audio"] == 0
    for call in result["details"]:
        relayed = [flow for flow in call["kernel"] if flow["packets"] > 100 and flow["answers"] > 100]
        assert relayed, call["kernel"]
    changed = [message for message in result["messages"] if message["changes"]]
    told = [decision for decision in result["decisions"]
            if any(note.get("old") != note.get("new") for note in decision["notes"])]
    assert len(changed) == len(told) > 10


@pytest.mark.lab
def test_ctrl_c_leaves_nothing(lab: Lab) -> None:
    """Interrupted in the middle of a call: exit 130, no namespace, no process."""
    running = demo()
    wait_until(lambda: len(namespaces.list_namespaces(f"nfx{running.pid}-1")) > 5, 10.0, "the demo's lab")
    phones = wait_until(lambda: _pids(f"nfx{running.pid}-1-phone1"), 10.0, "the demo's phone")
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=15)
    assert running.returncode == 130, printed
    assert "interrupted" in printed
    assert not namespaces.list_namespaces(f"nfx{running.pid}-1")
    assert not any(namespaces.process_start(pid) for pid in phones)


def test_what_a_crashed_demo_left_is_removed_and_said(monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """The next demo cleans up before it starts, and says so in one sentence."""
    def interrupt(*_: object, **__: object) -> Round:
        raise KeyboardInterrupt
    monkeypatch.setattr("tests.lab.leftovers.sweep", lambda: ["nfx1234-1"])
    monkeypatch.setattr("tests.lab.demo.run_round", interrupt)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main([]) == 130
    assert "removed what a crashed lab had left behind: nfx1234-1" in capsys.readouterr().out


def test_a_call_needs_both_directions() -> None:
    """One deaf side, or a side that has no recording, is not two-way."""
    assert Call("", inside_heard=GOOD, outside_heard=GOOD).two_way
    assert not Call("", inside_heard=GOOD, outside_heard=DEAF).two_way
    assert not Call("", inside_heard=None, outside_heard=GOOD).two_way


def test_json_counts_both_rounds(tmp_path: Path) -> None:
    """The file says how many calls there were and how many were two-way, without and with natfix."""
    write_json(tmp_path / "x.json", Round("before", [Call("one", inside_heard=DEAF, outside_heard=GOOD)]),
               Round("after", [Call("one", inside_heard=GOOD, outside_heard=GOOD)]))
    result = json.loads((tmp_path / "x.json").read_text())
    assert (result["calls"], result["two_way_audio"]) == (1, 1)
    assert result["without_natfix"]["two_way_audio"] == 0


def _pids(name: str) -> list[int]:
    if not os.path.exists(f"/run/netns/{name}"):
        return []
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]
