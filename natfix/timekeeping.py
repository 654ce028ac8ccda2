"""The daemon's clock, which never jumps, and what the machine's clock says beside it.

The engine's time is CLOCK_MONOTONIC and a constant, so that setting the machine's clock moves no deadline.
Like the kernel's own timeouts (of elements and conntrack entries) it stands still while the machine sleeps.
The constant makes it seconds since 1970 as natfix knew them when it first ran, and the state file keeps it:
after a restart, times in the rows of before mean what they meant, whatever the clock was set to meanwhile.

After a reboot only the machine's clock tells how long that took. One that is behind what was written before
(a gateway without a battery starts in the past) is not believed: then no time has passed.

What people read is the machine's time: :func:`wall`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from natfix.happenings import Event
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.reports import Change
from natfix.rows import latest_time
from natfix.wall import WALL

EVERY = 2.0             # seconds between two looks at the machine's clock
JUMP = 1.0              # seconds by which it must move between them to have been set
TABLE, KEY = "clock", "frame"   # of the row in the state file
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger("natfix")


def boot_id() -> str:
    """Return what tells this run of the kernel from all others; "" where it does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Clock:
    """Seconds that go on as in the rows of before, and never jump."""

    def __init__(self, rows: Iterable[Change] = (), boot: str = "") -> None:
        """*rows* are those of the state file, *boot* is this run of the kernel's :func:`boot_id`."""
        rows = tuple(rows)
        before = next((row.row for row in rows if (row.table, row.key) == (TABLE, KEY) and row.row), {})
        monotonic = time.monotonic()
        if boot and before.get("boot") == boot and (kept := _number(before, "constant")):
            self._constant = kept
        else:
            now = time.time() - _number(before, "ahead")
            self._constant = max(now, latest_time(rows)) - monotonic
        self._boot = boot

    def __call__(self) -> float:
        return self._constant + time.monotonic()

    def ahead(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one now."""
        return time.time() - self()

    def frame(self, ahead: float) -> Change:
        """Return the row that the next start takes."""
        return Change(TABLE, KEY, {"boot": self._boot, "constant": self._constant, "ahead": ahead})


def _number(row: dict[str, Any], name: str) -> float:
    value = row.get(name, 0.0)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


class Timekeeper:
    """Watches the machine's clock: says when it was set, and keeps what people read right."""

    def __init__(self, loop: Loop, clock: Clock, remember: Callable[[Iterable[Change]], None]) -> None:
        """*remember* writes rows to the state file."""
        self._loop = loop
        self._clock = clock
        self._remember = remember
        self._written = 0.0

    def begin(self, now: float) -> None:
        """Watch from now on."""
        WALL.ahead = self._clock.ahead()
        self._write()
        self._loop.call_at(now + EVERY, self.look)

    def look(self, now: float) -> None:
        """Take up what the machine's clock says now."""
        self._loop.call_at(now + EVERY, self.look)
        before, WALL.ahead = WALL.ahead, self._clock.ahead()
        moved = WALL.ahead - before
        if abs(moved) > JUMP:
            way = "forward" if moved > 0 else "back"
            log.warning("natfix: the machine's clock was set %s by %.0f s; no deadline moves by that", way,
                        abs(moved), extra=kind("clock-set"))
            self._loop.journal.tell([Event("clock-set", now, facts={"seconds": round(moved)})])
        if abs(WALL.ahead - self._written) > JUMP:
            self._write()

    def _write(self) -> None:
        self._written = WALL.ahead
        self._remember([self._clock.frame(self._written)])
