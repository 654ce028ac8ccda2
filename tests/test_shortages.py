"""natfix.shortages: alarms before something runs out, once, and once more when it is over."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from natfix import shortages
from natfix.happenings import Event
from natfix.levels import Level
from natfix.loop import Loop
from natfix.metrics import metrics_text
from natfix.monitor import row_from_event
from natfix.shortages import EVERY, FULL, RESOURCES, STATE_FILE, Shortages, conntrack_level
from natfix.show import event_line, status_text
from tests.playbook import World
from tests.schema import problems
from tests.standins import SKELETON, ListReader, RecordingKernel


class Bench:
    """Shortages of an engine of the playbook; the test sets the levels, the clock and the store's problem."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.world = World()
        self.kernel = RecordingKernel()
        self.reader = ListReader()
        self.selector = selectors.DefaultSelector()
        self.store = SimpleNamespace(problem="")
        self.table = Level(10, 1000)
        self.events: list[Event] = []
        self.loop = Loop(self.world.engine, self.kernel, SKELETON, cast(Any, self.reader),
                         cast(Any, self.store), lambda: self.now, self.selector)
        self.loop.journal.event_listeners.append(self.events.extend)
        self.shortages = Shortages(self.loop, cast(Any, self.store), lambda: self.table)

    def look(self) -> list[tuple[str, str]]:
        """Look once more; return what was told of, and about what."""
        self.events.clear()
        self.now += EVERY
        self.shortages.look(self.now)
        return [(event.kind, event.facts["resource"]) for event in self.events]

    def status(self) -> dict[str, Any]:
        return {"version": "1", "pid": 1, "mode": "fix", "uptime": 1.0,
                "queue": {"number": 5060, "overflows": 0}, "shell": {}, "export": {}, "names": [],
                "state_file": {"path": "x", "failed_writes": 0}, "audio": {"watched": 0, "one_way": 0},
                **self.shortages.status(), **self.world.engine.status(self.now)}


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    logging.getLogger("natfix").propagate = True
    caplog.set_level(logging.INFO, "natfix")
    bench = Bench()
    yield bench
    bench.reader.close()
    bench.selector.close()


def test_four_fifths_are_told_once_and_room_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """At 80 % one alarm, none while it goes up and down above 70 %, and one word when it is below."""
    told = []
    for used in (799, 800, 1000, 790, 701, 850, 699, 100, 800):
        bench.table = Level(used, 1000)
        told.append((used, bench.look()))
    assert [(used, what) for used, what in told if what] == [
        (800, [("shortage", "conntrack")]), (699, [("shortage-over", "conntrack")]),
        (800, [("shortage", "conntrack")])]
    said = [record.getMessage() for record in caplog.records]
    assert "800 of 1000 connections that the kernel can follow" in said[0]
    assert "raise it by sysctl" in said[0]
    assert "room again" in said[1]
    assert len(said) == 3


def test_every_level_has_its_words(bench: Bench) -> None:
    """Whatever the engine counts has a name for people and a cure; all of it is in the status."""
    bench.look()
    assert bench.shortages.status()["levels"].keys() == RESOURCES.keys()
    assert problems(bench.status() | {"schema_version": 1}, "status") == []
    assert all(resource.name and resource.cure for resource in RESOURCES.values())


def test_an_alarm_is_seen_everywhere(bench: Bench) -> None:
    """In the status, its text, the metrics; the event is a row of the monitor by the schema, and one line."""
    bench.table = Level(900, 1000)
    bench.look()
    status = bench.status() | {"schema_version": 1}
    assert problems(status, "status") == []
    assert [each["resource"] for each in status["shortages"]] == ["conntrack"]
    text = status_text(status)
    assert "SHORT: conntrack" in text
    assert "conntrack 90 %" in text
    row = row_from_event(bench.events[0])
    assert problems(row, "monitor") == []
    assert "900 of 1000" in event_line(row)
    metrics = metrics_text(status)
    for line in ('natfix_level_used{resource="conntrack"} 900',
                 'natfix_level_size{resource="conntrack"} 1000', "natfix_shortages 1"):
        assert f"\n{line}\n" in metrics


def test_the_media_pool(bench: Bench) -> None:
    """The engine's own tables are looked at, too: here the pool, of which calls take four fifths."""
    pool = bench.world.engine._media.pool
    pool.resize(30000, 30019)
    for port in range(30000, 30014):
        pool.claim(port)
    assert bench.look() == []
    pool.claim(30014)
    assert bench.look() == [("shortage", "media_ports")]
    for port in range(30000, 30014):
        pool.give_back(port, "", 0.0)
    assert bench.look() == [("shortage-over", "media_ports")]


def test_a_full_table_refuses_calls_while_it_is_full(bench: Bench) -> None:
    """Not before the kernel has refused an entry: it gives up what was never answered first. Once there is
    room, calls may begin again."""
    bench.table = Level(1000, 1000)
    bench.look()
    closed = lambda: bench.world.engine._calls.closed     # noqa: E731
    assert closed() == ""
    bench.kernel.entries_refused += 3
    bench.look()
    assert closed() == FULL
    bench.look()
    assert closed() == FULL, "it is still full, whoever was refused meanwhile"
    bench.table = Level(999, 1000)
    bench.look()
    assert closed() == ""
    bench.kernel.entries_refused += 1
    bench.look()
    assert closed() == "", "an entry that was refused for another reason"


def test_the_state_file(bench: Bench) -> None:
    """That it cannot be written is an alarm until it can."""
    bench.store.problem = "/var/lib/natfix/state.sqlite cannot be written (database or disk is full)"
    assert bench.look() == [("shortage", STATE_FILE)]
    assert "disk is full" in bench.shortages.status()["shortages"][0]["why"]
    assert bench.look() == []
    bench.store.problem = ""
    assert bench.look() == [("shortage-over", STATE_FILE)]
    assert bench.shortages.status()["shortages"] == []


def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the numbers cannot be read there is no level, no alarm and no error; this kernel's can be."""
    monkeypatch.setattr(shortages, "PROC", tmp_path)
    assert conntrack_level() == Level(0, 0)
    assert Level(0, 0).share == 0.0
    (tmp_path / "nf_conntrack_count").write_text("12\n")
    (tmp_path / "nf_conntrack_max").write_text("262144\n")
    assert conntrack_level() == Level(12, 262144)
