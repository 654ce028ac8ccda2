"""What has happened to calls and registrations, one event each, for those who watch (`natfix monitor`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from natfix.dialogs import Call
from natfix.registrations import Binding

MOST = 2048         # events that wait to be taken; the shell takes them after every read of the queue
NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class Event(NamedTuple):
    """One thing that happened; whose text it is, is made only when somebody watches."""

    kind: str                   # "call", "ringing", "answered", "ended", "registered", "alarm", ...
    at: float                   # on the shell's clock
    call: Call | None = None
    binding: Binding | None = None
    facts: Mapping[str, Any] = NO_FACTS     # JSON-able


class Happenings:
    """Events in their order, until they are taken; of too many the oldest are forgotten."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self.on_call: Callable[[str, Call, float], None] = lambda kind, call, at: None      # hears at once

    def tell(self, event: Event) -> None:
        """Note that something has happened."""
        self._events.append(event)

    def of_call(self, kind: str, call: Call, at: float, **facts: Any) -> None:
        """Note what has happened to *call*."""
        self._events.append(Event(kind, at, call, None, facts))
        self.on_call(kind, call, at)

    def of_binding(self, kind: str, binding: Binding, at: float) -> None:
        """Note what has happened to a registration."""
        self._events.append(Event(kind, at, None, binding))

    def pop(self) -> list[Event]:
        """Return the events since the last time."""
        events = list(self._events)
        self._events.clear()
        return events
