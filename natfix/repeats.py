"""Retransmissions: the same bytes on the same path leave as the same bytes, without being read again."""

from __future__ import annotations

from collections import deque

from natfix.address import Endpoint
from natfix.edits import EditTuple

LIFETIME = 32.0     # seconds; 64*T1, after which RFC 3261's transactions retransmit no more
MOST = 16384        # messages, some 10 MB; at 400 calls a second that is still 6 s
FORGET = 2          # old ones forgotten for a new one: all at once would be a pause


class Repeats:
    """Edits by source, destination and payload."""

    def __init__(self) -> None:
        self._edits: dict[int, tuple[float, EditTuple]] = {}    # until when, and which
        self._order: deque[tuple[float, int]] = deque()         # until when, and the key; oldest first

    def find(self, source: Endpoint, destination: Endpoint, payload: bytes, now: float) -> EditTuple | None:
        """Return the edits that were made in these very bytes before, None where they are new."""
        until, edits = self._edits.get(hash((source, destination, payload)), (0.0, None))
        return edits if until > now else None

    def remember(
        self, source: Endpoint, destination: Endpoint, payload: bytes, edits: EditTuple, now: float
    ) -> None:
        """Keep the edits of a message that is new."""
        key, until = hash((source, destination, payload)), now + LIFETIME
        self._edits[key] = (until, edits)
        self._order.append((until, key))
        for _ in range(FORGET):
            until, oldest = self._order[0]
            if until > now and len(self._order) <= MOST:
                return
            self._order.popleft()
            if self._edits[oldest][0] == until:
                del self._edits[oldest]
