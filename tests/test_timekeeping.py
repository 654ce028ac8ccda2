"""natfix.timekeeping: the machine's clock is set while natfix runs, while it does not, across a reboot."""

from __future__ import annotations

import ast
import logging
import selectors
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from natfix.happenings import Event
from natfix.loop import Loop
from natfix.monitor import row_from_event
from natfix.reports import Change
from natfix.rows import PAST, latest_time
from natfix.show import event_line
from natfix.timekeeping import EVERY, TABLE, Clock, Timekeeper, boot_id
from natfix.wall import WALL
from tests.playbook import World
from tests.schema import problems
from tests.standins import SKELETON, ListReader, ListStore, RecordingKernel

PACKAGE = Path(__file__).parents[1] / "natfix"
DAY = 86400.0
# Who may ask for the machine's time, and why: the daemon's clock begins with it; `natfix check` judges it;
# a file that is moved aside is named by it; `natfix bundle` says when it was made.
MAY_ASK = {"timekeeping", "findings", "store", "bundle", "bundle_parts"}


class Machine:
    """A machine whose clocks the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.monotonic = 1_800_000_000.0, 500.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic)
        monkeypatch.setattr(WALL, "ahead", 0.0)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def reboot(self, lasts: float) -> None:
        self.wall += lasts
        self.monotonic = 3.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def registration(at: float, expires: float) -> Change:
    """Return a row with the times that matter here."""
    return Change("registrations", "alice", {"registered_at": at, "expires_at": expires})


def asked_for(tree: ast.Module) -> Iterator[str]:
    """Yield what in *tree* asks for the machine's time: functions of time and datetime that take none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"):
                yield name
        elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args
                and node.func.attr in ("gmtime", "localtime")):
            yield node.func.attr


def test_nobody_else_asks_for_the_machines_time() -> None:
    """No deadline can depend on a clock that somebody may set: the daemon has none but this one."""
    asking = {path.stem: set(asked_for(ast.parse(path.read_text()))) for path in PACKAGE.rglob("*.py")
              if "replay" not in path.parts}
    assert {name for name, found in asking.items() if found} == MAY_ASK


def test_a_jump_moves_nothing(machine: Machine) -> None:
    """The machine's clock is set, forward and back: the daemon's goes on by the seconds that passed."""
    clock = Clock()
    began = clock()
    for jump in (DAY, -2 * DAY, 30 * 365 * DAY):
        machine.wall += jump
        machine.pass_time(1.0)
    assert clock() - began == pytest.approx(3.0)


@pytest.mark.parametrize("jump", [0.0, DAY, -DAY, 20 * 365 * DAY])
def test_a_restart_after_a_jump(machine: Machine, jump: float) -> None:
    """Set while natfix is down for 10 s, the same boot: a registration of before has 10 s less, no more."""
    clock = Clock((), "boot-1")
    row = registration(clock(), clock() + 3600)
    rows = [row, clock.frame(clock.ahead())]
    machine.pass_time(10.0)
    machine.wall += jump
    again = Clock(rows, "boot-1")
    assert cast(dict[str, Any], row.row)["expires_at"] - again() == pytest.approx(3590)
    assert again.ahead() == pytest.approx(jump)


def test_a_reboot_takes_its_time(machine: Machine) -> None:
    """By a clock that goes on, also one that was set while natfix ran: ten minutes of rest count."""
    clock = Clock((), "boot-1")
    machine.wall += 20 * 365 * DAY          # a gateway without a battery, and NTP after natfix's start
    rows = [registration(clock(), clock() + 3600), clock.frame(clock.ahead())]
    machine.reboot(600.0)
    again = Clock(rows, "boot-2")
    assert cast(dict[str, Any], rows[0].row)["expires_at"] - again() == pytest.approx(3000)
    assert again.ahead() == pytest.approx(20 * 365 * DAY)


def test_a_reboot_into_the_past(machine: Machine) -> None:
    """A clock that begins in 1970 is not believed: no time has passed, and the registration is there."""
    clock = Clock((), "boot-1")
    machine.pass_time(100.0)
    rows = [registration(clock(), clock() + 3600), clock.frame(clock.ahead())]
    machine.reboot(0.0)
    machine.wall = 12.0
    again = Clock(rows, "boot-2")
    assert cast(dict[str, Any], rows[0].row)["expires_at"] - again() == pytest.approx(3600)


def test_a_state_file_of_before(machine: Machine) -> None:
    """One that has no such row, or a damaged one, is by the machine's clock, as it was written."""
    damaged: list[dict[str, Any]] = [
        {}, {"boot": "boot-1"}, {"boot": 3, "constant": "x", "ahead": None}, {"constant": float("inf")}]
    for row in damaged:
        clock = Clock([Change(TABLE, "frame", row)], "boot-1")
        assert clock() == pytest.approx(machine.wall)


def test_the_latest_time_in_rows() -> None:
    """Of what has happened only: an expiry lies ahead, and damage is no time."""
    assert latest_time([]) == 0.0
    rows = [registration(5.0, 3600.0), registration(7.5, 60.0), Change("calls", "x", None)]
    assert latest_time(rows) == 7.5
    assert latest_time([registration(1e300, 0.0), Change("far_ends", "x", {"seen_at": "soon"})]) == 0.0
    assert set(PAST) == {"registrations", "calls", "far_ends", "names"}


class Bench:
    """A timekeeper, and what it tells."""

    def __init__(self) -> None:
        self.clock = Clock((), "boot-1")
        self.reader, self.selector = ListReader(), selectors.DefaultSelector()
        self.loop = Loop(World().engine, RecordingKernel(), SKELETON, cast(Any, self.reader),
                         cast(Any, ListStore()), self.clock, self.selector)
        self.events: list[Event] = []
        self.rows: list[Change] = []
        self.loop.journal.event_listeners.append(self.events.extend)
        self.keeper = Timekeeper(self.loop, self.clock, self._remember)

    def _remember(self, rows: Iterable[Change]) -> None:
        self.rows += rows


def test_it_is_told_and_kept(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A jump is one line, one event, and a row; slow correction is a row once it adds up."""
    logging.getLogger("natfix").propagate = True
    bench = Bench()
    bench.keeper.begin(bench.clock())
    for drift in (0.0, 0.4, 0.4, DAY, 0.0, -DAY):
        machine.pass_time(EVERY)
        machine.wall += drift
        bench.keeper.look(bench.clock())
    assert [event.facts["seconds"] for event in bench.events] == [DAY, -DAY]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "natfix: the machine's clock was set forward by 86400 s",
        "natfix: the machine's clock was set back by 86400 s"]
    kept = [cast(dict[str, Any], change.row)["ahead"] for change in bench.rows]
    assert kept == pytest.approx([0.0, DAY + 0.8, 0.8])
    row = row_from_event(bench.events[0])
    assert problems(row, "monitor") == []
    assert "seconds=86400" in event_line(row)
    bench.reader.close()
    bench.selector.close()


def test_this_kernel_names_its_run() -> None:
    """The kernel's boot_id is there, and stays."""
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
