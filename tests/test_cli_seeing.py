"""The commands that look at a running natfix, as a shell runs them: watching, explaining, filters."""

from __future__ import annotations

import os
import pty
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix.cli import main
from natfix.control import ControlServer

EXPLAINED = {"call_id": "abc@test", "events": [], "messages": [], "messages_forgotten": 0, "parties": []}


class Daemon:
    """Something that answers as natfix does, and remembers what it was asked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []
        self._selector, self._ended = selectors.DefaultSelector(), threading.Event()
        answers: dict[str, dict[str, Any]] = {
            "calls": {"calls": []}, "explain": EXPLAINED, "notes": {"decisions": []}}
        handlers = {command: self._handler(answer) for command, answer in answers.items()}
        self._server = ControlServer(path, handlers, self._selector)
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def _handler(self, answer: dict[str, Any]) -> Any:
        def handle(request: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(request)
            return answer
        return handle

    def _turn(self) -> None:
        while not self._ended.is_set():
            for key, events in self._selector.select(0.02):
                key.data(events)
        self._server.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(str(tmp_path / "control.sock"))
    yield daemon
    daemon.close()


def test_watch_on_a_terminal(daemon: Daemon) -> None:
    """`natfix calls --watch` draws again and again on a terminal; Ctrl-C ends it with 0 and no traceback."""
    terminal, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "LINES": "10"}
    watching = subprocess.Popen(
        [sys.executable, "-m", "natfix", "calls", "--watch", "0.2", "--control-socket", daemon.path],
        stdout=slave, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 15
    while len(daemon.asked) < 3:
        assert time.monotonic() < deadline, "it does not ask again"
        time.sleep(0.05)
    watching.send_signal(signal.SIGINT)
    _, complaints = watching.communicate(timeout=10)
    assert (watching.returncode, complaints) == (0, b"")
    os.close(slave)
    drawn = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert drawn.count("\x1b[2J") == 1
    assert drawn.count("natfix calls, every 0.2 s") >= 2
    assert "no calls" in drawn


def test_explain_takes_calls_and_codes(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a code is looked up in the catalogue; all else is a call, which the daemon is asked."""
    assert main(["explain", "abc@test", "--control-socket", daemon.path]) == 0
    assert daemon.asked == [{"command": "explain", "call": "abc@test"}]
    assert capsys.readouterr().out.startswith("call abc@test\n")
    assert main(["explain", "d12", "--control-socket", daemon.path]) == 0
    assert len(daemon.asked) == 1
    assert capsys.readouterr().out.startswith("D12")


def test_a_number_is_a_line_of_calls(daemon: Daemon) -> None:
    """A number is looked up among the calls; one that none has is a part of a Call-ID."""
    assert main(["explain", "7", "--control-socket", daemon.path]) == 0
    assert [each["command"] for each in daemon.asked] == ["calls", "explain"]
    assert daemon.asked[-1]["call"] == "7"


def test_one_call_at_a_time(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A call among codes is a sentence and exit code 2."""
    assert main(["explain", "D12", "abc@test", "--control-socket", daemon.path]) == 2
    assert capsys.readouterr().err == "natfix: one call at a time, or codes such as D12\n"


def test_filters_reach_the_daemon(daemon: Daemon) -> None:
    """--call, --host and --rule are part of the question."""
    assert main(["notes", "--call", "a", "--host", "192.0.2.1", "--rule", "via",
                 "--control-socket", daemon.path]) == 0
    asked, = daemon.asked
    assert (asked["call"], asked["host"], asked["rule"], asked["count"]) == ("a", "192.0.2.1", "via", 20)


def test_a_watch_that_makes_no_sense(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """--watch 0 is refused in a sentence, with exit code 2."""
    assert main(["calls", "--watch", "0", "--control-socket", daemon.path]) == 2
    assert "--watch takes 0.2 to 86400 seconds" in capsys.readouterr().err
