"""Who may take a pair of the media pool while it runs short, and whose unanswered calls give way (design,
section 7).

One rule, and no number to choose. While more than an eighth of the pool is free, everybody takes what he
needs. Of the last eighth only those take who hold less than an eighth of the pool themselves, and hosts that
the operator names; to all others it is as if the pool were empty. Where there is none left for a host, its
own oldest call that nobody has answered gives way; where none is left at all, the oldest such call of the
host that holds most. A call that was answered never does.

So one flooding host keeps turning over its own calls, and the pairs that it gives up lie unused until the
rest of that eighth was taken: what still comes for an old call does not meet a new one.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import takewhile

from natfix.dialogs import Call, CallKey, State
from natfix.errors import LimitReached
from natfix.mappings import Mappings
from natfix.ports import PortPool

PART = 8                # of the pool: the share of one host, and what is kept for those who have less
GIVE_WAY_AT_ONCE = 4    # calls for one new one: some hold a pair together with others, and free none


class Shares:
    """The calls that hold pairs of the pool, by the host that they count for, and the rule above.

    An outside host with a NAT of its own counts for the relays of its streams.
    """

    def __init__(self, pool: PortPool, mappings: Mappings, trusted: AbstractSet[str]) -> None:
        """*trusted* are the hosts that the operator names, as they are at any time."""
        self._pool = pool
        self._mappings = mappings
        self._trusted = trusted
        self._waiting: dict[str, dict[CallKey, Call]] = {}      # by host, the oldest first

    @property
    def _kept(self) -> int:
        """Pairs for hosts that have little."""
        return self._pool.size // PART

    def note(self, call: Call, host: str) -> None:
        """Note that *call* holds a mapping that counts for *host*."""
        if host not in call.payers and not _is_answered(call):
            call.payers = (*call.payers, host)
            self._waiting.setdefault(host, {})[call.key] = call

    def forget(self, call: Call) -> None:
        """Note that *call* holds nothing any more."""
        for host in call.payers:
            self._take_out(call, host)

    def _take_out(self, call: Call, host: str) -> None:
        call.payers = tuple(payer for payer in call.payers if payer != host)
        del self._waiting[host][call.key]
        if not self._waiting[host]:
            del self._waiting[host]

    def in_the_way(self, host: str, pairs: int, besides: Call) -> Call | None:
        """Return the call that has to give way before *host* can have *pairs* more; None where there is room,
        or no call that might. *besides* is the one that they are for."""
        if self._is_over_share(host, pairs) or not self._mappings.has_room(host, 2 * pairs):
            return self._oldest_of(host, besides)
        if self._pool.free >= pairs:
            return None
        hosts = sorted(self._waiting, key=self._mappings.count, reverse=True)
        return next(filter(None, (self._oldest_of(each, besides) for each in hosts)), None)

    def check(self, host: str, pairs: int) -> None:
        """Raise LimitReached where *pairs* more for *host* are against the rule."""
        if self._is_over_share(host, pairs):
            raise LimitReached(f"[media] ports run short, and {host} has its share of them")

    def _is_over_share(self, host: str, pairs: int) -> bool:
        return self._pool.free - pairs < self._kept and host not in self._trusted \
            and self._mappings.count(host) >= 2 * self._kept

    def _oldest_of(self, host: str, besides: Call) -> Call | None:
        calls = self._waiting.get(host, {})
        for call in list(takewhile(_is_answered, calls.values())):
            self._take_out(call, host)
        return next((call for call in calls.values() if call is not besides and not _is_answered(call)), None)


def _is_answered(call: Call) -> bool:
    return call.state is State.CONFIRMED
