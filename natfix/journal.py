"""What natfix did and why: the last decisions for `natfix notes`, and the log on stderr.

Decisions are kept as they are and become text only when somebody asks or the log level is "debug":
the packets have their verdict by then, and nobody waits. SIP text comes from strangers, so whatever of it
reaches a terminal is made printable; credentials never leave the packet.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from natfix.commands import Note, Outcome, Treated
from natfix.happenings import Event
from natfix.message_ids import kind
from natfix.packet import UDP
from natfix.systemd import JournalFormatter, JournalHandler, can_reach_journal, writes_to_journal
from natfix.wall import wall

RING = 200              # decisions kept
ALARM_PAUSE = 60.0      # seconds between two alarms for the same limit
MOST_ALARMS = 100       # limits whose last alarm is remembered; a host's name is part of some
ALARMS = {      # notes that an operator has to know of, by rule: the kind of line, and what he can do
    "limit": (
        "limit", "what needed more was dropped (an INVITE that begins a call) or passed unfixed. Raise it in "
        "natfix.toml, or find who takes so much: `natfix calls`, `natfix registrations`"),
    "gave-way": ("gave-way", "find who rings so many without an answer: `natfix calls`"),
    "rate": (
        "over-rate", "what came faster is dropped. Find out why it floods (`natfix status` counts), or name "
        "the host in natfix.toml as [[peer]], [[trunk]] or [inside] pbx if it may"),
}
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LEVELS = {"error": logging.ERROR, "info": logging.INFO, "debug": logging.DEBUG}
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization"})

log = logging.getLogger("natfix")


class Decision(NamedTuple):
    """One packet or report, and what came of it."""

    at: float           # on the daemon's clock; see natfix.wall
    where: str          # "forward lan0 wan0" for a packet, "" for a report
    outcome: Outcome
    dropped: bool       # by the engine's policy, or because the kernel refused its commands
    raw: bytes = b""    # the packet as it came, b"" for a report

    def stops(self, treated: Treated) -> bool:
        """Tell whether *treated*, a message of it, does not go on; in TCP it does so by another segment."""
        return self.dropped and treated.protocol == UDP


class Journal:
    """The ring of decisions."""

    def __init__(self) -> None:
        self._ring: deque[Decision] = deque(maxlen=RING)
        self._alarmed: dict[str, float] = {}    # by limit, when it was last said
        # Who else wants each decision, and each event, once the verdicts are given.
        self.decision_listeners: list[Callable[[Decision], None]] = []
        self.event_listeners: list[Callable[[Sequence[Event]], None]] = []

    def tell(self, events: Sequence[Event]) -> None:
        """Hand on what has happened."""
        if events:
            for listener in self.event_listeners:
                listener(events)

    def record(self, decision: Decision) -> None:
        """Keep *decision* unless it says nothing; log its notes where the level is "debug"."""
        if not decision.outcome.notes and not decision.outcome.summary:
            return
        self._ring.append(decision)
        for listener in self.decision_listeners:
            listener(decision)
        for note in decision.outcome.notes:
            if note.rule in ALARMS:
                self._alarm(note.reason, *ALARMS[note.rule], decision)
        if log.isEnabledFor(logging.DEBUG):
            for line in lines_from_decision(decision):
                log.debug("%s", line)

    def _alarm(self, limit: str, line: str, advice: str, decision: Decision) -> None:
        """Say that a limit is reached, whatever the log level, and not for each message again."""
        now = decision.at
        if now - self._alarmed.get(limit, 0.0) < ALARM_PAUSE:
            return
        if len(self._alarmed) >= MOST_ALARMS:
            self._alarmed.clear()
        self._alarmed[limit] = now
        log.error("natfix: %s; %s", printable(limit), advice,
                  extra=kind(line, decision.outcome.call_id))

    def entries(
        self, count: int = RING, is_wanted: Callable[[Decision], bool] = lambda decision: True,
    ) -> list[dict[str, Any]]:
        """Return the last *count* decisions that *is_wanted*, oldest first, for JSON."""
        chosen = list(filter(is_wanted, self._ring))
        return [entry_from_decision(decision) for decision in chosen[-count:]] if count > 0 else []


def lines_from_decision(decision: Decision) -> Iterator[str]:
    """Yield one line per note: what changed, or why something was left alone."""
    outcome = decision.outcome
    subject = printable(f"{outcome.summary} [{outcome.call_id}]" if outcome.call_id else outcome.summary)
    if not outcome.notes:
        yield f"{subject}: untouched"
    for note in outcome.notes:
        yield f"{subject}: {line_from_note(note)}"


def line_from_note(note: Note) -> str:
    """Return *note* as one printable line without credentials."""
    reason = "; ".join(text for text in (note.reason, note.rfc) if text)
    if note.header.lower() in SECRET_HEADERS:
        return printable(f"{note.rule} {note.header} ({reason})")
    change = f" {note.old!r} -> {note.new!r}" if note.is_edit else ""
    return printable(f"{note.rule} {note.header}{change} ({reason})" if reason
                     else f"{note.rule} {note.header}{change}")


def printable(text: str) -> str:
    """Return *text* with everything that could steer a terminal or break the line escaped."""
    return text if text.isprintable() else "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def time_text(at: float) -> str:
    """Return *at* (on the daemon's clock) as RFC 3339 text in UTC by the machine's, milliseconds included."""
    at = wall(at)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03}Z"


def set_up_log(level: str) -> None:
    """Send the log of *level* ("error", "info", "debug") to stderr, where systemd picks it up."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    if writes_to_journal():
        handler.setFormatter(JournalFormatter())
        handler = JournalHandler() if can_reach_journal() else handler
    before, log.handlers[:] = log.handlers[:], [handler]
    for each in before:
        if isinstance(each, JournalHandler):
            each.close()
    log.propagate = False
    log.setLevel(LEVELS[level])
    logging.raiseExceptions = False     # a closed stderr must not cost a verdict


def entry_from_decision(decision: Decision) -> dict[str, Any]:
    """Return *decision* for JSON, without credentials; what is empty is left out."""
    outcome = decision.outcome
    entry: dict[str, Any] = {
        "at": time_text(decision.at),
        "where": decision.where,
        "summary": outcome.summary,
        "call_id": outcome.call_id,
        "verdict": "drop" if decision.dropped else "accept",
        "changed": outcome.packet is not None,
        "notes": [entry_from_note(note) for note in outcome.notes],
    }
    return {key: value for key, value in entry.items() if value != ""}


def entry_from_note(note: Note) -> dict[str, str]:
    """Return *note* for JSON, without credentials; what is empty is left out."""
    entry = {"rule": note.rule, "header": note.header, "reason": note.reason, "rfc": note.rfc}
    if note.header.lower() not in SECRET_HEADERS:
        entry |= {"old": note.old, "new": note.new}
    return {key: value for key, value in entry.items() if value}
