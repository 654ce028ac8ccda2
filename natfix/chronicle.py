"""The messages of calls, for `natfix explain`: the last ones of each live call, and of those that ended last.

The ring of decisions holds the last 200 of all; a call's beginning would be gone from it long before the
call is. Kept here is what explains: who sent what where, the first line, and the notes; never a body. All in
all that is bounded in bytes: where calls have more, the longest untouched call's history goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.dialogs import Call, CallKey
from natfix.happenings import Event
from natfix.journal import Decision

MOST_MESSAGES = 64          # of one call
MOST_ENDED = 50             # calls
MOST_EVENTS = 32            # of one call
MOST_BYTES = 24 << 20       # of all, about
LONGEST_LINE = 160          # of a message's first line; the note's texts are cut likewise
MESSAGE_BYTES, NOTE_BYTES = 700, 200    # of a message and of a note without their texts, about
ENDS = frozenset({"ended", "challenged"})
OUTSIDE_DIALOGS = (b"REGISTER ", b"OPTIONS ")


class Sent(NamedTuple):
    """One message."""

    at: float
    source: Endpoint            # as it came in
    destination: Endpoint
    shown_source: Endpoint      # as it went out
    shown_destination: Endpoint
    line: str
    notes: tuple[Note, ...]
    dropped: bool

    @property
    def weight(self) -> int:
        """Its bytes in memory, about."""
        return MESSAGE_BYTES + sum(NOTE_BYTES + len(note.old) + len(note.new) for note in self.notes)


@dataclass(slots=True, eq=False)
class History:
    """What is kept of one Call-ID."""

    call_id: str
    messages: deque[Sent] = field(default_factory=deque)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    calls: list[Call] = field(default_factory=list)     # one for each inside party
    forgotten: int = 0      # messages that were too many
    live: set[CallKey] = field(default_factory=set)     # those of its calls that have not ended


class Chronicle:
    """The histories, live ones and those of the last ended calls."""

    def __init__(self) -> None:
        self._live: OrderedDict[str, History] = OrderedDict()
        self._ended: OrderedDict[str, History] = OrderedDict()
        self._bytes = 0

    def on_events(self, events: Sequence[Event]) -> None:
        """Take what has happened to calls; it comes before the message that has made it happen."""
        for event in events:
            if event.call is not None:
                self._on_event(event, event.call)

    def _on_event(self, event: Event, call: Call) -> None:
        call_id = call.key.call_id
        history = self._live.get(call_id) or self._ended.pop(call_id, None)
        if history is None:
            history = History(call_id)
        history.events.append(event._replace(call=None))
        if call not in history.calls:
            history.calls.append(call)
            del history.calls[:-4]
        if event.kind in ENDS:
            history.live.discard(call.key)
        else:
            history.live.add(call.key)
        if history.live:
            self._live[call_id] = history
            return
        self._live.pop(call_id, None)
        self._ended[call_id] = history
        while len(self._ended) > MOST_ENDED:
            self._forget(self._ended.popitem(last=False)[1])

    def on_decision(self, decision: Decision) -> None:
        """Keep the messages of a decision that belong to a call."""
        for treated in decision.outcome.treated:
            history = self._live.get(treated.call_id) or self._ended.get(treated.call_id)
            if history is None or treated.octets.startswith(OUTSIDE_DIALOGS):
                continue
            line = treated.octets.lstrip(b"\r\n")[:LONGEST_LINE].partition(b"\r\n")[0].partition(b"\n")[0]
            self._add(history, Sent(
                decision.at, treated.source, treated.destination, treated.shown_source,
                treated.shown_destination, line.decode("latin-1"),
                tuple(map(_shortened, decision.outcome.notes)), decision.stops(treated)))

    def _add(self, history: History, message: Sent) -> None:
        history.messages.append(message)
        self._bytes += message.weight
        if len(history.messages) > MOST_MESSAGES:
            self._bytes -= history.messages.popleft().weight
            history.forgotten += 1
        if history.call_id in self._live:
            self._live.move_to_end(history.call_id)
        while self._bytes > MOST_BYTES:
            self._forget(next(iter(self._ended.values()), None) or next(iter(self._live.values())))

    def _forget(self, history: History) -> None:
        """Forget a history's messages; a live call's go on being kept from here on."""
        self._bytes -= sum(message.weight for message in history.messages)
        history.forgotten += len(history.messages)
        history.messages.clear()
        if self._ended.get(history.call_id) is history:
            del self._ended[history.call_id]
        elif history.call_id in self._live:
            self._live.move_to_end(history.call_id)

    def knows(self, call_id: str) -> bool:
        """Tell whether anything is kept of that Call-ID."""
        return call_id in self._live or call_id in self._ended

    def find(self, text: str) -> list[History]:
        """Return the histories whose Call-ID is *text*, or, where none is, has it in it; live ones first."""
        everything = {**self._ended, **self._live}
        if text in everything:
            return [everything[text]]
        return [history for kept in (self._live, self._ended) for call_id, history in kept.items()
                if text in call_id]


def _shortened(note: Note) -> Note:
    if len(note.old) <= LONGEST_LINE and len(note.new) <= LONGEST_LINE:
        return note
    return note._replace(old=note.old[:LONGEST_LINE], new=note.new[:LONGEST_LINE])
