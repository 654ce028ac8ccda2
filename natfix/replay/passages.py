"""Passages: the copies of one packet that were taken at several points, put together in path order.

Copies come in the order of time. A copy belongs to a passage that has none from its point yet; what was
seen at the same point again is a retransmission, thus a passage of its own. A passage waits for further
copies for as long as a box may hold a packet, only where there are several points at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from natfix.replay.model import NetworkView, Passage, Side, Sighting
from natfix.replay.network import direction_of, side_of_copy
from natfix.replay.stages import Chain, Point, file_of, identity, point_of, stage_place

WAIT = 0.4          # seconds; less than T1, after which a retransmission comes (RFC 3261, 17.1.1.1)
TWIN = 0.02         # seconds between the two copies that a mirror port makes of one packet
MOST_OPEN = 4096


@dataclass(slots=True, eq=False)
class _Open:
    passage: Passage
    points: set[Point]
    key: Hashable


@dataclass(slots=True)
class Passages:
    """Puts sightings together; *view* says on which side each was taken."""

    view: NetworkView
    _open: deque[_Open] = field(default_factory=deque)
    _by_key: dict[Hashable, list[_Open]] = field(default_factory=dict)
    _chain: Chain = field(default_factory=Chain)
    _of_record: dict[int, _Open] = field(default_factory=dict)     # header-only sightings, by id

    def add(self, sighting: Sighting) -> list[Passage]:
        """Take the next sighting; return the passages that nothing can be added to any more."""
        sighting.side = side_of_copy(self.view, sighting.source.host, sighting.destination.host)
        complete = self._close(sighting.time - WAIT, MOST_OPEN)
        message, point = sighting.message, point_of(sighting)
        key = (identity(message), sighting.transport) if message is not None else None
        entry = self._find(sighting, key)
        if entry is not None:
            entry.passage.sightings.append(sighting)
            entry.points.add(point)
        else:
            entry = self._begin(sighting, point, key)
        if message is None:
            self._of_record[id(sighting)] = entry
        return complete

    def finish(self) -> list[Passage]:
        """Return what is still open."""
        return self._close(float("inf"), 0)

    def _begin(self, sighting: Sighting, point: Point, key: Hashable) -> _Open:
        entry = _Open(Passage([sighting]), {point}, key)
        self._open.append(entry)
        if key is not None:
            self._by_key.setdefault(key, []).append(entry)
        return entry

    def _find(self, sighting: Sighting, key: Hashable) -> _Open | None:
        """Return the open passage that *sighting* is one more copy of; of several the nearest in time."""
        if key is None:
            before = self._chain.follow(sighting)
            return self._of_record.pop(id(before), None) if before is not None else None
        alike = self._by_key.get(key)
        if alike is None:
            return None
        entries = [entry for entry in alike if _can_join(entry, sighting)]
        return min(entries, key=lambda entry: abs(sighting.time - entry.passage.first.time), default=None)

    def _close(self, before: float, most: int) -> list[Passage]:
        complete = []
        waiting = self._open
        while waiting and (waiting[0].passage.sightings[0].time < before or len(waiting) > most):
            entry = waiting.popleft()
            self._forget(entry)
            complete.append(self._finished(entry.passage))
        return complete

    def _forget(self, entry: _Open) -> None:
        if entry.key is None:
            for sighting in entry.passage.sightings:
                self._of_record.pop(id(sighting), None)
            return
        entries = self._by_key[entry.key]
        entries.remove(entry)
        if not entries:
            del self._by_key[entry.key]

    def _finished(self, passage: Passage) -> Passage:
        """Bring the copies into path order and tell the direction."""
        sightings = passage.sightings
        if len(sightings) > 1:
            inside_first = self._leaves(sightings)
            sightings.sort(key=lambda each: (_depth(each, inside_first), stage_place(each), each.time))
        passage.direction = direction_of(
            self.view, passage.first.source.host, passage.last.destination.host)
        return passage

    def _leaves(self, sightings: list[Sighting]) -> bool:
        """Tell whether a packet goes outward: an inside host is the source of some copy."""
        return any(self.view.side_of(each.source.host) is Side.INSIDE for each in sightings)


def _can_join(entry: _Open, sighting: Sighting) -> bool:
    if point_of(sighting) not in entry.points:
        return True
    for other in entry.passage.sightings:
        if point_of(other) == point_of(sighting):
            ends = (other.source, other.destination) == (sighting.source, sighting.destination)
            if ends and not _is_twin(other, sighting):
                return False
    return True


def _is_twin(one: Sighting, other: Sighting) -> bool:
    """Tell a mirror port's second copy of a packet from a retransmission."""
    return (
        file_of(one) == file_of(other) and other.time - one.time < TWIN and one.payload == other.payload
        and one.facts.identification == other.facts.identification
    )


_SIDES_OUTWARD = {Side.INSIDE: 0, Side.UNKNOWN: 1, Side.OUTSIDE: 2}


def _depth(sighting: Sighting, inside_first: bool) -> int:
    depth = _SIDES_OUTWARD[sighting.side]
    return depth if inside_first else -depth
