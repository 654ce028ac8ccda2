"""The schedule of looks at the calls' audio: bounded, and said once in the log."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from natfix.commands import Flow
from natfix.journal import Journal
from natfix.listener import IDLE, LOOKUPS, PAUSE, Listener
from natfix.message_ids import KINDS
from natfix.reports import FlowCounters
from tests.playbook import Call, World


class Bench:
    """A listener on a playbook's world, whose schedule the test turns."""

    def __init__(self) -> None:
        self.world = World()
        self.planned: list[float] = []
        self.counted: list[tuple[int, bool]] = []
        self.refused: dict[Any, int] = {}
        loop = SimpleNamespace(engine=self.world.engine, journal=Journal(), call_at=self.call_at)
        self.listener = Listener(cast(Any, loop), cast(Any, self))

    def call_at(self, when: float, task: Any) -> None:
        self.planned.append(when)

    def count(self, flows: list[Flow], now: float, with_refused: bool) -> None:
        self.counted.append((len(flows), with_refused))
        self.world.report(FlowCounters(self.world.shown.counters(flows), {}))

    def run(self, seconds: float, call: Call | None = None) -> None:
        """Turn the schedule, with audio from inside only if there is a *call*."""
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.advance(PAUSE)
            if call is not None:
                phone = call.caller.agent
                self.world.trace_rtp(phone.rtp, self.world.told_media(phone))
            self.listener._look(self.world.now)


def test_nobody_calls() -> None:
    """Without calls nothing is counted, and the loop is woken rarely."""
    bench = Bench()
    bench.listener.begin(bench.world.now)
    bench.run(1.0)
    assert bench.counted == []
    assert bench.planned[-1] == pytest.approx(bench.world.now + IDLE)


def test_an_alarm_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the call, the direction and the cause, once for each call however long it lasts."""
    bench = Bench()
    call = bench.world.call(bench.world.phone, bench.world.provider)
    with caplog.at_level(logging.INFO, "natfix"):
        bench.run(12.0, call)
    line, = caplog.messages
    assert line == (f"call {call.caller.call_id}: no audio from outside: nothing arrives from outside "
                    f"{bench.world.provider.rtp}")
    assert caplog.records[0].__dict__["call_id"] == call.caller.call_id
    assert caplog.records[0].__dict__["message_id"] == KINDS["one-way-audio"].message_id
    assert any(with_refused for _, with_refused in bench.counted)


def test_looks_are_bounded() -> None:
    """However many calls there are, one look reads about LOOKUPS entries, and each call has its turn."""
    bench = Bench()
    for number in range(60):
        bench.world.phone.rtp = bench.world.phone.rtp._replace(port=12000 + 2 * number)
        bench.world.provider.rtp = bench.world.provider.rtp._replace(port=40000 + 2 * number)
        bench.world.call(bench.world.phone, bench.world.provider)
    bench.run(2.0)
    assert max(count for count, _ in bench.counted) <= LOOKUPS + 1
    audio = bench.world.engine.audio
    assert len(audio) == 60
    assert all(watch.read_at > watch.since for watch in audio._soon.values())
