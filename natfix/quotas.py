"""How fast one host may begin something: a token bucket for each, so that a flood costs others nothing.

What begins something is a request of :data:`BEGINS`, or a packet of an inside endpoint that has no mapping
yet. What only goes on or ends (ACK, BYE, CANCEL, PRACK, responses) counts while natfix is behind only:
what one host sends of all kinds the kernel bounds (`nft/natfix.nft`, chain paced) before natfix sees it.
A message over the rate is dropped, not passed unfixed: UDP requests are repeated (RFC 3261, section 17.1),
and an unfixed REGISTER would be the harm that natfix is there to prevent.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from natfix.commands import Note

BURST = 5.0             # seconds' worth that may come at once: after a power cut all phones register together
MOST_HOSTS = 4096       # buckets kept; the host that was quiet longest is forgotten, which fills its bucket
MOST_SHOWN = 16         # hosts over their rate that are counted one by one
PRICE_BEHIND = 4.0      # tokens of what begins something while natfix is behind: a flood has less
NOTE_EVERY = 1.0        # seconds between two notes about one host
OTHERS = "others"       # hosts beyond MOST_SHOWN, together
BEGINS = (b"INVITE ", b"REGISTER ", b"OPTIONS ", b"SUBSCRIBE ", b"MESSAGE ", b"REFER ", b"PUBLISH ")


@dataclass(slots=True, eq=False)
class _Bucket:
    tokens: float
    filled_at: float
    noted_at: float = -NOTE_EVERY


class Rates(NamedTuple):
    """What may begin per second; 0 is no bound."""

    inside: int         # by one inside host
    outside: int        # by one outside host


class Quotas:
    """The buckets of all hosts that have sent lately."""

    def __init__(self, rates: Rates, trusted: AbstractSet[str]) -> None:
        """*trusted* are the hosts that the operator names, as they are at any time: they have no bound."""
        self._rates = rates
        self._trusted = trusted
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self.over: Counter[str] = Counter()     # packets over the rate, by host
        self.is_behind = False      # the shell says so: packets come faster than they are treated

    def follow(self, rates: Rates) -> None:
        """Take other rates; what hosts have left of their burst stays."""
        self._rates = rates

    def admit(self, host: str, is_inside: bool, now: float, begins: bool = True) -> bool:
        """Take one token of *host*'s for a packet that *begins* something; False where it has none left.

        While natfix is behind such a packet costs several, and every other one costs one.
        """
        if not (begins or self.is_behind):
            return True
        rate = self._rates.inside if is_inside else self._rates.outside
        if not rate or host in self._trusted:
            return True
        bucket = self._bucket(host, rate * BURST, now)
        bucket.tokens = min(rate * BURST, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        price = PRICE_BEHIND if begins and self.is_behind else 1.0
        if bucket.tokens < price:
            self.over[host if host in self.over or len(self.over) < MOST_SHOWN else OTHERS] += 1
            return False
        bucket.tokens -= price
        return True

    def note(self, host: str, is_inside: bool, now: float) -> Note | None:
        """Return why *host*'s packet was dropped, once a second; a flood must not flood the journal."""
        bucket = self._buckets.get(host)
        if bucket is None or now - bucket.noted_at < NOTE_EVERY:
            return None
        bucket.noted_at = now
        which = "host" if is_inside else "peer"
        return Note("rate", "", host, host, f"[limits] requests_per_{which} is reached by {host}")

    def _bucket(self, host: str, size: float, now: float) -> _Bucket:
        bucket = self._buckets.get(host)
        if bucket is None:
            if len(self._buckets) >= MOST_HOSTS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[host] = _Bucket(size, now)
        else:
            self._buckets.move_to_end(host)
        return bucket


def begins_something(payload: bytes) -> bool:
    """Tell whether *payload* is a request that may begin a transaction outside of running calls.

    A look at its first word: what is over the rate is not to be read at all.
    """
    return payload.lstrip(b"\r\n")[:10].upper().startswith(BEGINS)
