"""Alarms before something runs out: ports, natfix's tables, the kernel's, and the disk of the state file.

What is taken to four fifths is told once: in the log, to those who watch (`natfix monitor`, the hook), in
`natfix status` and the metrics; and that it is over once there is room again. Where the kernel takes no more
connections, calls that would begin are refused: their audio could not pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from natfix.happenings import Event
from natfix.journal import time_text
from natfix.levels import Level
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.store import Store

EVERY = 2.0             # seconds between two looks
HIGH, LOW = 0.8, 0.7    # shares at which an alarm begins and ends: it must not come and go
CONNTRACK = "conntrack"
STATE_FILE = "state_file"
FULL = "the kernel's connection table is full"
PROC = Path("/proc/sys/net/netfilter")

log = logging.getLogger("natfix")


class Resource(NamedTuple):
    """What an alarm says of one thing."""

    name: str
    cure: str


RESOURCES = {
    "media_ports": Resource(
        "pairs of [media] ports", "give it a larger range, or find who takes so many: natfix calls"),
    "signalling_ports": Resource(
        "[signalling] outside_ports", "give it a larger range, or find who takes so many: natfix uas"),
    "mappings": Resource("[limits] mappings", "raise it, or find who takes so many: natfix calls"),
    "permissions": Resource(
        "places in the kernel's sets of who may send", "find the calls with so many peers: natfix calls; see "
        "[limits] remotes_per_dialog"),
    "dialogs": Resource("[limits] dialogs", "raise it, or find who has so many: natfix calls"),
    "registrations": Resource(
        "[limits] registrations", "raise it, or find who has so many: natfix registrations"),
    "streams": Resource("[limits] streams", "raise it, or find who opens so many connections: natfix uas"),
    CONNTRACK: Resource(
        "connections that the kernel can follow (net.netfilter.nf_conntrack_max)",
        "raise it by sysctl, or find who opens so many: conntrack -L"),
}


def conntrack_level() -> Level:
    """Return how full the connection table of this network namespace is."""
    try:
        used, size = ((PROC / f"nf_conntrack_{name}").read_text() for name in ("count", "max"))
        return Level(int(used), int(size))
    except (OSError, ValueError):
        return Level(0, 0)


class Shortages:
    """Looks now and then, and tells what begins and what is over."""

    def __init__(
        self, loop: Loop, store: Store, conntrack: Callable[[], Level] = conntrack_level,
    ) -> None:
        self._loop = loop
        self._store = store
        self._conntrack = conntrack
        self._alarms: dict[str, tuple[float, str]] = {}     # by resource: since when, and why
        self._refused = 0           # entries that conntrack did not take until now
        self._is_closed = False

    def begin(self, now: float) -> None:
        """Look from now on."""
        self._loop.call_at(now, self.look)

    def look(self, now: float) -> None:
        """Tell what has changed since the last look."""
        self._loop.call_at(now + EVERY, self.look)
        levels = self._levels()
        for name, level in levels.items():
            self._judge(name, level, now)
        self._look_at_store(now)
        self._open_or_close(levels[CONNTRACK])

    def status(self) -> dict[str, Any]:
        """Return what belongs into the status."""
        return {
            "levels": {name: {"used": level.used, "size": level.size}
                       for name, level in self._levels().items()},
            "shortages": [{"resource": name, "since": time_text(since), "why": why}
                          for name, (since, why) in self._alarms.items()],
        }

    def _levels(self) -> dict[str, Level]:
        return {**self._loop.engine.levels.now(), CONNTRACK: self._conntrack()}

    def _judge(self, name: str, level: Level, now: float) -> None:
        resource = RESOURCES[name]
        why = f"{level.used} of {level.size} {resource.name} are taken"
        if level.share >= HIGH and name not in self._alarms:
            self._begin_alarm(name, why, now)
            log.error("natfix: %s; %s", why, resource.cure, extra=kind("nearly-full"))
        elif level.share < LOW and name in self._alarms:
            self._end_alarm(name, why, now)
            log.warning("natfix: there is room again: %s", why, extra=kind("room-again"))

    def _look_at_store(self, now: float) -> None:
        """The store has logged it already, from its own thread."""
        problem = self._store.problem
        if problem and STATE_FILE not in self._alarms:
            self._begin_alarm(STATE_FILE, problem, now)
        elif not problem and STATE_FILE in self._alarms:
            self._end_alarm(STATE_FILE, "it is written again", now)

    def _begin_alarm(self, name: str, why: str, now: float) -> None:
        self._alarms[name] = now, why
        self._loop.journal.tell([Event("shortage", now, facts={"resource": name, "why": why})])

    def _end_alarm(self, name: str, why: str, now: float) -> None:
        del self._alarms[name]
        self._loop.journal.tell([Event("shortage-over", now, facts={"resource": name, "why": why})])

    def _open_or_close(self, conntrack: Level) -> None:
        """Refuse calls from where the kernel has refused an entry until it has room for one.

        That the table is full is no reason yet: the kernel gives up what nobody has answered first.
        """
        refused, self._refused = self._loop.kernel.entries_refused - self._refused, \
            self._loop.kernel.entries_refused
        is_full = bool(conntrack.size) and conntrack.used >= conntrack.size
        is_closed = is_full and (self._is_closed or refused > 0)
        if is_closed != self._is_closed:
            self._is_closed = is_closed
            self._loop.engine.levels.refuse_calls(FULL if is_closed else "")
