"""Two simulated TCP ends with a gateway between them, on links that lose, reorder and repeat packets.

The ends are written without any code of natfix's, and check all that they are sent: checksums, numbers,
windows, timestamps, sizes. Time is simulated, chance is seeded.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from natfix.address import Endpoint
from natfix.commands import Verdict
from natfix.segment import datagram, segment_from_bytes
from natfix.stream import Reaction
from natfix.streams import Stream, Streams
from tests.segments import Wire, read_segment, segment_bytes

INSIDE = Endpoint("192.168.1.10", 40000)
OUTSIDE = Endpoint("203.0.113.1", 61234)
PEER = Endpoint("198.51.100.20", 5060)

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MASK = (1 << 32) - 1
IN_FLIGHT = 10          # segments: the first congestion window of RFC 6928
DELAY = 0.01            # seconds of each leg


def difference(first: int, second: int) -> int:
    """Return first - second of two numbers that wrap."""
    return ((first - second + (1 << 31)) & MASK) - (1 << 31)


def option(options: bytes, kind: int) -> bytes | None:
    """Return an option's value; None where it is not there."""
    at = 0
    while at < len(options):
        if options[at] == 1:
            at += 1
            continue
        if options[at] == kind:
            return options[at + 2:at + options[at + 1]]
        at += options[at + 1]
    return None


@dataclass
class Link:
    """How a packet fares on one leg."""

    loss: float = 0.0
    repeat: float = 0.0
    jitter: float = 0.0         # seconds; more than the pause between packets reorders them


class World:
    """Events in the order of their time."""

    def __init__(self, seed: int = 0, link: Link | None = None) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.link = link or Link()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def after(self, pause: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now + pause, self._serial, event))

    def transport(self, deliver: Callable[[], None]) -> None:
        """Let a packet travel one leg."""
        copies = 1 + (self.chance.random() < self.link.repeat)
        for _ in range(copies):
            if self.chance.random() >= self.link.loss:
                self.after(DELAY + self.chance.random() * self.link.jitter, deliver)

    def run(self, until: Callable[[], bool], limit: float = 100_000.0) -> None:
        """Let events happen; AssertionError where the end does not come."""
        end = self.now + limit
        while not until():
            assert self._events, "nothing happens any more"
            self.now, _, event = heapq.heappop(self._events)
            assert self.now < end, "it takes too long"
            event()

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        done: list[bool] = []
        self.after(seconds, lambda: done.append(True))
        self.run(lambda: bool(done))


@dataclass
class Traits:
    """What kind of TCP an end has."""

    isn: int = 0xFFFFFF00
    mss: int = 1460
    scale: int | None = 7
    sack: bool = True
    stamps: bool = True
    buffer: int = 60_000        # octets that it takes before it is read
    joins: bool = False         # repeats larger segments than it sent, as Linux does
    delays: bool = True         # acknowledges every second segment, or after 40 ms


@dataclass
class Sending:
    """Octets written and not acknowledged, in the segments that they are to go in."""

    segments: list[tuple[int, bytes]] = field(default_factory=list)
    sent: int = 0


class End:
    """One end of the connection."""

    def __init__(self, world: World, own: Endpoint, other: Endpoint, traits: Traits) -> None:
        self.world, self.own, self.other, self.traits = world, own, other, traits
        self.transmit: Callable[[Wire], None] = lambda wire: None
        self.received = bytearray()
        self.unread = 0
        self.reads = True
        self.has_finished = self.was_reset = self.is_open = self.is_aborted = False
        self.ends_second = self.is_gone = False     # who closes second forgets the connection at once
        self.closing: int | None = None     # the FIN's number
        self.una = self.next = self.behind = traits.isn
        self.expected = 0
        self.window = 0
        self.uses_stamps = self.uses_sack = False
        self.scale = self.other_scale = 0
        self.other_mss = 536
        self.counts = {"sent": 0, "got": 0, "repeats": 0, "old": 0}
        self._sending = Sending()
        self._ahead: dict[int, bytes] = {}
        self._fin: int | None = None
        self._last_stamp = 0
        self._recent = 0
        self._timer = 0
        self._timeout = 0.3
        self._duplicates = 0
        self._unacknowledged = 0

    # -- the user ---------------------------------------------------------------------------

    def connect(self) -> None:
        self._send(self.una, b"", SYN)
        self.next = self.behind = (self.una + 1) & MASK
        self._arm()

    def write(self, octets: bytes, *sizes: int) -> None:
        """Write *octets* in segments of *sizes* (the last one's as long as there are octets)."""
        left = list(sizes or (1460,))
        most = self.other_mss - 12 * self.uses_stamps
        while octets:
            size = min(left[0] if len(left) == 1 else left.pop(0), most)
            self._sending.segments.append((self.behind, octets[:size]))
            self.behind = (self.behind + len(octets[:size])) & MASK
            octets = octets[size:]
        self._pump()

    def close(self) -> None:
        self.closing = self.behind
        self._pump()

    def abort(self) -> None:
        self._send(self.next, b"", RST | ACK)
        self.is_aborted = True
        self._timer += 1

    def read(self) -> None:
        """Begin to read again."""
        self.reads, self.unread = True, 0
        self._acknowledge()

    @property
    def is_acknowledged(self) -> bool:
        behind = self.behind if self.closing is None else self.closing + 1
        return self.una == behind & MASK

    # -- what goes --------------------------------------------------------------------------

    def _options(self, is_syn: bool, blocks: bytes = b"") -> bytes:
        stamps = b""
        if (is_syn and self.traits.stamps) or self.uses_stamps:
            self._last_stamp = int(self.world.now * 1000) & MASK
            stamps = b"\1\1\x08\x0a" + self._last_stamp.to_bytes(4) + self._recent.to_bytes(4)
        if not is_syn:
            return stamps
        written = b"\x02\x04" + self.traits.mss.to_bytes(2) + stamps
        if self.traits.sack:
            written += b"\1\1\4\2"
        if self.traits.scale is not None:
            written += b"\1\3\3" + bytes((self.traits.scale,))
        return written

    def _send(self, position: int, octets: bytes, flags: int) -> None:
        if self.is_aborted:
            return
        is_syn = bool(flags & SYN)
        room = max(0, self.traits.buffer - self.unread)
        window = min(65535, room if is_syn else room >> self.scale)
        self.counts["sent"] += 1
        self._unacknowledged = 0
        acknowledgement = self.expected if flags & ACK else 0
        self.transmit(Wire(self.own, self.other, position & MASK, acknowledgement, flags, window,
                           self._options(is_syn), octets))

    def _acknowledge(self) -> None:
        self._send(self.next, b"", ACK)

    def _pump(self) -> None:
        sending = self._sending
        while self.is_open and sending.sent < min(len(sending.segments), IN_FLIGHT):
            position, octets = sending.segments[sending.sent]
            beyond = difference(position + len(octets), self.una) - self.window
            if beyond > 0:
                if sending.sent or beyond >= len(octets):
                    break
                sending.segments[:1] = [(position, octets[:-beyond]),
                                        ((position + len(octets) - beyond) & MASK, octets[-beyond:])]
            self._emit(sending.sent)
            sending.sent += 1
        if self.is_open and self.closing is not None and sending.sent == len(sending.segments) \
                and self.next == self.closing:
            self.ends_second = self.has_finished
            self._send(self.closing, b"", FIN | ACK)
            self.next = (self.closing + 1) & MASK
            self._arm()
        if sending.segments and not sending.sent:
            self._arm()

    def _emit(self, index: int) -> None:
        position, octets = self._sending.segments[index]
        self._send(position, octets, PSH | ACK)
        behind = (position + len(octets)) & MASK
        if difference(behind, self.next) > 0:
            self.next = behind
        self._arm()

    def _arm(self, again: bool = False) -> None:
        if again:
            self._timer += 1
        serial = self._timer

        def fire() -> None:
            if serial == self._timer and not self.is_acknowledged and not self.was_reset \
                    and not self.is_aborted:
                self._timer += 1
                self._repeat()
        self.world.after(self._timeout, fire)

    def _repeat(self) -> None:
        """The timer has fired."""
        self._timeout = min(self._timeout * 2, 5.0)
        sending = self._sending
        self.counts["repeats"] += 1
        if not self.is_open:
            self._send(self.traits.isn, b"", SYN | (ACK if self.expected else 0))
        elif sending.sent:
            self._join()
            self._emit(0)
        elif sending.segments:              # the window is closed: a probe as Linux sends it
            self._send(self.una - 1, b"", ACK)
            self._pump()
        elif self.closing is not None:
            self._send(self.closing, b"", FIN | ACK)
        self._arm()

    def _join(self) -> None:
        sending = self._sending
        while self.traits.joins and sending.sent > 1:
            (position, first), (_, second) = sending.segments[:2]
            if len(first) + len(second) > self.other_mss - 12 * self.uses_stamps:
                break
            sending.segments[:2] = [(position, first + second)]
            sending.sent -= 1

    # -- what comes -------------------------------------------------------------------------

    def receive(self, wire: Wire) -> None:
        assert (wire.source, wire.destination) == (self.other, self.own)
        self.counts["got"] += 1
        if self.is_aborted or self.was_reset or self.is_gone:
            if not wire.flags & RST:
                self.transmit(Wire(self.own, self.other, wire.acknowledgement, 0, RST, 0))
            return
        if wire.flags & SYN:
            self._meet(wire)
        elif self.is_open or wire.flags & ACK:
            self._take(wire)

    def _meet(self, wire: Wire) -> None:
        if self.is_open:
            self._acknowledge()
            return
        mss, scale = option(wire.options, 2), option(wire.options, 3)
        self.other_mss = int.from_bytes(mss or b"\x02\x18")
        self.uses_sack = option(wire.options, 4) is not None and self.traits.sack
        if scale is not None and self.traits.scale is not None:
            self.scale, self.other_scale = self.traits.scale, scale[0]
        stamps = option(wire.options, 8)
        self.uses_stamps = stamps is not None and self.traits.stamps
        if stamps is not None:
            self._recent = int.from_bytes(stamps[:4])
        self.window = wire.window
        self.expected = (wire.sequence + 1) & MASK
        if wire.flags & ACK:
            assert wire.acknowledgement == self.next
            self.una, self.is_open = self.next, True
            self._timer += 1
            self._acknowledge()
            self._pump()
        else:
            self._send(self.traits.isn, b"", SYN | ACK)
            self.next = self.behind = (self.traits.isn + 1) & MASK
            self._arm()

    def _take(self, wire: Wire) -> None:
        if wire.flags & RST:
            if wire.sequence == self.expected:
                self.was_reset = True
            elif 0 < difference(wire.sequence, self.expected) <= self.traits.buffer:
                self._acknowledge()
            return
        assert wire.flags & ACK
        assert (option(wire.options, 8) is not None) == self.uses_stamps
        assert len(wire.payload) + len(wire.options) <= self.traits.mss, "larger than the MSS"
        if self.uses_stamps and not self._stamps_are_new(wire):
            self.counts["old"] += 1
            self._acknowledge()
            return
        distance = difference(wire.sequence, self.expected)
        assert distance <= self.traits.buffer + 1, "beyond the window"
        ahead = difference(wire.acknowledgement, self.next)
        assert ahead <= 0, f"acknowledges {ahead} octets that were not sent"
        self._check_blocks(wire)
        if not self.is_open and wire.acknowledgement == self.next:
            self.is_open, self.una = True, self.next
            self._timer += 1
        self._acknowledged(wire)
        self.is_gone = self.ends_second and self.is_acknowledged
        if self.is_gone:
            return
        if wire.payload or wire.flags & FIN:
            self._data(wire, distance)
        elif distance < 0:
            self._acknowledge()
        self._pump()

    def _stamps_are_new(self, wire: Wire) -> bool:
        value = option(wire.options, 8) or bytes(8)
        stamp, echo = int.from_bytes(value[:4]), int.from_bytes(value[4:])
        assert difference(self._last_stamp, echo) >= 0, "echoes a timestamp that was not sent"
        if difference(stamp, self._recent) < 0:
            return False                    # PAWS
        if difference(wire.sequence, self.expected) <= 0:
            self._recent = stamp
        return True

    def _check_blocks(self, wire: Wire) -> None:
        blocks = option(wire.options, 5)
        if blocks is None:
            return
        assert self.uses_sack
        assert blocks
        for at in range(0, len(blocks), 8):
            start, end = int.from_bytes(blocks[at:at + 4]), int.from_bytes(blocks[at + 4:at + 8])
            assert difference(start, wire.acknowledgement) > 0
            assert difference(end, start) > 0
            assert difference(self.next, end) >= 0, "a SACK of what was not sent"

    def _acknowledged(self, wire: Wire) -> None:
        new = difference(wire.acknowledgement, self.una)
        if new < 0:
            return
        sending = self._sending
        window = wire.window << self.other_scale
        if new == 0:
            is_same = not wire.payload and window == self.window and sending.sent
            self.window = window
            self._duplicates = self._duplicates + 1 if is_same else 0
            if self._duplicates == 3:
                self.counts["repeats"] += 1
                self._join()
                self._emit(0)
            return
        self.window, self._duplicates, self._timeout = window, 0, 0.3
        self.una = wire.acknowledgement
        while sending.segments and difference(sending.segments[0][0] + len(sending.segments[0][1]),
                                              self.una) <= 0:
            sending.segments.pop(0)
            sending.sent = max(0, sending.sent - 1)
        if sending.segments and (done := difference(self.una, sending.segments[0][0])) > 0:
            position, octets = sending.segments[0]
            sending.segments[0] = ((position + done) & MASK, octets[done:])
        self._arm(again=True)

    def _data(self, wire: Wire, distance: int) -> None:
        if distance >= 0 and len(wire.payload) <= self.traits.buffer - self.unread - distance:
            self._ahead[distance + len(self.received)] = max(
                wire.payload, self._ahead.get(distance + len(self.received), b""), key=len)
        elif distance < 0 and len(wire.payload) > -distance:
            self._ahead[len(self.received)] = wire.payload[-distance:]
        if wire.flags & FIN:
            self._fin = (wire.sequence + len(wire.payload)) & MASK
        before = self.expected
        while (octets := self._next_octets()):
            self.received += octets
            self.unread += 0 if self.reads else len(octets)
            self.expected = (self.expected + len(octets)) & MASK
        if self._fin == self.expected and not self.has_finished:
            self.has_finished = True
            self.expected = (self.expected + 1) & MASK
        self._unacknowledged += 1
        in_order = distance == 0 and before != self.expected and not self._ahead
        if not in_order or not self.traits.delays or self._unacknowledged >= 2 or self.has_finished:
            self._acknowledge()
        else:
            self.world.after(0.04, lambda: self._acknowledge() if self._unacknowledged else None)

    def _next_octets(self) -> bytes:
        at = len(self.received)
        for start in [each for each in self._ahead if each <= at]:
            octets = self._ahead.pop(start)[at - start:]
            if octets:
                return octets
        return b""


class Gateway:
    """NAT, and natfix as its engine would drive it."""

    def __init__(self, world: World, inside: End, peer: End, treat: Callable[[bool, bytes], bytes | None]
                 ) -> None:
        self.world, self.inside, self.peer, self.treat = world, inside, peer, treat
        self.streams = Streams(100, 10)
        self.stream: Stream | None = None
        self.is_released = False
        self.notes: list[str] = []
        self.counts = {"as it came": 0, "changed": 0, "dropped": 0, "own": 0}
        self._due = 0.0
        inside.transmit = lambda wire: world.transport(lambda: self._come(wire, True))
        peer.transmit = lambda wire: world.transport(
            lambda: self._come(wire._replace(destination=INSIDE), False))

    def _come(self, wire: Wire, from_inside: bool) -> None:
        raw = segment_bytes(wire)
        if self.is_released:
            self._go(raw)
            return
        segment = segment_from_bytes(raw)
        if wire.flags & (SYN | ACK) == SYN:
            self.streams.note_syn(segment, from_inside, self.world.now)
        elif wire.flags & SYN and self.stream is None:
            self.stream = self.streams.open(segment, from_inside, OUTSIDE, self.world.now)
        stream = self.streams.find(segment, from_inside)
        if stream is None:
            self._go(raw)
            return
        reaction = stream.receive(segment, from_inside, self.world.now, self.treat)
        if reaction.verdict is Verdict.ACCEPT:
            self.counts["as it came" if reaction.packet is None else "changed"] += 1
            self._go(reaction.packet or raw)
        else:
            assert reaction.packet is None
            self.counts["dropped"] += 1
        self._carry_out(stream, reaction)

    def _carry_out(self, stream: Stream, reaction: Reaction) -> None:
        for each in reaction.send:
            self.counts["own"] += 1
            self._arrive(read_segment(datagram(each), own=True))
        self.notes += [note.rule for note in reaction.notes]
        self.is_released |= reaction.released
        due = stream.next_timeout()
        if due is not None and due != self._due and not self.is_released:
            self._due = due
            self.world.after(max(0.0, due - self.world.now), lambda: self._wake(stream, due))

    def _wake(self, stream: Stream, due: float) -> None:
        if due == self._due and not self.is_released and not stream.is_over(self.world.now):
            self._carry_out(stream, stream.handle_timer(self.world.now))

    def _go(self, raw: bytes) -> None:
        """A forwarded packet leaves: what goes outside is NATed now."""
        wire = read_segment(raw)
        self._arrive(wire._replace(source=OUTSIDE) if wire.source == INSIDE else wire)

    def _arrive(self, wire: Wire) -> None:
        end = self.peer if wire.destination == PEER else self.inside
        self.world.transport(lambda: end.receive(wire))


def connected(
    treat: Callable[[bool, bytes], bytes | None], seed: int = 0, link: Link | None = None,
    inside: Traits | None = None, peer: Traits | None = None, opened_by_inside: bool = True,
) -> tuple[World, End, End, Gateway]:
    """Return a connection that is open, on *link*."""
    world = World(seed, link)
    phone = End(world, INSIDE, PEER, inside or Traits())
    pbx = End(world, PEER, OUTSIDE, peer or Traits(isn=0xFFFFF000))
    gateway = Gateway(world, phone, pbx, treat)
    (phone if opened_by_inside else pbx).connect()
    world.run(lambda: phone.is_open and pbx.is_open)
    return world, phone, pbx, gateway
