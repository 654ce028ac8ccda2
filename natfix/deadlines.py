"""One heap of deadlines for everything in the engine that ends or recurs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

NEVER = float("inf")
FEW = 512           # entries of the heap that may be of no use
MOST_SWEPT = 16384  # entries looked through at once, some 3 ms; of more, each goes when its time comes

Key = tuple[str, Any]       # what kind of thing is due, and which one; hashable


class Deadlines:
    """At most one deadline per key; setting another one moves it.

    One that is moved to later keeps its place in the heap, and is put back when that comes up: most are
    moved again and again before they are due, and the heap must not grow with each move. What is made
    earlier, or taken off, leaves its old place behind; once most places are such ones, they are swept out.
    """

    def __init__(self, few: int = FEW) -> None:
        self._few = few
        self._due: dict[Key, float] = {}
        self._moved: dict[Key, float] = {}      # where in the heap a key is that was moved to later
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = 0        # breaks ties, since keys need not be comparable

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, when: float) -> None:
        """Make *key* due at *when* (seconds on the engine's clock); NEVER takes it off."""
        planned = self._moved.pop(key, self._due.pop(key, NEVER))
        if when == NEVER:
            return
        self._due[key] = when
        if when < planned:
            self._push(key, when)
        elif when > planned:
            self._moved[key] = planned

    def bring_forward(self, key: Key, when: float) -> None:
        """Make *key* due at *when*, unless it is due before."""
        if when < self._due.get(key, NEVER):
            self.set(key, when)

    def next(self) -> float | None:
        """Return when the earliest deadline is, None where there is none."""
        heap = self._heap
        while heap:
            planned, _, key = heap[0]
            when = self._due.get(key)
            if when == planned:
                return when
            heapq.heappop(heap)
            if when is not None and self._moved.get(key) == planned:
                del self._moved[key]
                self._push(key, when)
        return None

    def pop_expired(self, now: float) -> Iterator[Key]:
        """Yield and forget every key that is due at *now*, earliest first."""
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self._moved.pop(key, None)
            yield key

    def _push(self, key: Key, when: float) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, key))
        if 3 * len(self._due) + self._few < len(self._heap) <= MOST_SWEPT:
            self._sweep()

    def _sweep(self) -> None:
        due, moved = self._due, self._moved
        self._heap[:] = [entry for entry in self._heap
                         if entry[0] in (due.get(entry[2]), moved.get(entry[2]))]
        heapq.heapify(self._heap)
