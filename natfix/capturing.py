"""`natfix capture`, the daemon's half: messages as they came and as they went on, with the reasons.

The packets have their verdicts by then, and nobody waits: what a reader does not take is dropped and counted.
The last messages of calls are kept, bounded in bytes, so that a capture that is begun in the middle of a call
has its beginning.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.chronicle import OUTSIDE_DIALOGS, Chronicle
from natfix.commands import Note, Outcome, SendPacket, Treated
from natfix.errors import Busy, MalformedMessage, MalformedPacket, NatfixError
from natfix.journal import Decision, entry_from_note
from natfix.loop import Loop
from natfix.monitor import Push
from natfix.packet import UDP, packet_from_bytes
from natfix.segment import segment_from_bytes
from natfix.sip.message import is_sip, message_from_bytes
from natfix.wall import wall

MOST_READERS = 4
MOST_BYTES = 4 << 20        # of kept messages, all in all, about
SEEN_BYTES = 1500           # of a message that is kept, beside its octets, about
MOST_WAITING = 256          # messages that one reader may be behind, beside what the control socket holds
AT_ONCE = 48                # messages that are handed out before packets have their turn again
PAUSE = 0.05                # seconds until a reader that takes no more is asked again
SCHEMA_VERSION = 1

NOWHERE = Endpoint("", 0)

Row = dict[str, Any]


class Seen(NamedTuple):
    """One message, and what became of it."""

    at: float
    where: str
    summary: str
    notes: Sequence[Note]
    verdict: str            # "accept", "drop", "segment" of TCP, or "own" for what natfix itself sends
    treated: Treated        # of what was dropped there is no other side, of what is natfix's own no first one


class Reader:
    """One who captures, and what he wants."""

    def __init__(self, push: Push, call_id: str, host: str) -> None:
        """Without *call_id* and *host* everything is wanted."""
        self.push = push
        self.call_id = call_id
        self.host = host
        self.lost = 0
        self.is_ending = False
        self.waiting: deque[Seen | Row] = deque()

    def wants(self, seen: Seen) -> bool:
        """Tell whether *seen* is what is captured."""
        treated = seen.treated
        if self.call_id and treated.call_id != self.call_id:
            return False
        return not self.host or self.host in (treated.source.host, treated.destination.host,
                                              treated.shown_source.host, treated.shown_destination.host)

    def offer(self, seen: Seen) -> None:
        """Take a message, or drop and count it."""
        if self.is_ending:
            return
        if len(self.waiting) < MOST_WAITING:
            self.waiting.append(seen)
        else:
            self.lost += 1


class Capturing:
    """Keeps the last messages of calls, and hands messages to readers."""

    def __init__(self, loop: Loop, chronicle: Chronicle) -> None:
        self._loop = loop
        self._chronicle = chronicle
        self._kept: deque[Seen] = deque()
        self._bytes = 0
        self._readers: dict[str, Reader] = {}       # by the name that each has given himself

    def on_decision(self, decision: Decision) -> None:
        """Take a decision; the chronicle has to have heard of it."""
        outcome = decision.outcome
        for treated in outcome.treated:
            seen = _seen_treated(decision, treated)
            if self._chronicle.knows(treated.call_id) and not treated.octets.startswith(OUTSIDE_DIALOGS):
                self._keep(seen)
            self._offer(seen)
        if self._readers and (outcome.send or not outcome.treated):
            for seen in self._seen_otherwise(decision):
                self._offer(seen)

    def _keep(self, seen: Seen) -> None:
        self._kept.append(seen)
        self._bytes += _weight(seen)
        while self._bytes > MOST_BYTES:
            self._bytes -= _weight(self._kept.popleft())

    def _offer(self, seen: Seen) -> None:
        for reader in self._readers.values():
            if reader.wants(seen):
                reader.offer(seen)
                self._loop.call_at(seen.at, self._hand_out)

    def _seen_otherwise(self, decision: Decision) -> Iterator[Seen]:
        """Yield what the engine has not treated, or sent by itself."""
        outcome = decision.outcome
        if not outcome.treated and (treated := self._untreated(decision)) is not None:
            # What follows from a segment is another one, and not known here.
            verdict = "drop" if decision.dropped else "accept" if treated.protocol == UDP else "segment"
            yield Seen(decision.at, decision.where, outcome.summary, outcome.notes, verdict, treated)
        for own in outcome.send:
            if isinstance(own, SendPacket) and is_sip(own.payload):
                yield _seen_own(decision, outcome, own)

    def _untreated(self, decision: Decision) -> Treated | None:
        """Return the message in a packet that was dropped or left alone; None where there is none.

        It was seen between the NAT of the way in and that of the way out.
        """
        read = packet_from_bytes if decision.raw[9:10] == bytes((UDP,)) else segment_from_bytes
        try:
            packet = read(decision.raw)
        except MalformedPacket:
            return None
        if not is_sip(packet.payload):
            return None
        try:
            call_id = message_from_bytes(packet.payload).call_id
        except MalformedMessage:
            call_id = ""
        came_by = decision.where.split(" ")[1] if " " in decision.where else ""
        is_inward = came_by in self._loop.skeleton.outside_interfaces
        source, destination = packet.source, packet.destination
        return Treated(
            call_id or decision.outcome.call_id, decision.raw[9],
            source, self._outside_of(destination) if is_inward else destination, packet.payload,
            source if is_inward else self._outside_of(source), destination, packet.payload)

    def _outside_of(self, inside: Endpoint) -> Endpoint:
        mapping = self._loop.engine.mappings.find(inside)
        return mapping.outside if mapping is not None else inside

    # readers

    def add(self, request: Row, push: Push) -> Callable[[], None]:
        """Begin to hand out what *request* wants; return what ends it.

        Raises Busy where too many capture, NatfixError where no call, or more than one, is meant.
        """
        call_id, host, name = (str(request.get(key, "")) for key in ("call", "host", "name"))
        if len(self._readers) >= MOST_READERS or name in self._readers:
            raise Busy(f"{MOST_READERS} captures run already")
        reader = Reader(push, call_id, host)
        kept = [seen for seen in self._kept if seen.treated.call_id == call_id][-MOST_WAITING:]
        reader.waiting.append({"event": "begin", "call_id": call_id, "kept": len(kept),
                               "not_kept": self._missing(call_id, len(kept))})
        reader.waiting.extend(kept)
        self._readers[name] = reader
        self._loop.call_at(self._loop.clock(), self._hand_out)
        return lambda: self._remove(name, reader)

    def _missing(self, call_id: str, kept: int) -> int:
        """Return how many messages of a call are there no more."""
        found = self._chronicle.find(call_id) if call_id else []
        return max(0, sum(len(each.messages) + each.forgotten for each in found) - kept)

    def _remove(self, name: str, reader: Reader) -> None:
        if self._readers.get(name) is reader:
            del self._readers[name]

    def end(self, request: Row) -> Row:
        """Hand out what waits, then say that this was all; raises NatfixError for a reader that is none."""
        reader = self._readers.get(str(request.get("name", "")))
        if reader is None:
            raise NatfixError("there is no such capture")
        if not reader.is_ending:
            reader.is_ending = True
            reader.waiting.append({"event": "end"})
            self._loop.call_at(self._loop.clock(), self._hand_out)
        return {"waiting": len(reader.waiting)}

    def _hand_out(self, now: float) -> None:
        """Give each reader what waits for him, as much as may be done at once."""
        for reader in self._readers.values():
            pause = 0.0
            for _ in range(min(AT_ONCE, len(reader.waiting))):
                if not reader.push({"schema_version": SCHEMA_VERSION, **_row(reader), "lost": reader.lost}):
                    pause = PAUSE
                    break
                reader.waiting.popleft()
            if reader.waiting:
                self._loop.call_at(now + pause, self._hand_out)


def _seen_treated(decision: Decision, treated: Treated) -> Seen:
    return Seen(decision.at, decision.where, decision.outcome.summary, decision.outcome.notes,
                "drop" if decision.stops(treated) else "accept", treated)


def _seen_own(decision: Decision, outcome: Outcome, own: SendPacket) -> Seen:
    return Seen(decision.at, decision.where, "", outcome.notes, "own", Treated(
        outcome.call_id, UDP, NOWHERE, NOWHERE, b"", own.source, own.destination, own.payload))


def _weight(seen: Seen) -> int:
    return SEEN_BYTES + len(seen.treated.octets) + len(seen.treated.shown_octets)


def _row(reader: Reader) -> Row:
    """Return what waits first for *reader*, for JSON."""
    seen = reader.waiting[0]
    if isinstance(seen, dict):
        return seen
    treated = seen.treated
    row: Row = {
        "event": "message", "at": wall(seen.at), "where": seen.where, "call_id": treated.call_id,
        "summary": seen.summary, "verdict": seen.verdict, "protocol": treated.protocol,
        "notes": [entry_from_note(note) for note in seen.notes]}
    if seen.verdict != "own":
        row |= {"source": list(treated.source[:2]), "destination": list(treated.destination[:2]),
                "octets": b64encode(treated.octets).decode()}
    if seen.verdict in ("accept", "own"):
        row |= {"shown_source": list(treated.shown_source[:2]),
                "shown_destination": list(treated.shown_destination[:2])}
        if treated.shown_octets != treated.octets:
            row["shown_octets"] = b64encode(treated.shown_octets).decode()
    return row
