"""SIP over TCP: the connections that natfix relays, and the way of their messages to the engine.

A connection is taken up at its SYN and SYN-ACK or not at all (design, section 7). Its two outside names,
the port that the kernel has chosen, come with :class:`natfix.reports.StreamOpened`; what
:mod:`natfix.streams` cuts out of it is treated as a datagram would be, with a mapping of its own: requests
towards a phone come by the connection that it opened (RFC 5923), to which its Contact leads.

A restarted natfix does not know where in a stream messages begin, nor by how much the numbers of both sides
differ: the connections that it knows from before are reset, so that UAs connect anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from natfix.address import Endpoint
from natfix.commands import Flow, Kind, Note, Outcome, ReleaseStream, SendSegment, Verdict
from natfix.config import Limits
from natfix.deadlines import NEVER, Deadlines
from natfix.errors import LimitReached, MalformedPacket
from natfix.mappings import Mapping, Mappings
from natfix.packet import Packet
from natfix.realms import Realms
from natfix.registrations import Registrations
from natfix.reports import Change
from natfix.rows import endpoint_from_row
from natfix.segment import ACK, RST, SYN, Segment, reset_for, segment_from_bytes
from natfix.streams import Reaction, State, Stream, Streams

TABLE = "streams"           # of the store
STREAM = "stream"           # in the heap of deadlines
HOLDER = ("stream",)        # holds a connection's mapping
TLS = b"\x16\x03"           # how a TLS connection begins: a handshake record (RFC 8446, section 5.1)
UNREADABLE = "TLS: nobody on the way can read or change it"
UNKNOWN = Endpoint("", 0)
DAMAGED = (KeyError, TypeError, ValueError, IndexError)
MOST_LOST = 65536           # connections from before a restart
LOST_FOR = 7200.0           # seconds that such a one is reset; conntrack has forgotten it by then

Key = tuple[Endpoint, Endpoint]     # the inside end, and the peer
NOTHING_OPENED = (UNKNOWN, UNKNOWN), UNKNOWN

Treat = Callable[[Outcome, Packet, Mapping | None, Mapping | None, float], bytes | None]
"""Treats one message of a sender, a receiver or both; None where it goes no further."""


class Streaming:
    """Takes TCP packets to their streams, and what comes of them back into outcomes."""

    def __init__(
        self, limits: Limits, realms: Realms, mappings: Mappings, registrations: Registrations,
        deadlines: Deadlines, counters: Counter[str], treat: Treat,
    ) -> None:
        self._realms = realms
        self._mappings = mappings
        self._registrations = registrations
        self._deadlines = deadlines
        self._counters = counters
        self._treat = treat
        self.streams = Streams(limits.streams, limits.streams_per_host)
        self._opened = NOTHING_OPENED       # whose SYN-ACK comes next, and its outside endpoint
        self._lost: dict[Key, Endpoint] = {}          # connections from before a restart: outside
        self._asked: set[Key] = set()                 # those whose ends were asked for their numbers
        self.changed: set[Key] = set()

    def count(self) -> dict[str, int]:
        """Return how many connections there are by state."""
        return dict(Counter(stream.state.value for stream in self.streams))

    # -- packets ----------------------------------------------------------------------------------

    def receive(self, outcome: Outcome, raw: bytes, crosses: bool, now: float) -> None:
        """Treat one TCP packet; *crosses* tells whether its path has NAT."""
        try:
            segment = segment_from_bytes(raw)
        except MalformedPacket as problem:
            return self._leave(outcome, "packet", str(problem))
        from_inside = self._realms.is_inside(segment.source.host)
        if not crosses or from_inside == self._realms.is_inside(segment.destination.host):
            return self._leave(outcome, "not-ours", "the connection does not cross the outside interface")
        ends = segment.source, segment.destination
        key = ends if from_inside else (ends[1], ends[0])
        if segment.flags & (SYN | RST) == SYN:
            self._open(outcome, key, segment, from_inside, now)
        elif key in self._lost:
            self._reset(outcome, key, segment, from_inside)
        elif (stream := self.streams.find(segment, from_inside)) is not None:
            self._relay(outcome, stream, segment, from_inside, now)
        else:
            self._leave(outcome, "stream-unseen", "nobody knows where in it a message begins")
            self._release(outcome, key)
        return None

    def on_opened(self, flow: Flow) -> None:
        """Take the outside endpoint of a connection whose SYN-ACK is the next packet."""
        self._opened = (flow.source, flow.destination), flow.reply_destination

    def _open(
        self, outcome: Outcome, key: Key, segment: Segment, from_inside: bool, now: float
    ) -> None:
        """SYN and SYN-ACK go on untouched; with the second a connection begins."""
        if not segment.flags & ACK:
            self._forget_lost(key)
            self.streams.note_syn(segment, from_inside, now)
            return
        (opened, outside), self._opened = self._opened, NOTHING_OPENED
        if opened != key:
            self._leave(outcome, "stream-unseen", "conntrack does not tell its outside endpoint")
            return
        earlier = self.streams.find(segment, from_inside)
        try:
            stream = self.streams.open(segment, from_inside, outside, now)
        except LimitReached as problem:
            self._leave(outcome, "limit", str(problem))
            self._release(outcome, key)
        else:
            if stream is not None:
                if earlier is not None:
                    self._end(earlier, now)
                self._plan(stream)

    def _relay(
        self, outcome: Outcome, stream: Stream, segment: Segment, from_inside: bool, now: float
    ) -> None:
        def treat(inside_sent: bool, octets: bytes) -> bytes | None:
            return self._message(outcome, stream, inside_sent, octets, now)

        before = stream.state
        reaction = stream.receive(segment, from_inside, now, treat)
        outcome.verdict, outcome.packet = reaction.verdict, reaction.packet
        if before is State.UNDECIDED and stream.state is not before and segment.payload[:2] == TLS:
            self._counters["streams tls"] += 1
            outcome.notes.append(Note("tls", reason=UNREADABLE, rfc="RFC 3261, section 26.2.1"))
        self._take(outcome, stream, before, reaction, now)

    def _take(
        self, outcome: Outcome, stream: Stream, before: State, reaction: Reaction, now: float
    ) -> None:
        """Put what follows for *stream* into *outcome*; forget it where it is over."""
        outcome.send += reaction.send
        outcome.notes += reaction.notes
        if stream.state is not before:
            self._counters["streams " + stream.state.value] += 1
            self.changed.add(stream.key)
        if reaction.released:
            self._release(outcome, stream.key)
        if reaction.released or stream.is_over(now):
            self.streams.remove(stream)
            self._end(stream, now)
        else:
            self._plan(stream)

    def _plan(self, stream: Stream) -> None:
        due = stream.next_timeout()
        self._deadlines.set((STREAM, stream.key), NEVER if due is None else due)

    def _release(self, outcome: Outcome, key: Key) -> None:
        """The kernel moves the connection alone from here on."""
        inside, peer = key
        outcome.commands.append(ReleaseStream(Flow(inside, peer, peer, inside)))

    def _leave(self, outcome: Outcome, rule: str, reason: str) -> None:
        self._counters["passed"] += 1
        self._counters["passed " + rule] += 1
        outcome.notes.append(Note(rule, reason=reason))

    # -- messages -----------------------------------------------------------------------------------

    def _message(
        self, outcome: Outcome, stream: Stream, from_inside: bool, octets: bytes, now: float
    ) -> bytes | None:
        """Treat a message as if a datagram had brought it."""
        try:
            mapping = self._mapping_of(stream, now)
        except LimitReached as problem:
            self._leave(outcome, "limit", str(problem))
            return octets
        peer = stream.peer._replace(stream=str(stream.inside))
        ends = (mapping.inside, peer) if from_inside else (peer, mapping.inside)
        sender, receiver = (mapping, None) if from_inside else (None, mapping)
        return self._treat(outcome, Packet(b"", 0, *ends, octets), sender, receiver, now)

    def _mapping_of(self, stream: Stream, now: float) -> Mapping:
        """Return the mapping that is this connection's alone."""
        ends = str(stream.peer)
        inside = stream.inside._replace(stream=ends)
        mapping = self._mappings.find(inside)
        if mapping is None:
            outside = stream.outside._replace(stream=ends)
            if (stale := self._mappings.find_outside(outside)) is not None:
                self._forget(stale, now)        # the kernel has given its port to another connection
            self._mappings.check_quota(inside.host)
            mapping = self._mappings.add(Kind.SIGNALLING, inside, outside)
            self._mappings.hold(mapping, HOLDER, NEVER, now)
        return mapping

    # -- time, and the end ----------------------------------------------------------------------------

    def handle_deadline(self, outcome: Outcome, key: Key, now: float) -> None:
        """Send again what was not acknowledged; forget what is over."""
        stream = self.streams.at(key)
        if stream is not None:
            before = stream.state
            self._take(outcome, stream, before, stream.handle_timer(now), now)
        elif key in self._lost and key not in self._asked:
            outcome.send += self._ask_for_numbers(key, now)
        else:
            self._forget_lost(key)

    def _end(self, stream: Stream, now: float) -> None:
        """Forget what was known by a connection that is gone: nobody is reached by it any more."""
        self._deadlines.set((STREAM, stream.key), NEVER)
        self.changed.add(stream.key)
        mapping = self._mappings.find(stream.inside._replace(stream=str(stream.peer)))
        if mapping is not None:
            self._forget(mapping, now)

    def _forget(self, mapping: Mapping, now: float) -> None:
        for binding in self._registrations.at(mapping.inside):
            self._registrations.remove(binding.key)
            self._deadlines.set(("binding", binding.key), NEVER)
        self._mappings.remove(mapping, now)

    def leave_address(self, now: float) -> None:
        """After a change of the outside address tell the inside ends, which would wait for answers."""
        for stream in list(self.streams):
            if not self._realms.still_shows(stream.inside, stream.outside.host):
                self.streams.remove(stream)
                self._end(stream, now)
                self._lost[stream.key] = stream.outside
                self._deadlines.set((STREAM, stream.key), now)

    def farewell(self) -> list[SendSegment]:
        """Return the resets of all connections that natfix has changed: it goes, and they are not to hang."""
        return [segment for stream in self.streams for segment in stream.farewell()]

    # -- after a restart --------------------------------------------------------------------------------

    def restore(self, rows: Iterable[Change], now: float) -> int:
        """Take up the connections from before a restart; return how many rows were damaged."""
        damaged = 0
        for change in rows:
            if change.table == TABLE and change.row is not None:
                try:
                    self._restore(change.row, now)
                except DAMAGED:
                    damaged += 1
        return damaged

    def _restore(self, row: dict[str, Any], now: float) -> None:
        inside, peer, outside = (endpoint_from_row(row[name]) for name in ("inside", "peer", "outside"))
        if inside is not None and peer is not None and outside is not None and len(self._lost) < MOST_LOST:
            self._lost[inside, peer] = outside
            self._deadlines.set((STREAM, (inside, peer)), now)

    def _ask_for_numbers(self, key: Key, now: float) -> list[SendSegment]:
        """Make both ends say their numbers, which a reset needs.

        Who gets a segment that he cannot accept answers with his numbers (RFC 9293, section 3.10.7.4).
        """
        self._asked.add(key)
        self._deadlines.set((STREAM, key), now + LOST_FOR)
        inside, peer = key
        ways = (peer, inside), (self._lost[key], peer)
        return [SendSegment(source, target, 0, 0, ACK, 0, b"", b"") for source, target in ways]

    def _reset(
        self, outcome: Outcome, key: Key, segment: Segment, from_inside: bool
    ) -> None:
        outcome.verdict = Verdict.DROP
        if segment.flags & RST:
            return
        self._counters["streams reset"] += 1
        outcome.send.append(reset_for(segment, key[1] if from_inside else self._lost[key]))
        outcome.notes.append(Note("stream-lost", reason="natfix was restarted in the middle of this "
                                  "connection: it is reset, and the UA connects anew"))

    def _forget_lost(self, key: Key) -> None:
        self._asked.discard(key)
        if self._lost.pop(key, None) is not None:
            self._deadlines.set((STREAM, key), NEVER)
            self.changed.add(key)

    def pop_changes(self) -> list[Change]:
        """Return what the store has to write since the last call."""
        changes = [self._change(key) for key in self.changed]
        self.changed.clear()
        return changes

    def _change(self, key: Key) -> Change:
        inside, peer = key
        name = f"{inside} {peer}"
        stream = self.streams.at(key)
        if stream is None or stream.state is not State.SIP:
            return Change(TABLE, name, None)
        return Change(TABLE, name, {
            "inside": list(inside), "peer": list(peer), "outside": list(stream.outside)})
