"""The relayed TCP connections, found by their ends; bounded in all and for each host that opens some.

Who opens a connection is counted, not who is asked: else one stranger could use up what a PBX inside has.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.segment import ACK, MASK, SYN, Segment, opening_of
from natfix.stream import Budget, Reaction, State, Stream, Treat

__all__ = ["Budget", "Reaction", "State", "Stream", "Streams", "Treat"]

MOST_SYNS = 1024        # of connections that are not answered yet; the oldest is forgotten
SYN_LIFETIME = 130.0    # seconds; Linux repeats its SYN for so long

Key = tuple[Endpoint, Endpoint]     # the inside end, and the peer as the forward hook sees it


class _Asked(NamedTuple):
    segment: Segment
    from_inside: bool
    until: float


class Streams:
    """All connections."""

    def __init__(self, most: int, most_per_host: int) -> None:
        """*most_per_host* is for each host that opens connections, inside or outside."""
        self.limit = most
        self._most_per_host = most_per_host
        self._streams: dict[Key, Stream] = {}
        self._hosts: Counter[str] = Counter()       # how many each has opened
        self._silent: OrderedDict[Key, Stream] = OrderedDict()      # may have said nothing yet; oldest first
        self._asked: OrderedDict[Key, _Asked] = OrderedDict()
        self.budget = Budget()

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def find(self, segment: Segment, from_inside: bool) -> Stream | None:
        """Return the connection that *segment* belongs to, None where it is not relayed."""
        return self._streams.get(_key(segment, from_inside))

    def at(self, key: Key) -> Stream | None:
        """Return the connection with these ends, None where it is not relayed."""
        return self._streams.get(key)

    def note_syn(self, segment: Segment, from_inside: bool, now: float) -> None:
        """Remember a SYN, for its answer; the segment itself goes on as it came.

        One with octets in it (RFC 7413), or one that meets another, is none to begin with: what they open is
        never SIP.
        """
        key = _key(segment, from_inside)
        earlier = self._asked.pop(key, None)
        if segment.payload or (earlier is not None and earlier.from_inside != from_inside):
            return
        if len(self._asked) >= MOST_SYNS:
            self._asked.popitem(last=False)
        self._asked[key] = _Asked(segment, from_inside, now + SYN_LIFETIME)

    def open(self, segment: Segment, from_inside: bool, outside: Endpoint, now: float) -> Stream | None:
        """Return the connection that a SYN and ACK opens; it replaces an earlier one of the same ends.

        None where its SYN was not seen, does not fit, or where the ends use what must not be touched.
        Where there are too many, the oldest one on which nothing was said makes room; raises LimitReached
        where there is none, or where one host has opened too many.
        """
        key = _key(segment, from_inside)
        asked = self._asked.pop(key, None)
        if asked is None or asked.until < now or asked.from_inside == from_inside \
                or segment.payload or segment.flags & (SYN | ACK) != SYN | ACK \
                or segment.acknowledgement != (asked.segment.sequence + 1) & MASK \
                or opening_of(segment).is_signed:
            return None
        if (earlier := self._streams.get(key)) is not None:
            self.remove(earlier)
        host = asked.segment.source.host
        if self._hosts[host] >= self._most_per_host:
            raise LimitReached(f"[limits] streams_per_host is reached by {host}")
        if len(self._streams) >= self.limit and not self._make_room():
            raise LimitReached("[limits] streams is reached")
        self._hosts[host] += 1
        stream = Stream(asked.segment, segment, outside, asked.from_inside, now, self.budget)
        self._streams[key] = self._silent[key] = stream
        return stream

    def remove(self, stream: Stream) -> None:
        """Forget a connection; its absence is no error."""
        if self._streams.get(stream.key) is not stream:
            return
        del self._streams[stream.key]
        self._silent.pop(stream.key, None)
        self.budget.used -= stream.held
        host = (stream.inside if stream.opened_by_inside else stream.peer).host
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def _make_room(self) -> bool:
        """Forget the oldest connection on which nothing was said: without natfix it goes on as it is."""
        while self._silent:
            _, stream = self._silent.popitem(last=False)
            if stream.state is State.UNDECIDED and not stream.held:
                self.remove(stream)
                return True
        return False


def _key(segment: Segment, from_inside: bool) -> Key:
    return (segment.source, segment.destination) if from_inside else (segment.destination, segment.source)
