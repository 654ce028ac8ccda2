"""`natfix monitor`: what happens, one line each, pushed to whoever watches.

Nothing here waits: a watcher that does not read loses events, and is told how many. Events become text only
while somebody watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from natfix.commands import Note, Verdict
from natfix.dialogs import Call
from natfix.errors import Busy
from natfix.happenings import Event
from natfix.journal import Decision, time_text
from natfix.listing import uri_text
from natfix.registrations import Binding

MOST_WATCHERS = 8
LONGEST_TEXT = 200      # of any one value; a stranger may send a name of 10 kB

# Notes of the engine that are events: which kind, by rule.
OF_NOTES = {"limit": "limit", "gave-way": "limit", "rate": "over-rate", "outside-address": "address-changed",
            "outside-link": "address-changed"}
REFUSING = frozenset({"policy", "names", "limit", "stranger"})      # notes that say why a packet was dropped

Push = Callable[[Mapping[str, Any]], bool]      # False: the watcher cannot take any more now


class Watcher:
    """One who watches, and what he wants to see."""

    def __init__(self, push: Push, call: str, host: str, events: frozenset[str]) -> None:
        """*call* is a part of a Call-ID, *host* an address that an event has to be about; without *events*
        all are wanted."""
        self.events = events
        self._push = push
        self._call = call
        self._host = host
        self._lost = 0

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the event *row* passes the filters."""
        if self.events and row["event"] not in self.events:
            return False
        if self._call and self._call not in row.get("call_id", ""):
            return False
        return not self._host or any(_is_of(str(row.get(key, "")), self._host) for key in HOSTS)

    def tell(self, row: Mapping[str, Any]) -> None:
        """Push *row*, after a word about those that were lost before it."""
        if self._lost:
            if not self._push({"schema_version": 1, "at": row["at"], "event": "lost", "count": self._lost}):
                self._lost += 1
                return
            self._lost = 0
        if not self._push(row):
            self._lost += 1


HOSTS = ("inside", "outside", "peer", "registrar", "host")


class Monitor:
    """Makes rows of events, and gives them to the watchers."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    @property
    def is_watched(self) -> bool:
        """Tell whether anybody watches."""
        return bool(self._watchers)

    def wants(self, kind: str) -> bool:
        """Tell whether anybody watches events of that *kind*."""
        return any(not watcher.events or kind in watcher.events for watcher in self._watchers)

    def add(
        self, push: Push, call: str, host: str, events: frozenset[str] = frozenset(),
    ) -> Callable[[], None]:
        """Begin to push; return what ends it. Raises Busy where too many watch."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise Busy(f"{MOST_WATCHERS} monitors run already")
        watcher = Watcher(push, call, host, events)
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def on_events(self, events: Iterable[Event]) -> None:
        """Take what the engine, or the shell, says has happened."""
        self._push(row_from_event(event) for event in events if self.wants(event.kind))

    def on_decision(self, decision: Decision) -> None:
        """Take a decision, which may hold events of its own: what was dropped, and why."""
        if self._watchers:
            self._push(rows_from_decision(decision))

    def _push(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            for watcher in tuple(self._watchers):
                if watcher.wants(row):
                    watcher.tell(row)


def row_from_event(event: Event) -> dict[str, Any]:
    """Return *event* as `natfix monitor --json` prints it."""
    row: dict[str, Any] = {"schema_version": 1, "at": time_text(event.at), "event": event.kind}
    if event.call is not None:
        row |= _of_call(event.call, event.kind)
        if event.kind == "ended":
            row["duration"] = round(event.at - (event.call.answered_at or event.call.started), 1)
            row["answered"] = event.call.answered_at is not None
    if event.binding is not None:
        row |= _of_binding(event.binding)
    return {key: _cut(value) for key, value in (row | dict(event.facts)).items()}


def _of_call(call: Call, kind: str) -> dict[str, Any]:
    row = {"call_id": call.key.call_id, "method": call.method, "inside": str(call.inside),
           "peer": str(call.peer), "from": uri_text(call.from_header), "to": uri_text(call.to_header)}
    return row | {"role": call.key.role.value} if kind == "call" else row


def _of_binding(binding: Binding) -> dict[str, Any]:
    return {"aor": binding.key.aor, "inside": str(binding.key.inside), "outside": binding.shown,
            "registrar": str(binding.registrar), "user_agent": binding.agent}


def rows_from_decision(decision: Decision) -> Iterator[dict[str, Any]]:
    """Yield the events that a decision's notes are; one for a message that was dropped by policy."""
    outcome = decision.outcome
    at = time_text(decision.at)
    for note in outcome.notes:
        if note.rule in OF_NOTES:
            yield _of_note(OF_NOTES[note.rule], at, note, outcome.call_id)
    if outcome.verdict is Verdict.DROP and outcome.notes and outcome.notes[0].rule in REFUSING:
        yield _of_note("refused", at, outcome.notes[0], outcome.call_id, outcome.summary)


def _of_note(kind: str, at: str, note: Note, call_id: str, summary: str = "") -> dict[str, Any]:
    row = {"schema_version": 1, "at": at, "event": kind, "call_id": call_id, "summary": summary,
           "host": note.old if kind in ("over-rate", "refused") else "",
           "old": note.old if kind == "address-changed" else "",
           "new": note.new if kind == "address-changed" else "", "why": note.reason}
    return {key: _cut(value) for key, value in row.items() if value != ""}


def _is_of(text: str, host: str) -> bool:
    return text == host or text.startswith(host + ":")


def _cut(value: Any) -> Any:
    return value[:LONGEST_TEXT - 3] + "..." if isinstance(value, str) and len(value) > LONGEST_TEXT else value
