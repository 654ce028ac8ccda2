"""What one sees of a running natfix, on a real kernel: events as they happen, and audio that goes one way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from natfix.control import follow
from tests.gateway_with_natfix import REMOTE_RTP, RTP, Live, Rtp, answer_to, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE, STRANGER
from tests.namespace import kernel_test
from tests.schema import problems

pytestmark = kernel_test
IN_TIME = 5.0       # seconds on natfix's clock; issue 8.1
PATIENCE = 15.0     # seconds that a busy machine may be late beside that


class Watching:
    """A monitor that runs beside the test."""

    def __init__(self, live: Live) -> None:
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._follow, args=(live.control,), daemon=True)
        self._thread.start()
        wait_until(lambda: self.events or self._is_ready, 5)

    _is_ready = False

    def _follow(self, path: str) -> None:
        stream = follow(path, {"command": "monitor"})
        self._is_ready = True
        self.events.extend(stream)

    def wait_for(self, kind: str, timeout: float) -> dict[str, Any]:
        wait_until(lambda: [each for each in self.events if each["event"] == kind], timeout)
        return next(each for each in self.events if each["event"] == kind)

    def seconds_until(self, kind: str) -> float:
        """Return the time from the answer to the first event of *kind*."""
        answered, then = (
            datetime.fromisoformat(self.wait_for(each, 1.0)["at"]) for each in ("answered", kind))
        return (then - answered).total_seconds()

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    yield live
    live.close()


def start(live: Live) -> Watching:
    live.start()
    watching = Watching(live)
    time.sleep(0.1)         # the request is on its way
    return watching


def test_nothing_arrives_then_it_does(live: Live) -> None:
    """Audio from inside only: alarm within five seconds of the answer, in monitor, calls, status and log;
    over as soon as audio comes; the end says how long they talked and what the kernel has counted."""
    watching = start(live)
    dialog, told = live.call_out()
    phone, remote = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    streams = [Rtp(phone, (REMOTE, REMOTE_RTP), remote)]
    alarm = watching.wait_for("alarm", PATIENCE)
    assert watching.seconds_until("alarm") <= IN_TIME
    assert (alarm["direction"], alarm["cause"]) == ("in", "nothing-arrives")
    call, = live.ask("calls")["calls"]
    assert [(each["direction"], each["cause"]) for each in call["audio"]["alarms"]] == [
        ("in", "nothing-arrives")]
    assert live.ask("status")["audio"] == {"watched": 1, "one_way": 1}
    streams.append(Rtp(remote, told, phone))
    watching.wait_for("alarm-over", PATIENCE)
    assert live.log().count("no audio from outside") == live.log().count("audio is back from outside") == 1
    dialog.send_request("BYE")
    live.provider.sendto(answer_to(receive(live.provider)[0], "200 OK"), (GATEWAY, 5060))
    ended = watching.wait_for("ended", PATIENCE)
    explained = live.ask("explain", call=dialog.call_id)
    assert problems(explained, "explain-call") == []
    party, = explained["parties"]
    assert {each["set"] for each in party["elements"] if each["present"]} >= {
        "signalling_out", "media_out", "media_in", "media_allowed"}
    assert all(each["present"] for each in (*party["elements"], *party["entries"]))
    assert [event["event"] for event in explained["events"]] == watching.kinds()
    for stream in streams:
        stream.end()
    assert watching.kinds() == ["call", "answered", "alarm", "alarm-over", "ended"]
    assert ended["why"] == "BYE from inside"
    assert abs(ended["packets_out"] - streams[0].sent) < 40
    assert 0 < ended["packets_in"] <= streams[1].sent
    for event in watching.events:
        assert problems(event, "monitor") == []


def test_refused_from_elsewhere(live: Live) -> None:
    """Audio that comes from another address than announced is refused, and that is the alarm's cause."""
    watching = start(live)
    _, told = live.call_out()
    phone, remote = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    stranger = live.wires.bind(STRANGER, 40000)
    streams = [Rtp(phone, (REMOTE, REMOTE_RTP), remote), Rtp(stranger, told, phone)]
    alarm = watching.wait_for("alarm", PATIENCE)
    assert watching.seconds_until("alarm") <= IN_TIME
    assert (alarm["direction"], alarm["cause"]) == ("in", "refused")
    for stream in streams:
        stream.end()


def test_monitor_as_a_command(live: Live) -> None:
    """`natfix monitor --json` prints a line for each event as it happens, and ends with 0 on Ctrl-C."""
    live.start()
    monitor = subprocess.Popen(
        [sys.executable, "-m", "natfix", "monitor", "--json", "--host", PHONE, "--control-socket",
         live.control], stdout=subprocess.PIPE, text=True)
    assert monitor.stdout is not None
    time.sleep(1.0)
    live.call_out()
    kinds = [json.loads(monitor.stdout.readline())["event"] for _ in range(2)]
    assert kinds == ["call", "answered"]
    monitor.send_signal(2)
    assert monitor.wait(5) == 0
