"""A trial by the daemon's own clock, on a kernel in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natfix.errors import KernelRefused
from natfix.kernel.base import Skeleton
from natfix.kernel.fake import FakeKernel
from natfix.order import FIX, Mode, Order, read_order, write_order
from natfix.parachute import Parachute

SKELETON = Skeleton(("outside",), (5060,), (30000, 39999), 1, 5060, bypass=False)


class Loop:
    """As much of the daemon's loop as a trial needs."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.skeleton = SKELETON
        self.tasks: list[tuple[float, Callable[[float], None]]] = []
        self.is_stopped = self.has_parted = False

    def call_at(self, when: float, task: Callable[[float], None]) -> None:
        self.tasks.append((when, task))

    def say_farewell(self) -> None:
        assert self.kernel.skeleton is not None     # while packets can still be sent by the rules
        self.has_parted = True

    def stop(self) -> None:
        self.is_stopped = True

    def pass_time(self, now: float) -> None:
        due, self.tasks = [each for each in self.tasks if each[0] <= now], \
            [each for each in self.tasks if each[0] > now]
        for when, task in due:
            task(when)


def trial(folder: Path, seconds: float = 60.0) -> tuple[Loop, Parachute]:
    """Begin a trial at 100 s, and install the rules as the daemon does."""
    loop: Any = Loop()
    state = str(folder / "state")
    write_order(state, Order(Mode.TRIAL, seconds) if seconds else FIX)
    parachute = Parachute(loop, state, seconds)
    parachute.begin(100.0)
    loop.kernel.install(loop.skeleton)
    return loop, parachute


def test_no_trial(tmp_path: Path) -> None:
    """Without seconds the rules are the usual ones, and nothing ever ends."""
    loop, parachute = trial(tmp_path, 0.0)
    assert loop.skeleton == SKELETON
    assert not loop.tasks
    parachute.take_back()
    assert loop.kernel.skeleton is SKELETON
    assert parachute.confirm({}) == {"confirmed": True, "was_on_trial": False}


def test_a_trial_has_a_bypass_and_an_end(tmp_path: Path) -> None:
    """While it runs SIP passes a dead daemon, the kernel knows the time, and a next start would not arm."""
    loop, parachute = trial(tmp_path)
    assert (loop.skeleton.trial, loop.skeleton.bypass) == (60.0, True)
    assert read_order(str(tmp_path / "state")).mode is Mode.BEGUN
    assert parachute.seconds_left(130.0) == 30.0


def test_confirmed(tmp_path: Path) -> None:
    """Confirmed, the usual rules are installed at once, and the end that was planned does nothing."""
    loop, parachute = trial(tmp_path)
    assert parachute.confirm({}) == {"confirmed": True, "was_on_trial": True}
    assert loop.kernel.skeleton == loop.skeleton == SKELETON
    assert read_order(str(tmp_path / "state")) == FIX
    loop.pass_time(1000.0)
    assert not loop.is_stopped
    assert not parachute.is_open


def test_not_confirmed(tmp_path: Path) -> None:
    """When the time is up the table is gone, the daemon ends, and the order stays that a next start heeds."""
    loop, parachute = trial(tmp_path)
    loop.pass_time(159.0)
    assert loop.kernel.skeleton is not None
    loop.pass_time(160.0)
    assert loop.kernel.skeleton is None
    assert loop.is_stopped
    assert parachute.is_open
    assert loop.has_parted
    assert read_order(str(tmp_path / "state")).mode is Mode.BEGUN


def test_a_kernel_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not let the table go it is tried again; without new rules the trial goes on."""
    loop, parachute = trial(tmp_path)

    def refuse(*_: object) -> None:
        raise KernelRefused("busy")

    with monkeypatch.context() as patch:
        patch.setattr(loop.kernel, "install", refuse)
        with pytest.raises(KernelRefused):
            parachute.confirm({})
        assert parachute.is_pending
        patch.setattr(loop.kernel, "remove", refuse)
        with pytest.raises(KernelRefused):
            loop.pass_time(160.0)
    assert not loop.is_stopped
    loop.pass_time(161.0)
    assert parachute.is_open
