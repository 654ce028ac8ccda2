"""UAs outside that sit behind NATs of their own: what they wrote of themselves, and how long they are wanted.

A far UA is known by its source, the endpoint that its packets come from: that stands for it inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from natfix.address import Endpoint
from natfix.pulse import Pulse

IDLE = 7200.0           # seconds after the last message that one which is not registered is remembered
MOST_CONTACTS = 16      # of one UA: users of its Contacts, and addresses-of-record


@dataclass(slots=True, eq=False)
class FarEnd:
    """One far UA, or several behind one port of a NAT."""

    source: Endpoint
    signs: frozenset[str]
    seen_at: float
    agent: str = ""
    written: dict[str, str] = field(default_factory=dict)       # Contact: user -> host and port as written
    bindings: dict[str, float] = field(default_factory=dict)    # address-of-record -> until when
    asks_rport: bool = True     # it writes rport itself (RFC 3581)
    registrar: Endpoint | None = None       # inside: who has accepted it
    reached_at: Endpoint | None = None      # outside: where it has sent its REGISTER to
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def shown(self) -> str:
        """What stands for it inside."""
        return str(self.source)

    def is_registered(self, now: float) -> bool:
        """Tell whether a registrar has accepted it, and that still holds."""
        return any(until > now for until in self.bindings.values())

    def note_contact(self, user: str, written: str) -> bool:
        """Keep how it writes itself; False where this *user* stands for two, or there are too many."""
        if user not in self.written and len(self.written) >= MOST_CONTACTS:
            return False
        self.written[user] = written
        return True

    def note_binding(self, aor: str, until: float) -> None:
        """Keep what the registrar has granted; 0 ends it."""
        if until <= 0:
            self.bindings.pop(aor, None)
        elif aor in self.bindings or len(self.bindings) < MOST_CONTACTS:
            self.bindings[aor] = until

    def written_for(self, user: str) -> str:
        """Return how it wrote the host and port of the Contact with *user*; of any, where that is unknown."""
        return self.written.get(user) or next(reversed(self.written.values()), "")


class FarEnds:
    """All far UAs, bounded; who is not registered gives way first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Endpoint, FarEnd] = {}      # not registered; who was quiet longest comes first
        self._registered: dict[Endpoint, FarEnd] = {}
        self.changed: set[Endpoint] = set()

    def __iter__(self) -> Iterator[FarEnd]:
        return iter([*self._registered.values(), *self._waiting.values()])

    def __len__(self) -> int:
        return len(self._registered) + len(self._waiting)

    def find(self, source: Endpoint) -> FarEnd | None:
        """Return the far UA whose packets come from *source*."""
        return self._registered.get(source) or self._waiting.get(source)

    def note(self, source: Endpoint, signs: frozenset[str], agent: str, now: float) -> FarEnd | None:
        """Take up, or confirm, a far UA; None where all places are taken by registered ones."""
        far = self.find(source)
        if far is None:
            if not self._make_room(now):
                return None
            far = FarEnd(source, signs, now)
        far.signs, far.seen_at, far.agent = signs, now, agent or far.agent
        self._file(far, now)
        return far

    def bind(self, far: FarEnd, aor: str, until: float, now: float) -> None:
        """Take what a registrar has said to *far*; *until* 0 ends the binding."""
        far.note_binding(aor, until)
        self._file(far, now)

    def restore(self, far: FarEnd, now: float) -> None:
        """Take up one from before a restart."""
        if self._make_room(now):
            self._file(far, now)

    def remove(self, source: Endpoint) -> None:
        """Forget a far UA; absence is no error."""
        if self._registered.pop(source, None) or self._waiting.pop(source, None):
            self.changed.add(source)

    def pop_expired(self, now: float) -> bool:
        """Forget those that nobody wants any more; False where none is left."""
        for far in [far for far in self._registered.values() if not far.is_registered(now)]:
            self._file(far, now)
        for far in list(self._waiting.values()):
            if far.seen_at + IDLE > now:
                break       # the others were heard of later
            self.remove(far.source)
        return len(self) > 0

    def _file(self, far: FarEnd, now: float) -> None:
        self._waiting.pop(far.source, None)
        self._registered.pop(far.source, None)
        table = self._registered if far.is_registered(now) else self._waiting
        table[far.source] = far
        self.changed.add(far.source)

    def _make_room(self, now: float) -> bool:
        if len(self) < self._limit:
            return True
        self.pop_expired(now)
        if len(self) >= self._limit and self._waiting:
            self.remove(next(iter(self._waiting)))
        return len(self) < self._limit
