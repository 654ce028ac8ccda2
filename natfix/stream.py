"""One TCP connection through the gateway: SIP in it is taken out, treated, and sent on.

natfix relays each direction by itself: it receives and acknowledges what one end sends, and owes it to the
other end in numbers of its own, which start as the sender's and drift apart with every message that changes
its length. Handshake, options and ports stay those of the ends. As far as possible what goes on rides on
the packet that came (the carrier), so that routing, marks and the operator's rules see forwarded packets.

It has to acknowledge what is not whole yet: a sender may send no further before that, and a message can span
more segments than that (one octet each, where Nagle's algorithm is off). Where a message is whole with the
segment that came, nothing is said before its receiver has acknowledged it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from natfix.address import Endpoint
from natfix.commands import Note, SendSegment, Verdict
from natfix.deadlines import NEVER
from natfix.segment import (
    ACK,
    ALL_FLAGS,
    FIN,
    HALF,
    MASK,
    PSH,
    RST,
    SYN,
    URG,
    Segment,
    opening_of,
    options_bytes,
    rebuild,
    unwrap,
)
from natfix.stream_sender import Chunk
from natfix.stream_way import LARGEST_WINDOW, Way

MOST_LOAD = 1 << 19             # octets held for one direction; what comes beyond is not acknowledged
FAIR_SHARE = 1 << 14            # octets that each direction may hold when all together hold too much
MOST_IN_ALL = 1 << 26           # octets held for all streams
PATIENCE = 60.0                 # seconds from the SYN-ACK to the handshake's end
CHALLENGE_EVERY = 0.5           # seconds between two answers to what does not fit (RFC 5961, section 7)
LINGER = 120.0                  # seconds for late packets after the end (RFC 9293: 2 MSL is 4 minutes)
IDLE = 7500.0                   # seconds; longer than conntrack keeps the connection

NOT_SIP = "the connection did not begin with a SIP message of who opened it"

Treat = Callable[[bool, bytes], bytes | None]


class State(StrEnum):
    """What a connection is taken for."""

    UNDECIDED = "undecided"     # its first line has not come whole
    SIP = "sip"
    OPAQUE = "opaque"           # not SIP, or no longer; to be released once natfix owes nothing
    RELEASED = "released"       # the kernel moves it alone
    CLOSED = "closed"           # both ends have finished
    RESET = "reset"


@dataclass(slots=True)
class Reaction:
    """What follows from a segment, or from time."""

    verdict: Verdict = Verdict.ACCEPT
    packet: bytes | None = None         # None: as it came
    send: list[SendSegment] = field(default_factory=list)   # after the verdict, in this order
    released: bool = False              # no packet of this connection needs to come here any more
    notes: list[Note] = field(default_factory=list)


@dataclass(slots=True)
class Budget:
    """What all streams together hold."""

    most: int = MOST_IN_ALL     # octets
    used: int = 0


class Stream:
    """One connection and both of its directions."""

    __slots__ = ("_budget", "_challenged_at", "_ended_at", "_has_sack", "_has_stamps", "_heard_at",
                 "_identification", "_is_established", "_ways", "inside", "opened_by_inside", "outside",
                 "peer", "state")

    def __init__(
        self, syn: Segment, syn_ack: Segment, outside: Endpoint, opened_by_inside: bool, now: float,
        budget: Budget | None = None,
    ) -> None:
        """*syn* and *syn_ack* are as the forward hook sees them, *outside* is what the peer sees of the
        inside end."""
        opener, acceptor = opening_of(syn), opening_of(syn_ack)
        inside_syn, peer_syn = (syn, syn_ack) if opened_by_inside else (syn_ack, syn)
        self.inside, self.peer, self.outside = inside_syn.source, peer_syn.source, outside
        self.opened_by_inside = opened_by_inside
        self.state = State.UNDECIDED
        self._ways = {
            True: Way(inside_syn, peer_syn, outside, self.peer),
            False: Way(peer_syn, inside_syn, self.peer, self.inside),
        }
        self._has_stamps = opener.timestamps and acceptor.timestamps
        self._has_sack = opener.sack_permitted and acceptor.sack_permitted
        self._heard_at = now
        self._ended_at = NEVER
        self._is_established = False
        self._challenged_at = -CHALLENGE_EVERY
        self._identification = syn.sequence & 0xFFFF
        self._budget = budget or Budget()

    @property
    def key(self) -> tuple[Endpoint, Endpoint]:
        """Which connection: the inside end, and the peer as the forward hook sees it."""
        return self.inside, self.peer

    @property
    def is_shifted(self) -> bool:
        """Whether the ends' numbers differ: without natfix the connection cannot go on."""
        return any(way.shift for way in self._ways.values())

    @property
    def held(self) -> int:
        """Octets held for both directions."""
        return sum(way.load for way in self._ways.values())

    # -- what comes -----------------------------------------------------------------------------

    def receive(self, segment: Segment, from_inside: bool, now: float, treat: Treat) -> Reaction:
        """Take a segment of this connection.

        *treat* is given each whole SIP message, and whether it comes from inside; it returns what goes on in
        its place, None where nothing does.
        """
        reaction = Reaction()
        if self.state is State.RELEASED:
            reaction.released = True
            return reaction
        if segment.flags & SYN:
            return reaction             # its number is as it was; what it means, the ends know
        way, back = self._ways[from_inside], self._ways[not from_inside]
        self._heard_at = now
        if self.state is State.RESET:
            self._answer_late(segment, back, reaction)
        elif segment.flags & RST:
            if _has_left(way, back):
                reaction.verdict = Verdict.DROP     # what the other end is owed comes from natfix
            else:
                self._take_reset(segment, way, back, now, reaction)
        elif not _is_acceptable(segment, way, back):
            self._challenge(way, back, now, reaction)
        else:
            self._relay(segment, from_inside, now, treat, reaction)
            self._budget.used += way.measure() + back.measure()
        return reaction

    def _relay(
        self, segment: Segment, from_inside: bool, now: float, treat: Treat, reaction: Reaction
    ) -> None:
        way, back = self._ways[from_inside], self._ways[not from_inside]
        self._is_established |= from_inside == self.opened_by_inside
        start = unwrap(segment.sequence, way.receiver.expected)
        was_in_flight = back.sender.in_flight
        self._take_stamps(segment, way, start)
        is_probe = start == way.receiver.expected - 1 and len(segment.payload) <= 1 \
            and not segment.flags & FIN and not way.receiver.is_finished
        has_octets = segment.octets > 0 and not is_probe
        is_new = back.sender.acknowledge(
            unwrap(segment.acknowledgement, back.sender.una), segment.window << way.scale, start,
            not segment.octets, now)
        must_tell = if_silent = False
        if has_octets:
            must_tell = not self._take(segment, way, start, treat, from_inside, reaction)
            if_silent = not must_tell
        elif is_probe and way.sender.una < way.sender.limit:
            must_tell, is_probe = True, False       # the sink's answer would be lost among others
        chunks, answers = list(way.sender.sendable(now)), list(back.sender.sendable(now))
        is_idle = not has_octets and not is_new and not was_in_flight and not must_tell
        if chunks:
            self._carry(segment, way, back, chunks[0], reaction)
        elif is_probe and self.state is not State.CLOSED:
            self._carry(segment, way, back, Chunk(way.sender.highest - 1, segment.payload, False, False),
                        reaction)
        elif (is_idle and not _has_left(back, way)) or back.has_news:
            self._carry(segment, way, back, Chunk(way.sender.silent, b"", False, False), reaction)
        else:
            reaction.verdict = Verdict.DROP
        reaction.send += [self._own(way, back, chunk) for chunk in chunks[1:]]
        reaction.send += [self._own(back, way, chunk) for chunk in answers]
        if must_tell or (if_silent and not chunks and not answers):
            reaction.send.append(self._acknowledgement(way, back))
        self._conclude(now, reaction)

    def _take_stamps(self, segment: Segment, way: Way, start: int) -> None:
        if not self._has_stamps or segment.timestamps is None or way.stamp is None:
            return
        stamp = segment.timestamps[0]
        if (stamp - way.stamp) & MASK < HALF:
            way.stamp = stamp
            if start <= way.told:
                way.echo = stamp

    def _take(
        self, segment: Segment, way: Way, start: int, treat: Treat, from_inside: bool, reaction: Reaction
    ) -> bool:
        """Take a segment's octets; tell whether they came in order and for the first time."""
        receiver, octets = way.receiver, segment.payload
        if receiver.is_finished or start + segment.octets <= receiver.expected \
                or not self._has_room(way, len(octets)):
            return False
        if len(octets) > way.largest:
            way.largest = len(octets)
            way.sender.set_largest(min(way.mss, way.largest))
        in_order = start <= receiver.expected and not receiver.ahead
        octets = receiver.take(start, octets, bool(segment.flags & FIN))
        if octets:
            self._read(way, octets, from_inside, treat, reaction)
        if receiver.is_finished:
            for piece in way.framer.give_up("the connection has ended"):
                way.sender.put(piece.octets)
            way.sender.close()
        return in_order

    def _has_room(self, way: Way, size: int) -> bool:
        load = way.load + size
        return load <= MOST_LOAD and (self._budget.used + size <= self._budget.most or load <= FAIR_SHARE)

    def _read(self, way: Way, octets: bytes, from_inside: bool, treat: Treat, reaction: Reaction) -> None:
        """Cut the next octets of a direction into messages, and put what comes of them."""
        is_openers = from_inside == self.opened_by_inside
        if self.state is State.UNDECIDED and not is_openers and octets.strip(b"\r\n"):
            self._release_later(reaction)
        was_opaque = way.framer.is_opaque
        for piece in way.framer.feed(octets):
            treated = treat(from_inside, piece.octets) if piece.is_message else piece.octets
            if treated:
                way.sender.put(treated)
        if self.state is State.UNDECIDED and is_openers:
            if way.framer.began:
                self.state = State.SIP
            elif way.framer.is_opaque:
                self._release_later(reaction)
        if self.state is State.SIP and way.framer.is_opaque and not was_opaque:
            reaction.notes.append(Note(
                "stream-opaque", reason=f"{self.inside if from_inside else self.peer} sent {way.framer.why}",
                rfc="RFC 3261, section 18.3"))
            if all(each.framer.is_opaque for each in self._ways.values()):
                self.state = State.OPAQUE

    def _release_later(self, reaction: Reaction) -> None:
        """This is not SIP: let it pass as it comes, and go as soon as nothing is owed."""
        self.state = State.OPAQUE
        for way in self._ways.values():
            for piece in way.framer.give_up(NOT_SIP):
                way.sender.put(piece.octets)
        reaction.notes.append(Note("stream-not-sip", reason=NOT_SIP, rfc="RFC 3261, section 7"))

    def _conclude(self, now: float, reaction: Reaction) -> None:
        ways = self._ways.values()
        if self.state is State.OPAQUE and all(way.is_clean for way in ways):
            self.state = State.RELEASED
            reaction.released = True
        elif self.state is not State.CLOSED and all(
                way.receiver.is_finished and way.sender.is_done for way in ways):
            self._end(State.CLOSED, now)

    def _end(self, state: State, now: float) -> None:
        self.state, self._ended_at = state, now

    # -- what goes ------------------------------------------------------------------------------

    def _carry(self, segment: Segment, way: Way, back: Way, chunk: Chunk, reaction: Reaction) -> None:
        """Let *segment* go on, with *chunk* in its place."""
        acknowledgement, window = back.acknowledged & MASK, back.offer()
        options = options_bytes(self._stamps(way, back))
        flags = segment.flags & ALL_FLAGS & ~(FIN | PSH | URG) | chunk.has_fin * FIN
        if segment.payload != chunk.octets or segment.options != options or (
                chunk.position & MASK, acknowledgement, window, flags
        ) != (segment.sequence, segment.acknowledgement, segment.window, segment.flags & ~PSH):
            push = PSH * (chunk.is_last and bool(chunk.octets))
            reaction.packet = rebuild(
                segment, chunk.position, acknowledgement, flags | push, window, options, chunk.octets,
                self._next_identification())

    def _own(
        self, way: Way, back: Way, chunk: Chunk, blocks: Sequence[tuple[int, int]] = ()
    ) -> SendSegment:
        """Return a segment of natfix's own to *way*'s sink."""
        flags = ACK | chunk.has_fin * FIN | PSH * (chunk.is_last and bool(chunk.octets))
        return SendSegment(
            way.source, way.sink, chunk.position & MASK, back.acknowledged & MASK, flags,
            back.offer(), options_bytes(self._stamps(way, back), blocks), chunk.octets)

    def _acknowledgement(self, way: Way, back: Way) -> SendSegment:
        """Return one for *way*'s source, with what is ahead if it wants to know that."""
        blocks = way.receiver.blocks() if self._has_sack else []
        return self._own(back, way, Chunk(back.sender.silent, b"", False, False), blocks)

    def _stamps(self, way: Way, back: Way) -> tuple[int, int] | None:
        if not self._has_stamps or way.stamp is None or back.echo is None:
            return None
        return way.stamp, back.echo

    def _next_identification(self) -> int:
        self._identification = self._identification % 0xFFFF + 1
        return self._identification

    # -- the end --------------------------------------------------------------------------------

    def _take_reset(
        self, segment: Segment, way: Way, back: Way, now: float, reaction: Reaction
    ) -> None:
        """RFC 5961, section 3.2: only the exact number resets, one in the window is asked about."""
        distance = unwrap(segment.sequence, way.receiver.expected) - way.receiver.expected
        if distance:
            if 0 < distance <= LARGEST_WINDOW:
                self._challenge(way, back, now, reaction)
            reaction.verdict = Verdict.DROP
            return
        sender = way.sender
        acknowledgement = back.receiver.expected & MASK if segment.flags & ACK else segment.acknowledgement
        if (sender.highest & MASK, acknowledgement) != (segment.sequence, segment.acknowledgement):
            reaction.packet = rebuild(
                segment, sender.highest, acknowledgement, segment.flags, segment.window, b"", b"",
                self._next_identification())
        if sender.in_flight:            # the sink may not have all of it
            reaction.send.append(_reset(way, sender.una))
        self._clear(State.RESET, now)

    def _challenge(self, way: Way, back: Way, now: float, reaction: Reaction) -> None:
        """Ask *way*'s source whether it is at those numbers; not often, since it might ask back."""
        reaction.verdict = Verdict.DROP
        if now - self._challenged_at >= CHALLENGE_EVERY:
            self._challenged_at = now
            reaction.send.append(self._acknowledgement(way, back))

    def _answer_late(self, segment: Segment, back: Way, reaction: Reaction) -> None:
        """RFC 9293, section 3.10.7.1: there is no such connection."""
        reaction.verdict = Verdict.DROP
        if segment.flags & ACK and not segment.flags & RST:
            reaction.send.append(_reset(back, segment.acknowledgement))

    def _clear(self, state: State, now: float) -> None:
        """End at once: nothing is owed any more."""
        self._end(state, now)
        for way in self._ways.values():
            way.clear()
            self._budget.used += way.measure()

    # -- time -----------------------------------------------------------------------------------

    def handle_timer(self, now: float) -> Reaction:
        """Send again what was not acknowledged in time; *verdict* and *packet* mean nothing here."""
        reaction = Reaction()
        for way, back in ((self._ways[True], self._ways[False]), (self._ways[False], self._ways[True])):
            if way.sender.deadline > now:
                continue
            if way.sender.has_failed(now):
                self._give_up(now, reaction)
                break
            reaction.send += [self._own(way, back, chunk) for chunk in way.sender.expire(now)]
        return reaction

    def farewell(self) -> list[SendSegment]:
        """Return what ends a connection that cannot go on without natfix, at both ends; nothing for others.

        An end may have octets that it has not acknowledged yet: it gets a reset for either case.
        """
        is_over = self.state in (State.CLOSED, State.RESET, State.RELEASED)
        if is_over or not (self.is_shifted or self.held):
            return []
        return [_reset(way, position) for way in self._ways.values()
                for position in sorted({way.sender.una, way.sender.highest})]

    def _give_up(self, now: float, reaction: Reaction) -> None:
        for way in self._ways.values():
            reaction.send.append(_reset(way, way.sender.una))
        reaction.notes.append(Note(
            "stream-reset", reason="an end has not acknowledged anything for two minutes",
            rfc="RFC 9293, section 3.8.3"))
        self._clear(State.RESET, now)

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timer` is due, or the stream over; never None for now."""
        return min(self._life, self._ways[True].sender.deadline, self._ways[False].sender.deadline)

    def is_over(self, now: float) -> bool:
        """Tell whether nothing more is to be expected of this connection."""
        return now >= self._life

    @property
    def _life(self) -> float:
        if self.state in (State.CLOSED, State.RESET):
            return self._ended_at + LINGER
        return self._heard_at + (IDLE if self._is_established else PATIENCE)


def _has_left(way: Way, back: Way) -> bool:
    """Tell whether *way*'s source has said and got everything: it may have forgotten the connection."""
    return way.receiver.is_finished and back.sender.is_done


def _is_acceptable(segment: Segment, way: Way, back: Way) -> bool:
    """RFC 9293, section 3.10.7.4, and RFC 5961, section 5: it is about what is in flight, or just was."""
    expected, sender = way.receiver.expected, back.sender
    return bool(
        segment.flags & ACK
        and abs(unwrap(segment.sequence, expected) - expected) <= LARGEST_WINDOW
        and -LARGEST_WINDOW <= unwrap(segment.acknowledgement, sender.una) - sender.una
        <= sender.highest - sender.una)


def _reset(way: Way, position: int) -> SendSegment:
    """Return a RST for *way*'s sink, which expects *position*."""
    return SendSegment(way.source, way.sink, position & MASK, 0, RST, 0, b"", b"")
