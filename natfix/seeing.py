"""What the daemon has for those who look: events as they happen, the messages of calls, the UAs.

Everything is fed by the journal, after the verdicts, and is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from socket import inet_ntoa
from typing import Any

from natfix.agents import Agents
from natfix.capturing import Capturing
from natfix.chronicle import Chronicle, History
from natfix.control import Handler, Streamer
from natfix.errors import NatfixError
from natfix.explaining import explanation
from natfix.happenings import Event
from natfix.journal import RING, Decision
from natfix.listener import Listener
from natfix.loop import Loop
from natfix.monitor import Monitor, Push
from natfix.upkeep import Upkeep

MOST_CHOICES = 8        # calls that are named where a part of a Call-ID is not unique
MOST_COUNTED = 32       # calls that end in one moment, whose packets are counted for a monitor


class Seeing:
    """The parts, wired to the loop's journal, and what the control socket may ask of them."""

    def __init__(self, loop: Loop, upkeep: Upkeep) -> None:
        self._loop = loop
        self._upkeep = upkeep
        self.monitor = Monitor()
        self.agents = Agents()
        self.chronicle = Chronicle()
        self._capturing = Capturing(loop, self.chronicle)
        self._listener = Listener(loop, upkeep)
        journal = loop.journal
        journal.event_listeners.append(self._on_events)
        journal.decision_listeners += [
            self.monitor.on_decision, self.agents.on_decision, self.chronicle.on_decision,
            self._capturing.on_decision]

    def _on_events(self, events: Sequence[Event]) -> None:
        self.chronicle.on_events(events)
        if self.monitor.is_watched:
            events = [*map(self._counted, events[:MOST_COUNTED]), *events[MOST_COUNTED:]]
            self.monitor.on_events(events)

    def _counted(self, event: Event) -> Event:
        """Add to a call's end what the kernel has counted, as long as its entries are there."""
        if event.kind != "ended" or event.call is None or not self.monitor.wants("ended"):
            return event
        audio = self._loop.engine.audio
        if flows := audio.flows_of_ended(event.call):
            self._upkeep.count(flows, event.at, with_refused=False)
        packets = audio.packets_of(event.call)
        if packets is None:
            return event
        return event._replace(facts={**event.facts, "packets_out": packets[0], "packets_in": packets[1]})

    def begin(self, now: float) -> None:
        """Look after the calls' audio from now on."""
        self._listener.begin(now)

    def status(self) -> dict[str, Any]:
        """Return what belongs into the status."""
        audio = self._loop.engine.audio
        return {"audio": {"watched": len(audio), "one_way": len(audio.alarms())}}

    def handlers(self) -> Mapping[str, Handler]:
        """Return what answers a request with one document."""
        return {"explain": self._explain, "notes": self._notes, "uas": self._uas,
                "capture-end": self._capturing.end}

    def streamers(self) -> Mapping[str, Streamer]:
        """Return what goes on answering until the client goes."""
        return {"monitor": self._watch, "capture": self._capture}

    def _notes(self, request: dict[str, Any]) -> dict[str, Any]:
        count = request.get("count", RING)
        call, host, rule = (_text(request, key) for key in ("call", "host", "rule"))
        wanted = partial(_is_wanted, call=call, host=host, rule=rule)
        count = count if isinstance(count, int) and not isinstance(count, bool) else RING
        return {"decisions": self._loop.journal.entries(count, wanted)}

    def _explain(self, request: dict[str, Any]) -> dict[str, Any]:
        engine, history = self._loop.engine, self._history(_text(request, "call"))
        for each in history.calls:
            if each.key in history.live and (flows := engine.audio.flows_of_ended(each)):
                self._upkeep.count(flows[:MOST_COUNTED], self._loop.clock(), with_refused=True)
        audio = {each.key.inside_host: row for each in history.calls
                 if (row := engine.audio.row(each.key)) is not None}
        return explanation(history, engine.mappings, self._loop.kernel, audio)

    def _history(self, call: str) -> History:
        """Return what is kept of the one call whose Call-ID is, or has in it, *call*."""
        found = self.chronicle.find(call) if call else []
        if len(found) != 1:
            raise NatfixError(_choice(call, [history.call_id for history in found]))
        return found[0]

    def _uas(self, _request: dict[str, Any]) -> dict[str, Any]:
        rows = self.agents.rows(self._loop.skeleton.outside_interfaces, self._loop.clock())
        return {"uas": rows}

    def _watch(self, request: dict[str, Any], push: Push) -> Callable[[], None]:
        return self.monitor.add(push, _text(request, "call"), _text(request, "host"))

    def _capture(self, request: dict[str, Any], push: Push) -> Callable[[], None]:
        call = _text(request, "call")
        wanted = {"call": self._history(call).call_id if call else "",
                  "host": _text(request, "host"), "name": _text(request, "name")}
        return self._capturing.add(wanted, push)


def _text(request: dict[str, Any], key: str) -> str:
    value = request.get(key, "")
    if not isinstance(value, str):
        raise NatfixError(f'"{key}" is to be text')
    return value


def _choice(text: str, call_ids: Sequence[str]) -> str:
    """Return why *text* is no answer to the question which call."""
    if not call_ids:
        return "no call has that in its Call-ID: `natfix calls` lists them"
    shown = ", ".join(ascii(call_id[:60]) for call_id in call_ids[:MOST_CHOICES])
    more = f" and {len(call_ids) - MOST_CHOICES} more" if len(call_ids) > MOST_CHOICES else ""
    return f"{len(call_ids)} calls have that in their Call-ID: {shown}{more}"


def _is_wanted(decision: Decision, call: str, host: str, rule: str) -> bool:
    """Tell whether a decision passes the filters of `natfix notes`; "" lets everything pass."""
    notes, raw = decision.outcome.notes, decision.raw
    if call not in decision.outcome.call_id or (rule and all(note.rule != rule for note in notes)):
        return False
    if not host or (raw and host in (inet_ntoa(raw[12:16]), inet_ntoa(raw[16:20]))):
        return True
    return any(_names(text, host) for note in notes for text in (note.old, note.new))


def _names(text: str, host: str) -> bool:
    """Tell whether *text* has the address *host*, and not just one that begins or ends so."""
    return re.search(rf"(?<![\d.]){re.escape(host)}(?!\.?\d)", text) is not None
