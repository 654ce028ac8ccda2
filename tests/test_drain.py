"""`natfix down --drain`: the calls end, then natfix does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.drain import LEASE, LOOK_EVERY, Drain, Progress, wait_for_calls
from natfix.errors import NatfixError, NotRunning
from natfix.kernel.base import KernelMapping
from tests.gateway_with_natfix import SDP, SIP, Dialog, answer_to, header, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE
from tests.namespace import on_kernel
from tests.test_up import Operator


class Daemon:
    """Loop, engine and kernel in one, as far as draining meets them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.gate: Any = None
        self.tasks: dict[Callable[[float], None], float] = {}
        self.engine = self.kernel = self
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def call_at(self, when: float, task: Callable[[float], None]) -> None:
        self.tasks[task] = min(when, self.tasks.get(task, when))

    def calls(self, _now: float) -> list[dict[str, Any]]:
        return [{"call_id": "one"}]

    def status(self, _now: float) -> dict[str, Any]:
        return {"calls": 1}

    def mappings(self) -> list[KernelMapping]:
        self.looks += 1
        return [KernelMapping(Kind.SIGNALLING, Endpoint(PHONE, SIP), Endpoint(GATEWAY, SIP), True, 9.0, "")]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for task, when in list(self.tasks.items()):
            if when <= self.now:
                del self.tasks[task]
                task(self.now)


def test_it_lapses() -> None:
    """Who asks again and again drains; a moment after the last question natfix is in force as before."""
    daemon: Any = Daemon()
    drain = Drain(daemon)
    for _ in range(8):
        assert drain.ask({}) == {"calls": 1}
        daemon.pass_time(1.0)
    assert drain.is_on
    assert daemon.gate is not None
    daemon.pass_time(LEASE)
    assert not drain.is_on
    assert daemon.gate is None


def test_the_kernel_is_asked_seldom() -> None:
    """The maps are read when an endpoint is not known, and at most now and then."""
    daemon: Any = Daemon()
    drain = Drain(daemon)
    assert drain._outside_of(Endpoint(PHONE, SIP)) == Endpoint(GATEWAY, SIP)
    for _ in range(5):
        assert drain._outside_of(Endpoint(PHONE, 1)) is None
    assert daemon.looks == 1
    daemon.pass_time(LOOK_EVERY)
    drain._outside_of(Endpoint(PHONE, 1))
    assert daemon.looks == 2


def test_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when no call is left, when the time is up, or when natfix does not run at all."""
    monkeypatch.setattr("natfix.drain.time.sleep", lambda _seconds: None)
    answers = [2, 1, 0]
    monkeypatch.setattr("natfix.drain.request", lambda *_: {"calls": answers.pop(0)})
    said: list[int] = []
    assert wait_for_calls("x", 0, lambda calls, _: said.append(calls)) == 0
    assert said == [2, 1, 0]
    monkeypatch.setattr("natfix.drain.request", lambda *_: {"calls": 3})
    monkeypatch.setattr("natfix.drain.time.monotonic", iter(range(0, 1000, 4)).__next__)
    assert wait_for_calls("x", 10, lambda *_: None) == 3

    def nobody(*_: object) -> dict[str, Any]:
        raise NotRunning("nobody")

    monkeypatch.setattr("natfix.drain.request", nobody)
    assert wait_for_calls("x", 0, lambda *_: None) == 0


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal has one line that changes; a file has a line for each change, and no control characters."""
    plain, shown = Progress(is_terminal=False), Progress(is_terminal=True)
    for calls in (2, 2, 1, 0):
        plain(calls, 61.0)
    assert capsys.readouterr().out.splitlines() == [
        f"natfix: {left} left, new ones are refused" for left in ("2 calls", "1 call", "0 calls")]
    shown(2, 61.0)
    shown(0, 62.0)
    assert capsys.readouterr().out == (
        "\rnatfix: 2 calls left, new ones are refused (1m01s)\x1b[K"
        "\rnatfix: 0 calls left, new ones are refused (1m02s)\x1b[K\n")


# -- on a gateway --------------------------------------------------------------------------------------


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    yield operator
    operator.close()


def draining(operator: Operator, *more: str) -> subprocess.Popen[str]:
    """Begin to drain, and wait until natfix does."""
    command = [sys.executable, "-m", "natfix", "--config", str(operator.config), "down", "--drain", *more]
    waiting = operator.wires.gateway.call(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    wait_until(lambda: operator.ask("status")["mode"] == "drain")
    return waiting


def hang_up(operator: Operator, dialog: Dialog) -> None:
    dialog.send_request("BYE")
    operator.provider.sendto(answer_to(receive(operator.provider)[0], "200 OK"), (GATEWAY, SIP))
    assert receive(operator.phone)[0].startswith("SIP/2.0 200")


@on_kernel
def test_the_last_call_ends(operator: Operator) -> None:
    """New calls are refused in both directions, the one that runs goes on; when it ends nothing is left."""
    before = operator.everything()
    operator.natfix("up")
    running, _ = operator.call_out()
    waiting = draining(operator)
    second = Dialog(operator.phone, (PHONE, SIP), (REMOTE, SIP))
    second.send_request("INVITE", SDP.format(PHONE, 5000))
    refusal, source = receive(operator.phone)
    assert refusal.startswith("SIP/2.0 503 Service Unavailable\r\n")
    assert source == (REMOTE, SIP)
    second.take_answer(refusal)
    second.send_request("ACK")
    incoming = Dialog(operator.provider, (REMOTE, SIP), (GATEWAY, SIP))
    incoming.send_request("INVITE", SDP.format(REMOTE, 20002))
    refusal, source = receive(operator.provider)
    assert refusal.startswith("SIP/2.0 503 ")
    assert source == (GATEWAY, SIP)
    assert header(refusal, "Call-ID") == incoming.call_id
    hang_up(operator, running)
    said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 0
    assert said.splitlines()[:3] == [
        "natfix: 1 call left, new ones are refused", "natfix: 0 calls left, new ones are refused",
        "natfix: no call is left"]
    assert operator.everything() == before


@on_kernel
def test_interrupted(operator: Operator) -> None:
    """Ctrl-C leaves natfix in force, and a moment later new calls are fixed again."""
    operator.natfix("up")
    operator.call_out()
    waiting = draining(operator)
    waiting.send_signal(signal.SIGINT)
    said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "stays in force" in said
    wait_until(lambda: operator.ask("status")["mode"] == "fix")
    assert operator.call_out()[1][0] == GATEWAY


@on_kernel
def test_no_longer_than_told(operator: Operator) -> None:
    """After SECONDS natfix goes all the same, and says how many calls that cut."""
    operator.natfix("up")
    operator.call_out()
    began = time.monotonic()
    code, said, _ = operator.natfix("down", "--drain", "2")
    assert code == 0
    assert time.monotonic() - began >= 2
    assert "natfix: 1 call is cut" in said
    with pytest.raises(NatfixError):
        operator.pid()
    assert os.listdir(operator.folder) == [operator.config.name]
