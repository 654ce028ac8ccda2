"""Retransmissions: the same bytes on the same path leave as the same bytes, without being read again."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.edits import EditTuple

LIFETIME = 32.0             # seconds; 64*T1, after which RFC 3261's transactions retransmit no more
MAX_PER_GENERATION = 50000


class Treated:
    """How a message was treated the first time."""

    __slots__ = ("call_id", "edits", "notes", "summary")

    def __init__(self, edits: EditTuple, notes: list[Note], summary: str, call_id: str) -> None:
        self.edits = edits
        self.notes = notes
        self.summary = summary
        self.call_id = call_id


class Repeats:
    """Edits by source, destination and payload; forgotten after one to two lifetimes."""

    def __init__(self) -> None:
        self._young: dict[int, Treated] = {}
        self._old: dict[int, Treated] = {}
        self._turned_at = 0.0

    def find(self, source: Endpoint, destination: Endpoint, payload: bytes) -> Treated | None:
        """Return how these very bytes were treated before, None where they are new."""
        key = hash((source, destination, payload))
        return self._young.get(key) or self._old.get(key)

    def remember(
        self, source: Endpoint, destination: Endpoint, payload: bytes, treated: Treated, now: float
    ) -> None:
        """Keep how a message was treated."""
        if now - self._turned_at > LIFETIME or len(self._young) >= MAX_PER_GENERATION:
            self._young, self._old = {}, self._young
            self._turned_at = now
        self._young[hash((source, destination, payload))] = treated
