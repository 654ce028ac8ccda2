"""Which outside port a mapping gets: the media pool in pairs, and the choice for signalling."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import LimitReached

REUSE_GUARD = 120.0     # seconds before a freed pair may meet the same remote again (design, section 6)
REUSE_SEARCH = 16       # pairs looked at for one that did not just serve this remote
MOST_TRIED = 1024       # signalling ports: of a range that is 99 % full this finds a free one, in 1 ms
STRIDE = 7919           # between two that are tried: a run of taken ones is soon left


class _Freed(NamedTuple):
    at: float
    remote: str


_FRESH = _Freed(-1e9, "")


class PortPool:
    """The outside media ports, in pairs of an even port and the odd one above (RFC 3550, section 11).

    The pair that was unused longest is taken first, so that a late packet of an old call does not
    meet a new one.
    """

    def __init__(self, first: int, last: int) -> None:
        self._free: OrderedDict[int, _Freed] = OrderedDict(
            (base, _FRESH) for base in range(first + first % 2, last, 2)
        )
        self._bases = frozenset(self._free)
        self._used: set[int] = set()
        self.excluded: frozenset[int] = frozenset()     # ports that others listen on

    def __contains__(self, port: int) -> bool:
        return port - port % 2 in self._bases

    @property
    def size(self) -> int:
        """Number of pairs."""
        return len(self._bases)

    @property
    def free(self) -> int:
        """Number of pairs that nobody holds."""
        return len(self._free)

    def resize(self, first: int, last: int) -> None:
        """Give out ports *first* to *last* from now on; those that are held keep theirs."""
        bases = range(first + first % 2, last, 2)
        freed = {base: self._free.get(base, _FRESH) for base in bases if not {base, base + 1} & self._used}
        self._free = OrderedDict(sorted(freed.items(), key=lambda item: item[1].at))
        self._bases = frozenset(bases)

    def take(self, count: int, odd: bool, remote: str, now: float) -> int:
        """Reserve *count* ports in a row, the first odd or even as asked, and return the first.

        *remote* is the peer the ports are for, so that it does not meet a pair it just used.
        Raises LimitReached where no such run is free.
        """
        pairs = (count + odd + 1) // 2
        base = self._find_run(pairs, remote, now)
        first = base + odd
        for port in range(first, first + count):
            self.claim(port)
        return first

    def claim(self, port: int) -> None:
        """Reserve just *port*, whoever had it (a mapping read back from the kernel)."""
        self._free.pop(port - port % 2, None)
        self._used.add(port)

    def give_back(self, port: int, remote: str, now: float) -> None:
        """Free *port*; its pair goes to the end of the list once neither half is in use."""
        self._used.discard(port)
        base = port - port % 2
        if base in self._bases and base not in self._used and base + 1 not in self._used:
            self._free[base] = _Freed(now, remote)

    def _find_run(self, pairs: int, remote: str, now: float) -> int:
        fallback: int | None = None
        for looked, (base, freed) in enumerate(self._free.items()):
            if not self._is_free_run(base, pairs):
                continue
            if freed.remote != remote or now - freed.at > REUSE_GUARD:
                return base
            if fallback is None:
                fallback = base
            if looked >= REUSE_SEARCH:
                break
        if fallback is None:
            raise LimitReached("every port of [media] ports is in use")
        return fallback

    def _is_free_run(self, base: int, pairs: int) -> bool:
        return all(
            slot in self._free and slot not in self.excluded and slot + 1 not in self.excluded
            for slot in range(base, base + 2 * pairs, 2)
        )


def choose_signalling_port(
    inside: Endpoint,
    outside_host: str,
    preferred: Iterable[int],
    spare: tuple[int, int],
    is_free: Callable[[int], bool],
) -> int:
    """Return the outside port for a UDP signalling flow.

    The first free one of *preferred* (remembered, named by the UA's own Contact, the inside port), else
    the first free one of the range *spare*, from a place that depends on the endpoints only, so that the
    same phone finds the same port again (RFC 4787, REQ-1). Raises LimitReached where none is free, or as
    good as none: packets wait for this search.
    """
    for port in preferred:
        if is_free(port):
            return port
    first, last = spare
    width = last - first + 1
    start = zlib.crc32(f"{inside} {outside_host}".encode()) % width
    stride = STRIDE if width % STRIDE else 1        # a prime: every port has its turn
    for step in range(min(width, MOST_TRIED)):
        port = first + (start + step * stride) % width
        if is_free(port):
            return port
    raise LimitReached("every port of [signalling] outside_ports is in use")
