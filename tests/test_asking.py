"""Asking the daemon: once, again and again, and events as they come; each ends cleanly."""

from __future__ import annotations

import io
import json
import selectors
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from natfix import asking
from natfix.asking import Manner, ask, manner_from, watch_events
from natfix.control import MAX_UNSENT, ControlServer
from natfix.errors import ConfigError, NatfixError, NotRunning

Push = Callable[[Mapping[str, Any]], bool]
End = Callable[[], None]
EVENT = {"schema_version": 1, "at": "2026-11-21T12:00:00.000Z", "event": "call"}


class Daemon:
    """A control server that counts, and that pushes three events and then ends."""

    def __init__(self, path: str) -> None:
        self.path, self.asked, self.left, self.pushed = path, 0, 0, 0
        self.later: Callable[[], Any] = lambda: None
        self.selector, self.ended = selectors.DefaultSelector(), threading.Event()
        self.server = ControlServer(path, {"calls": self.calls}, self.selector,
                                    {"monitor": self.monitor, "flood": self.flood, "busy": self.busy})
        self.thread = threading.Thread(target=self.turn)
        self.thread.start()

    def calls(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        return {"calls": [], "asked": self.asked}

    def monitor(self, _request: dict[str, Any], push: Push) -> End:
        self.later = lambda: [push(EVENT) for _ in range(3)]
        threading.Timer(0.2, self.ended.set).start()
        return self.leave

    def flood(self, _request: dict[str, Any], push: Push) -> End:
        def push_all() -> None:
            while push({"filler": "x" * 1000}):
                self.pushed += 1

        self.later = push_all
        return self.leave

    def busy(self, _request: dict[str, Any], push: Push) -> End:
        raise NatfixError("no more monitors")

    def leave(self) -> None:
        self.left += 1

    def turn(self) -> None:
        while not self.ended.is_set():
            for key, events in self.selector.select(0.02):
                key.data(events)
            later, self.later = self.later, lambda: None
            later()
        self.server.close()

    def close(self) -> None:
        self.ended.set()
        self.thread.join(5)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(str(tmp_path / "control.sock"))
    yield daemon
    daemon.close()


def no_calls(_answer: dict[str, Any]) -> str:
    return "no calls"


def sleeper(monkeypatch: pytest.MonkeyPatch, turns: int, then: Callable[[], None] = lambda: None) -> None:
    """Have the watch's pauses take no time, and Ctrl-C come in the last one."""
    left = iter(range(turns, 0, -1))

    def sleep(_seconds: float) -> None:
        then()
        if next(left) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(asking.time, "sleep", sleep)


def test_one_answer(daemon: Daemon) -> None:
    """Without --watch there is one answer: as text, or as one indented document of ASCII."""
    out = io.StringIO()
    assert ask(daemon.path, {"command": "calls"}, lambda answer: f"asked {answer['asked']}",
               manner_from(False, None), out) == 0
    assert out.getvalue() == "asked 1\n"
    assert ask(daemon.path, {"command": "calls"}, str, manner_from(True, None), out) == 0
    assert '"asked": 2' in out.getvalue()


def test_watching_as_json_is_a_line_each(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick is one JSON document on one line; Ctrl-C ends it with 0."""
    sleeper(monkeypatch, 3)
    out = io.StringIO()
    assert ask(daemon.path, {"command": "calls"}, str, manner_from(True, 1.0), out) == 0
    assert [json.loads(line)["asked"] for line in out.getvalue().splitlines()] == [1, 2, 3]


def test_watching_on_a_terminal_redraws(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal is cleared once and then drawn over; elsewhere there is not one escape sequence."""
    monkeypatch.setenv("NO_COLOR", "1")
    for is_terminal in (True, False):
        sleeper(monkeypatch, 2)
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert ask(daemon.path, {"command": "calls"}, no_calls, manner_from(False, 1.0), out) == 0
        assert out.getvalue().count("\x1b[2J") == is_terminal
        assert out.getvalue().count("\x1b[H") == 2 * is_terminal
        assert ("\x1b" in out.getvalue()) is is_terminal
        assert out.getvalue().count("no calls") == 2


def test_watching_outlives_a_restart(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that ends while it is watched is waited for; one that was never there is an error."""
    sleeper(monkeypatch, 2, daemon.close)
    out = io.StringIO()
    assert ask(daemon.path, {"command": "calls"}, no_calls, manner_from(False, 1.0), out) == 0
    assert out.getvalue().splitlines()[1].startswith("natfix is not running")
    with pytest.raises(NotRunning):
        ask(daemon.path, {"command": "calls"}, str, manner_from(False, 1.0), out)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.1, 1e9, float("nan")])
def test_seconds_that_make_no_sense(seconds: float) -> None:
    """A tick of nothing, or of years, is refused in a sentence."""
    with pytest.raises(ConfigError, match=r"--watch takes 0\.2 to 86400 seconds"):
        manner_from(False, seconds)


def test_events_are_lines(daemon: Daemon) -> None:
    """Pushed events come one a line; when the daemon ends the monitor says so, and is let go of."""
    out = io.StringIO()
    with pytest.raises(NotRunning, match="natfix has ended"):
        watch_events(daemon.path, {"command": "monitor"}, lambda event: event["event"], Manner(), out)
    assert out.getvalue() == "call\ncall\ncall\n"
    daemon.thread.join(5)
    assert daemon.left == 1


def test_who_does_not_read_is_not_waited_for(daemon: Daemon) -> None:
    """What is pushed to a client that does not read ends at MAX_UNSENT bytes; others are answered."""
    from natfix.control import follow

    events = follow(daemon.path, {"command": "flood"})
    assert next(events)["filler"]
    assert 0 < daemon.pushed * 1000 <= MAX_UNSENT + 2000
    assert ask(daemon.path, {"command": "calls"}, str, manner_from(True, None), io.StringIO()) == 0
    events.close()


def test_a_refused_monitor_is_one_sentence(daemon: Daemon) -> None:
    """What the daemon refuses is an error of the command, not an empty monitor."""
    with pytest.raises(NatfixError, match="no more monitors"):
        watch_events(daemon.path, {"command": "busy"}, str, Manner(), io.StringIO())


def test_a_watching_monitor_outlives_a_restart(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --watch the monitor looks for the next daemon until Ctrl-C; without any before it ends."""
    sleeper(monkeypatch, 2)
    out = io.StringIO()
    assert watch_events(daemon.path, {"command": "monitor"}, str, Manner(watch=1.0), out) == 0
    assert len(out.getvalue().splitlines()) == 3
    with pytest.raises(NotRunning, match="natfix is not running"):
        watch_events(daemon.path, {"command": "monitor"}, str, Manner(watch=1.0), out)
