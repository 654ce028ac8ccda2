"""Looks at the counters of calls' audio, a few at a time, so that a one-way call is told within seconds.

The cost is bounded: LOOKUPS conntrack entries every PAUSE seconds, whatever number of calls there is; with
more calls than that allows, those that go well wait longer (:mod:`natfix.audio` says who comes first).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from natfix.happenings import Event
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.tables import printable
from natfix.upkeep import Upkeep

PAUSE = 0.1             # seconds between two looks while calls are watched
LOOKUPS = 48            # entries of one look: some 1.5 ms in which packets wait
IDLE = 0.25             # seconds between two looks for calls
REFUSED_EVERY = 1.0     # seconds between two looks at strangers' packets
WHERE = {"in": "from outside", "out": "towards outside"}

log = logging.getLogger("natfix")


class Listener:
    """The schedule of :class:`natfix.audio.Audio`."""

    def __init__(self, loop: Loop, upkeep: Upkeep) -> None:
        self._loop = loop
        self._upkeep = upkeep
        self._audio = loop.engine.audio
        self._refused_at = 0.0
        loop.journal.event_listeners.append(self._log)

    def begin(self, now: float) -> None:
        """Look from now on."""
        self._loop.call_at(now + IDLE, self._look)

    def _look(self, now: float) -> None:
        self._loop.call_at(now + (PAUSE if len(self._audio) else IDLE), self._look)
        flows = self._audio.due(now, LOOKUPS)
        if flows:
            is_time = self._audio.is_suspicious and now >= self._refused_at + REFUSED_EVERY
            self._refused_at = now if is_time else self._refused_at
            self._upkeep.count(flows, now, with_refused=is_time)
        self._audio.judge(now, self._upkeep.refused)
        self._loop.journal.tell(self._loop.engine.pop_events())

    def _log(self, events: Sequence[Event]) -> None:
        """Say it once for each call that its audio goes one way, and once that it does no more."""
        for event in events:
            if event.call is None or event.kind not in ("alarm", "alarm-over") or event.facts["nth"] > 1:
                continue
            is_over = event.kind == "alarm-over"
            log.log(logging.INFO if is_over else logging.WARNING, "call %s: %s %s: %s",
                    printable(event.call.key.call_id[:80]), "audio is back" if is_over else "no audio",
                    WHERE[event.facts["direction"]], printable(event.facts["why"]),
                    extra=kind("audio-back" if is_over else "one-way-audio", event.call.key.call_id))
