"""The operator's program: what it gets, when, for how long, and that nobody waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from natfix.config import EVENTS, Export, config_from_text
from natfix.errors import ConfigError
from natfix.happenings import Event
from natfix.hook import ENVIRONMENT, Hook
from natfix.monitor import Monitor
from tests.schema import FOLDER, problems

PATIENCE = 20.0         # seconds, on a busy machine
ROW = {"schema_version": 1, "at": "2026-01-01T00:00:00.000Z", "event": "rules-restored"}


class Made(NamedTuple):
    """A hook with its program."""

    hook: Hook
    monitor: Monitor
    folder: Path

    def told(self) -> list[dict[str, Any]]:
        """Return what the program has got until now."""
        path = self.folder / "told"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""      # it may be writing now
        return [json.loads(line) for line in whole.splitlines()]


Make = Callable[..., Made]


def wait_for(is_so: Callable[[], object]) -> None:
    """Wait until something is so; fails where it never is."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a hook whose program is a shell script in a folder of its own."""
    hooks: list[Hook] = []

    def made(script: str = "cat >>told", time_limit: float = PATIENCE, **more: Any) -> Made:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        program.chmod(0o755)
        hook, monitor = Hook(Export(hook=str(program), **more), time_limit), Monitor()
        hooks.append(hook)
        hook.watch(monitor)
        return Made(hook, monitor, tmp_path)

    yield made
    for hook in hooks:
        hook.close()


def test_an_event_is_one_document_on_stdin(make: Make) -> None:
    """The program gets what `natfix monitor --json` prints, and nothing of other events."""
    made = make()
    events = ("rules-restored", "resumed", "rules-restored")
    made.monitor.on_events([Event(event, float(at)) for at, event in enumerate(events)])
    wait_for(lambda: made.hook.counters["hook_run"] == 2)
    assert [row["at"][17:19] for row in made.told()] == ["00", "02"]
    for row in made.told():
        assert problems(row, "monitor") == []


def test_its_environment_is_clean(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of natfix's own environment gets there, no open file, and it has a session of its own."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    made = make("env >env; ls /proc/self/fd >files; ps -o sid= -p $$ >session; echo $$ >pid")
    made.hook.offer(ROW)
    wait_for(lambda: made.hook.counters["hook_run"])
    seen = dict(line.split("=", 1) for line in (made.folder / "env").read_text().splitlines())
    assert {name: seen[name] for name in ENVIRONMENT} == ENVIRONMENT
    assert seen.keys() <= {*ENVIRONMENT, "PWD", "OLDPWD", "SHLVL", "_"}
    assert (made.folder / "files").read_text().split() == ["0", "1", "2", "3"]     # 3 is what ls reads
    session = (made.folder / "session").read_text().strip()
    assert session == (made.folder / "pid").read_text().strip() != str(os.getsid(0))


def test_who_takes_too_long_is_ended(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """At the time limit the program and what it has started are killed; the next event comes all the same."""
    made = make("echo $$ >>pids; sleep 600 & echo $! >>pids; wait", time_limit=1.0)
    made.hook.offer(ROW)
    made.hook.offer(ROW)
    wait_for(lambda: made.hook.counters["hook_failed"] == 2)
    pids = (made.folder / "pids").read_text().split()
    assert len(pids) == 4
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    assert caplog.text.count("took longer than 1 s, and was killed") == 1


def is_alive(pid: str) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_failures_are_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Each is counted; the log has one line until it goes well again."""
    made = make("read event; case $event in *limit*) exit 3;; esac")
    rows = [{**ROW, "event": "limit", "why": str(number)} for number in range(3)]
    for row in [*rows, ROW, {**rows[0], "why": "another"}]:
        made.hook.offer(row)
    wait_for(lambda: made.hook.counters["hook_failed"] + made.hook.counters["hook_run"] == 5)
    assert made.hook.counters["hook_run"] == 1
    assert caplog.text.count("ended with 3") == 2


def test_no_program(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A program that is not there is said, with its kind of line, and ends nothing."""
    made = make()
    (made.folder / "program").unlink()
    made.hook.offer(ROW)
    wait_for(lambda: caplog.records)
    assert "No such file" in caplog.text
    assert caplog.records[0].message_id        # type: ignore[attr-defined]


def test_a_program_that_cannot_be_run_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    """The operator hears of his mistake when natfix starts, not when the first alarm is lost."""
    hook = Hook(Export(hook=str(tmp_path / "nothing")))
    hook.watch(Monitor())
    hook.close()
    assert f"[export] hook {tmp_path}/nothing: natfix cannot run it" in caplog.text


def test_nobody_waits_for_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that hangs costs events, never time; it is told how many when it can take more."""
    monkeypatch.setattr("natfix.hook.WAITING", 20)
    made = make("while [ ! -e go ]; do sleep 0.05; done; cat >>told")
    began = time.monotonic()
    made.monitor.on_events([Event("rules-restored", 0.0)] * 70)
    assert time.monotonic() - began < 2.0
    dropped = made.hook.counters["hook_dropped"]
    assert 45 <= dropped <= 50          # the thread may have taken some already
    (made.folder / "go").touch()
    wait_for(lambda: made.hook.counters["hook_run"] >= 2)
    made.monitor.on_events([Event("rules-restored", 1.0)])
    wait_for(lambda: any(row["event"] == "lost" for row in made.told()))
    assert next(row for row in made.told() if row["event"] == "lost")["count"] == dropped


def test_a_flood_is_told_once_a_minute(make: Make) -> None:
    """A host over its rate makes an event for each packet; the program is run for the first."""
    made = make()
    for _ in range(100):
        made.hook.offer({**ROW, "event": "over-rate", "why": "192.168.1.10 sends too fast"})
    made.hook.offer({**ROW, "event": "over-rate", "why": "192.168.1.11 sends too fast"})
    wait_for(lambda: made.hook.counters["hook_run"] == 2)
    assert made.hook.counters["hook_repeated"] == 99


def test_close_ends_the_program(make: Make) -> None:
    """natfix does not wait for a program that hangs, and does not leave it behind."""
    made = make("echo $$ >pid; exec sleep 600")
    made.hook.offer(ROW)
    wait_for(lambda: (made.folder / "pid").exists() and (made.folder / "pid").read_text())
    began = time.monotonic()
    made.hook.close()
    assert time.monotonic() - began < PATIENCE / 2
    wait_for(lambda: not is_alive((made.folder / "pid").read_text().strip()))


def test_without_a_program_nothing_is_watched() -> None:
    """No thread, and no event becomes text for nobody."""
    hook, monitor = Hook(Export()), Monitor()
    hook.watch(monitor)
    hook.close()
    assert not monitor.is_watched


PROGRAM = """
import ctypes, os, sys, time
from natfix.config import Export
from natfix.hook import Hook
from natfix.monitor import Monitor
libc = ctypes.CDLL(None, use_errno=True)
CAP_NET_ADMIN = 12
libc.prctl(8, 1, 0, 0, 0)                   # PR_SET_KEEPCAPS
os.setgid(65534)
os.setuid(65534)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)(*[1 << CAP_NET_ADMIN] * 3)
assert libc.capset(header, data) == 0
assert libc.prctl(47, 2, CAP_NET_ADMIN, 0, 0) == 0         # PR_CAP_AMBIENT_RAISE
hook = Hook(Export(hook=sys.argv[1]))
hook.watch(Monitor())
hook.offer({"event": "alarm"})
while not hook.counters:
    time.sleep(0.02)
ambient = next(line for line in open("/proc/self/status") if line.startswith("CapAmb"))
print(ambient.split()[1], dict(hook.counters))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot become another user with a capability")
def test_the_program_has_no_capabilities() -> None:
    """The service hands its capabilities on to whatever it starts, but not to the hook."""
    with tempfile.TemporaryDirectory() as place:        # pytest's own folders are closed to others
        folder = Path(place)
        folder.chmod(0o777)
        program = folder / "program"
        program.write_text(f"#!/bin/sh\ngrep ^Cap /proc/self/status >{folder}/capabilities\n")
        program.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", PROGRAM, program], capture_output=True, text=True,
                              check=False, cwd=Path(__file__).parents[1])
        assert done.stdout == "0000000000001000 {'hook_run': 1}\n", done.stderr
        seen = dict(line.split(":\t") for line in (folder / "capabilities").read_text().splitlines())
        assert {seen[name] for name in ("CapEff", "CapPrm", "CapAmb")} == {"0" * 16}


def test_events_are_those_of_the_monitor() -> None:
    """Every event that `natfix monitor` knows can be chosen, and no other."""
    schema = json.loads((FOLDER / "monitor.json").read_text())
    assert {*EVENTS, "lost"} == set(schema["properties"]["event"]["enum"])


def test_settings() -> None:
    """The program is named with its whole path; an event that there is not is refused with its line."""
    text = '[export]\nhook = "/usr/local/lib/natfix-hook"\nhook_events = ["call", "ended"]\n'
    assert config_from_text(text, "here").export.hook_events == ("call", "ended")
    with pytest.raises(ConfigError, match="here:3"):
        config_from_text(text.replace('"ended"', '"end"'), "here")
    with pytest.raises(ConfigError, match="absolute path"):
        config_from_text('[export]\nhook = "natfix-hook"\n', "here")
