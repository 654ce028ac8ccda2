"""One heap of deadlines for everything in the engine that ends or recurs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

NEVER = float("inf")


Key = tuple[str, Any]       # what kind of thing is due, and which one; hashable


class Deadlines:
    """At most one deadline per key; setting another one moves it."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = 0        # breaks ties, since keys need not be comparable

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, when: float) -> None:
        """Make *key* due at *when* (seconds on the engine's clock); NEVER takes it off."""
        if when == NEVER:
            self._due.pop(key, None)
            return
        if self._due.get(key) == when:
            return
        self._due[key] = when
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, key))

    def next(self) -> float | None:
        """Return when the earliest deadline is, None where there is none."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_expired(self, now: float) -> Iterator[Key]:
        """Yield and forget every key that is due at *now*, earliest first."""
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            yield key
