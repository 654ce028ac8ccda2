"""`natfix down --drain`: wait until the calls have ended, and let no new ones begin meanwhile.

The daemon drains for as long as the command asks it to, and a moment longer: where the command is interrupted
or its session ends, natfix is in force again by itself, as if nothing had been asked.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from natfix.address import Endpoint
from natfix.control import request
from natfix.draining import Draining
from natfix.errors import NotRunning
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.tables import duration

LEASE = 5.0             # seconds that the daemon goes on draining without being asked again
ASK_EVERY = 1.0         # seconds between two questions
LOOK_EVERY = 5.0        # seconds between two looks at the kernel's maps, for an endpoint that is new

log = logging.getLogger("natfix")

Shown = dict[Endpoint, Endpoint]


class Drain:
    """The daemon's half."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._until = 0.0
        self._shown: Shown = {}
        self._looked = 0.0

    @property
    def is_on(self) -> bool:
        """Tell whether new calls are refused."""
        return self._until > 0

    def ask(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Drain for LEASE seconds more; return how many calls there are."""
        now = self._loop.clock()
        if not self.is_on:
            running = [call["call_id"] for call in self._loop.engine.calls(now)]
            self._loop.gate = Draining(running, self._outside_of).judge
            log.info("natfix: waits for the calls to end; new ones are refused", extra=kind("drain"))
        self._until = now + LEASE
        self._loop.call_at(self._until, self._lapse)
        return {"calls": self._loop.engine.status(now)["calls"]}

    def _lapse(self, now: float) -> None:
        if now < self._until:
            self._loop.call_at(self._until, self._lapse)
            return
        self._until = 0.0
        self._loop.gate = None
        log.info("natfix: nobody waits any more; new calls are fixed again", extra=kind("drain-over"))

    def _outside_of(self, asked: Endpoint) -> Endpoint | None:
        """Return what stands for an inside endpoint at the link that it names, or at the first one."""
        now, inside = self._loop.clock(), asked.on_wire
        if asked in self._shown:
            return self._shown[asked]
        if inside not in self._shown and now >= self._looked + LOOK_EVERY:
            self._looked = now
            self._shown = {each.inside: each.outside for each in self._loop.kernel.mappings()}
        return self._shown.get(asked) or self._shown.get(inside)


def wait_for_calls(control_socket: str, seconds: int, say: Callable[[int, float], None]) -> int:
    """Wait until no call is left, or *seconds* have passed (0: without end); return how many are left.

    *say* is told the number of calls and the seconds waited, each time. A daemon that does not run has none.
    """
    began = time.monotonic()
    while True:
        try:
            calls: int = request(control_socket, {"command": "drain"})["calls"]
        except NotRunning:
            return 0
        waited = time.monotonic() - began
        say(calls, waited)
        if not calls or (seconds and waited >= seconds):
            return calls
        time.sleep(ASK_EVERY)


class Progress:
    """Says how many calls are left: in one line that changes on a terminal, else whenever it changes."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._calls = -1

    def __call__(self, calls: int, waited: float) -> None:
        text = f"natfix: {calls} {'call' if calls == 1 else 'calls'} left, new ones are refused"
        if self._is_terminal:
            print(f"\r{text} ({duration(waited)})\x1b[K", end="\n" if not calls else "", flush=True)
        elif calls != self._calls:
            print(text, flush=True)
        self._calls = calls


def drain(control_socket: str, seconds: int) -> int:
    """Wait as :func:`wait_for_calls` does, and say on stdout how it goes."""
    try:
        return wait_for_calls(control_socket, seconds, Progress(sys.stdout.isatty()))
    except KeyboardInterrupt:
        print(f"\nnatfix: stays in force; new calls are let in again within {LEASE:.0f} s", flush=True)
        raise
