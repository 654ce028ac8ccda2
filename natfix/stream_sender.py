"""The sending half of TCP towards one end of a relayed connection: what natfix owes it, until acknowledged.

What is sent here has been acknowledged to the other end, so nobody else would repeat it. RFC 9293 for the
window, RFC 6298 for the timer, RFC 5681 and RFC 6582 (NewReno) for what is lost on the way.
Positions are numbers of the wire that do not wrap (:func:`natfix.segment.unwrap`); times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from natfix.deadlines import NEVER

FIRST_TIMEOUT = 1.0
SHORTEST_DELAY = 0.2            # of an acknowledgement beyond the round trip, as Linux has it
LONGEST_TIMEOUT = 60.0
GIVE_UP = 120.0                 # how long nothing of what is owed may be acknowledged
FIRST_WINDOW = 10               # segments (RFC 6928)
LARGEST_WINDOW = 64             # segments; bounds what one packet can set off
REPEATS = 3                     # acknowledgements that say the same: the segment behind it is lost
SMALLEST_MSS = 48               # octets; as Linux has it, else one packet could set off thousands


class Chunk(NamedTuple):
    """One segment to be sent."""

    position: int
    octets: bytes
    is_last: bool       # nothing is to be sent behind it for now
    has_fin: bool


class Sender:
    """Octets on their way to one end."""

    __slots__ = (
        "_deviation", "_duplicates", "_is_recovering", "_owing_since", "_queue", "_recover",
        "_repeat", "_round_trip", "_slow_until", "_timed", "_timed_at", "_timeout", "_updated", "allowed",
        "deadline", "end", "highest", "is_closing", "mss", "next", "una", "window",
    )

    def __init__(self, start: int, mss: int, window: int) -> None:
        """*start* is the first octet's position, *window* what the SYN offers, unscaled."""
        self.una = self.next = self.highest = self.end = start  # first unacknowledged, next to send,
        #                                                         behind all that was sent, behind all put
        self.is_closing = False                 # a FIN stands at the end
        self.mss = mss = max(mss, SMALLEST_MSS)     # octets of a segment
        self.window = window                    # octets that the receiver takes, from `una` on
        self.allowed = FIRST_WINDOW * mss       # congestion window, octets
        self.deadline = NEVER                   # when the timer fires
        self._queue = bytearray()               # from `una` on
        self._updated = (0, 0)                  # numbers of the segment that the window is from
        self._slow_until = LARGEST_WINDOW * mss     # slow start threshold
        self._duplicates = 0
        self._is_recovering = False
        self._recover = start - 1               # `highest` when a loss was seen last
        self._repeat = False                    # the first segment is to be sent again
        self._timeout = FIRST_TIMEOUT
        self._round_trip = self._deviation = 0.0
        self._timed = -1                        # whose acknowledgement measures the round trip
        self._timed_at = 0.0
        self._owing_since = NEVER

    @property
    def limit(self) -> int:
        """The position behind everything, the FIN included."""
        return self.end + self.is_closing

    @property
    def owed(self) -> int:
        """How many octets are not acknowledged, sent or not."""
        return len(self._queue)

    @property
    def silent(self) -> int:
        """The position of a segment without octets: in the window, where a probe may stand behind it."""
        return min(self.highest, self.una + self.window)

    @property
    def in_flight(self) -> bool:
        """Whether something sent is not acknowledged."""
        return self.una < self.highest

    @property
    def is_done(self) -> bool:
        """Whether the FIN is acknowledged, and with it all."""
        return self.is_closing and self.una == self.limit

    def put(self, octets: bytes) -> None:
        """Owe more."""
        self._queue += octets
        self.end += len(octets)

    def close(self) -> None:
        """Nothing follows."""
        self.is_closing = True

    def set_largest(self, mss: int) -> None:
        """Send no longer segments than *mss* octets."""
        self.mss = max(mss, SMALLEST_MSS)

    # -- what the receiver says -----------------------------------------------------------------

    def acknowledge(self, position: int, window: int, sequence: int, is_pure: bool, now: float) -> bool:
        """Take an acknowledgement of at most `highest`; tell whether it said something new about octets.

        *sequence* is the position of the segment that it came in, which *is_pure* where it had no octets.
        """
        old_window = self.window
        if (sequence, position) >= self._updated:
            self._updated = (sequence, position)
            self.window = window
        if position > self.una:
            self._advance(position, now)
            return True
        if not window and self._owing_since != NEVER:
            self._owing_since = now             # RFC 9293, section 3.8.6.1: a closed window may stay closed
        if window and not old_window and self.next == self.una + 1:
            self.next = self.una                # the octet of a probe was not taken
        if is_pure and position == self.una and self.in_flight and window == old_window and window:
            self._duplicate()
        return False

    def _advance(self, position: int, now: float) -> None:
        acknowledged = position - self.una
        del self._queue[:acknowledged]
        self.una = position
        self.next = max(self.next, position)
        self._duplicates = 0
        if 0 <= self._timed <= position:
            self._measure(now - self._timed_at)
            self._timed = -1
        if not self._is_recovering:
            self._grow(acknowledged)
        elif position >= self._recover:
            self._is_recovering = False
            self.allowed = self._slow_until
        else:                               # RFC 6582: the next one is lost, too
            self._repeat = True
            self.allowed = max(self.mss, self.allowed - acknowledged + self.mss)
        owes = self.una < self.limit
        self._owing_since = now if owes else NEVER
        self.deadline = now + self._timeout if owes else NEVER

    def _grow(self, acknowledged: int) -> None:
        if self.allowed < self._slow_until:
            self.allowed += min(acknowledged, self.mss)
        else:
            self.allowed += max(1, self.mss * self.mss // self.allowed)
        self.allowed = min(self.allowed, LARGEST_WINDOW * self.mss)

    def _duplicate(self) -> None:
        self._duplicates += 1
        if self._is_recovering:
            self.allowed += self.mss
        elif self._duplicates == REPEATS and self.una > self._recover:
            self._shrink()
            self._is_recovering = True
            self._repeat = True
            self.allowed = self._slow_until + REPEATS * self.mss

    def _shrink(self) -> None:
        self._slow_until = max((self.highest - self.una) // 2, 2 * self.mss)
        self._recover = self.highest
        self._timed = -1                    # Karn: what was repeated measures nothing

    def _measure(self, took: float) -> None:
        """RFC 6298, section 2."""
        if not self._round_trip:
            self._round_trip, self._deviation = took, took / 2
        else:
            self._deviation += (abs(self._round_trip - took) - self._deviation) / 4
            self._round_trip += (took - self._round_trip) / 8
        self._timeout = min(self._round_trip + max(SHORTEST_DELAY, 4 * self._deviation), LONGEST_TIMEOUT)

    # -- what is sent ---------------------------------------------------------------------------

    def sendable(self, now: float) -> Iterator[Chunk]:
        """Yield what is to be sent now, first what is lost."""
        if self._repeat:
            self._repeat = False
            yield self._chunk(self.una, min(self.mss, max(self.end - self.una, 0)), now)
        right = self.una + min(self.window, self.allowed)
        while self.next < self.end:
            size = min(self.mss, self.end - self.next, right - self.next)
            if size <= 0 or (size < min(self.mss, self.end - self.next) and self.next > self.una):
                break                       # RFC 9293, section 3.8.6.2.1: no small segments
            yield self._chunk(self.next, size, now)
        if self.is_closing and self.next == self.end:
            yield self._chunk(self.next, 0, now)
        if self.una < self.limit and self.deadline == NEVER:
            self.deadline = now + self._timeout     # a closed window is probed

    def expire(self, now: float) -> Iterator[Chunk]:
        """Yield what is sent when the timer has fired: one segment, or one octet into a closed window."""
        self.deadline = NEVER
        if self.una == self.limit:
            return
        if self.in_flight and self.window:
            self._shrink()
            self.allowed = self.mss
        self._timed = -1
        self._is_recovering = self._repeat = False
        self._duplicates = 0
        self._timeout = min(self._timeout * 2, LONGEST_TIMEOUT)
        self.next = self.una
        size = min(self.mss, self.end - self.una, max(self.window, 1))
        yield self._chunk(self.una, max(size, 0), now)

    def has_failed(self, now: float) -> bool:
        """Tell whether the receiver has been silent for too long."""
        return now - self._owing_since > GIVE_UP

    def _chunk(self, position: int, size: int, now: float) -> Chunk:
        at = position - self.una
        octets = bytes(self._queue[at:at + size])
        behind = position + len(octets)
        has_fin = self.is_closing and behind == self.end
        is_last = behind == self.end
        behind += has_fin
        if behind > self.highest:
            if self._timed < 0 and position >= self.highest:
                self._timed, self._timed_at = behind, now
            self.highest = behind
        self.next = max(self.next, behind)
        if self.deadline == NEVER:
            self.deadline = now + self._timeout
        if self._owing_since == NEVER:
            self._owing_since = now
        return Chunk(position, octets, is_last, has_fin)
