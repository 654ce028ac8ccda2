"""`natfix monitor`: rows of events, filters, and watchers that do not keep up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from natfix.errors import Busy
from natfix.journal import Decision
from natfix.monitor import MOST_WATCHERS, Monitor, row_from_event, rows_from_decision
from natfix.show import event_line
from tests.playbook import Delivery, World
from tests.schema import problems

HOSTILE = "\x1b]0;owned\x07\x9b2J\r\nIGNORED " + "x" * 10_000


class Screen:
    """A watcher that takes as many rows as the test allows."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.rows: list[Mapping[str, Any]] = []

    def push(self, row: Mapping[str, Any]) -> bool:
        if len(self.rows) >= self.room:
            return False
        self.rows.append(row)
        return True

    def events(self) -> list[str]:
        return [row["event"] for row in self.rows]


def play(monitor: Monitor, world: World) -> None:
    """Give the monitor all that has happened in *world* since the last time."""
    monitor.on_events(world.engine.pop_events())
    for entry in world.log:
        if isinstance(entry, Delivery):
            monitor.on_decision(Decision(entry.at, "forward lan0 wan0", entry.outcome, False))
    world.log.clear()


def test_rows_obey_the_schema() -> None:
    """Each event of a registration and a call is one row by the shipped schema, and one plain line."""
    world, screen, monitor = World(), Screen(), Monitor()
    monitor.add(screen.push, "", "")
    world.register(world.phone)
    world.call(world.phone, world.provider).hang_up()
    play(monitor, world)
    assert screen.events() == ["registered", "call", "ringing", "answered", "ended"]
    for row in screen.rows:
        assert problems(dict(row), "monitor") == []
        assert event_line(dict(row)).isprintable()
    assert "BYE from inside; talked 0s" in event_line(dict(screen.rows[-1]))


def test_filters() -> None:
    """A watcher gets only what his filters let through: a part of a Call-ID, or a host."""
    world, monitor = World(), Monitor()
    screens = {name: Screen() for name in ("call", "host", "nobody")}
    call = world.call(world.phone, world.provider)
    monitor.add(screens["call"].push, call.caller.call_id[1:], "")
    monitor.add(screens["host"].push, "", world.phone.endpoint.host)
    monitor.add(screens["nobody"].push, "", world.phone.endpoint.host[:-1])
    world.call(world.other_phone, world.provider)
    play(monitor, world)
    assert [len(screens[name].rows) for name in screens] == [3, 3, 0]


def test_who_does_not_read_is_told_how_many_he_lost() -> None:
    """Nothing is kept for him, and before the next event that he takes stands how many there were."""
    world, screen, monitor = World(), Screen(room=1), Monitor()
    monitor.add(screen.push, "", "")
    world.call(world.phone, world.provider)
    play(monitor, world)
    assert screen.events() == ["call"]
    screen.room = 10
    world.register(world.phone)
    play(monitor, world)
    assert screen.events() == ["call", "lost", "registered"]
    assert screen.rows[1]["count"] == 2
    assert problems(dict(screen.rows[1]), "monitor") == []


def test_watchers_are_bounded_and_leave() -> None:
    """There are MOST_WATCHERS at once; who leaves makes room, and hears nothing more."""
    world, screen, monitor = World(), Screen(), Monitor()
    leave = [monitor.add(screen.push, "", "") for _ in range(MOST_WATCHERS)]
    with pytest.raises(Busy):
        monitor.add(screen.push, "", "")
    for each in leave:
        each()
    assert not monitor.is_watched
    world.register(world.phone)
    play(monitor, world)
    assert screen.rows == []


def test_new_address_is_an_event() -> None:
    """The engine's note of another outside address becomes an event with both."""
    world = World()
    outcome = world.change_outside_address("203.0.113.7")
    row, = rows_from_decision(Decision(world.now, "", outcome, False))
    assert (row["event"], row["old"], row["new"]) == ("address-changed", "203.0.113.1", "203.0.113.7")
    assert problems(row, "monitor") == []


def test_hostile_text_is_cut_and_harmless() -> None:
    """A name of 10 kB with escape sequences is one short printable line."""
    world = World()
    world.call(world.phone, world.provider)
    event = world.engine.pop_events()[0]
    assert event.call is not None
    event.call.from_header = f'"{HOSTILE}" <sip:{HOSTILE}@example.com>'
    event.call.to_header = f"<sip:{'x' * 10_000}@example.com>"
    line = event_line(row_from_event(event))
    assert line.isprintable()
    assert len(line) < 600
