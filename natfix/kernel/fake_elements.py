"""The NAT maps and the filter set of natfix's table, in memory: the half of the fake kernel that expires.

As strict as netfilter: a transaction is carried out whole or not at all, one key has one value, a map
has a size, a comment has a length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    Command,
    DeleteMapping,
    DismissPeer,
    ForbidRemote,
    Kind,
)
from natfix.errors import KernelRefused
from natfix.kernel.base import KernelMapping

COMMENT_SIZE = 127      # bytes; what is longer is cut, as the netlink encoder does
ANY_REMOTE = "0.0.0.0"  # an AllowRemote for whoever sends ([media] accept_from = "any")


class Element(NamedTuple):
    """What a key is translated to, until when (seconds), and the element's comment."""

    value: Endpoint
    ends_at: float
    owner: str = ""


class Elements:
    """The maps inside -> outside and outside -> inside, and who may use the latter, by kind."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.size = size        # of each map
        self._outgoing: dict[Kind, dict[Endpoint, Element]] = {kind: {} for kind in Kind}
        self._inward: dict[Kind, dict[Endpoint, Element]] = {kind: {} for kind in Kind}
        self._allowed: dict[tuple[Kind, Endpoint, str], float] = {}     # -> until when
        self._peers: dict[str, bool] = {}       # who may use every signalling mapping
        self._maps = (*self._outgoing.values(), *self._inward.values())
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self.earliest_end = float("inf")    # nothing ends before it

    def transact(self, commands: Iterable[Command], now: float, from_nothing: bool = False) -> None:
        """Carry out what *commands* say about elements, all of it or, with KernelRefused, nothing.

        With *from_nothing* the maps hold just that afterwards.
        """
        self._undo.clear()
        try:
            if from_nothing:
                self.clear()
            for command in commands:
                self._carry_out(command, now)
        except KernelRefused:
            for table, key, old in reversed(self._undo):
                _write(table, key, old)
            raise

    def clear(self) -> None:
        """Remove every element."""
        tables: tuple[dict[Any, Any], ...] = (*self._maps, self._allowed, self._peers)
        for table in tables:
            for key in list(table):
                self._put(table, key, None)

    def expire(self, now: float) -> None:
        """Remove the elements whose time is up."""
        if now < self.earliest_end:
            return
        for table in self._maps:
            for key in [key for key, element in table.items() if element.ends_at <= now]:
                del table[key]
        for permission in [key for key, ends_at in self._allowed.items() if ends_at <= now]:
            del self._allowed[permission]
        ends = [element.ends_at for table in self._maps for element in table.values()]
        self.earliest_end = min((*ends, *self._allowed.values()), default=float("inf"))

    def outside_of(self, inside: Endpoint) -> Endpoint | None:
        """Return the endpoint that what *inside* sends is shown to come from."""
        return _value(self._outgoing, inside)

    def inside_of(self, outside: Endpoint, remote: str, from_inside: bool = False) -> Endpoint | None:
        """Return the endpoint that what *remote* sends to *outside* is for, None where it may not.

        From inside, whoever wants may call a phone by its outside endpoint (hairpinning).
        """
        for kind, table in self._inward.items():
            element = table.get(outside)
            is_hairpin = from_inside and kind is Kind.SIGNALLING
            if element and (is_hairpin or self._is_allowed(kind, outside, remote)):
                return element.value
        return None

    def is_learning(self, outside: Endpoint, remote: str) -> bool:
        """Tell whether natfix is to be shown what *remote* sends to *outside*."""
        return (Kind.RELAY, outside, remote) in self._allowed

    def is_signalling(self, source: Endpoint, destination: Endpoint, target: Endpoint) -> bool:
        """Tell whether a packet to *destination*, sent on to *target*, belongs to a signalling mapping."""
        kind = Kind.SIGNALLING
        return source in self._outgoing[kind] or (
            target != destination and destination in self._inward[kind])

    def mappings(self, now: float) -> list[KernelMapping]:
        """Read back every mapping."""
        return [
            KernelMapping(kind, inside, element.value, element.value in self._inward[kind],
                          element.ends_at - now, element.owner)
            for kind, table in self._outgoing.items() for inside, element in table.items()
        ]

    def _is_allowed(self, kind: Kind, outside: Endpoint, remote: str) -> bool:
        allowed = self._allowed
        is_open = kind is Kind.MEDIA and (kind, outside, ANY_REMOTE) in allowed
        is_peer = kind is Kind.SIGNALLING and remote in self._peers
        return is_open or is_peer or (kind, outside, remote) in allowed

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case AddMapping(kind, inside, outside, lifetime, inward, owner, is_new):
                element = Element(outside, self._end(now, lifetime), _cut(owner))
                self._add(self._outgoing[kind], inside, element, is_new)
                if inward:
                    self._add(self._inward[kind], outside, element._replace(value=inside), is_new)
                elif not is_new:
                    self._take(self._inward[kind], outside, inside)
            case DeleteMapping(kind, inside, outside):
                self._take(self._outgoing[kind], inside, outside)
                self._take(self._inward[kind], outside, inside)
            case AllowRemote(kind, outside, remote, lifetime, is_new):
                permission = (kind, outside, remote)
                if not is_new or permission not in self._allowed:
                    self._put(self._allowed, permission, self._end(now, lifetime))
            case ForbidRemote(kind, outside, remote):
                self._put(self._allowed, (kind, outside, remote), None)
            case AdmitPeer(remote):
                self._put(self._peers, remote, True)
            case DismissPeer(remote):
                self._put(self._peers, remote, None)
            case _:
                pass        # conntrack's business

    def _end(self, now: float, lifetime: float) -> float:
        if lifetime <= 0:       # nft would take zero as "for ever"
            raise KernelRefused(f"not an element's lifetime: {lifetime} s")
        self.earliest_end = min(self.earliest_end, now + lifetime)
        return now + lifetime

    def _add(
        self, table: dict[Endpoint, Element], key: Endpoint, element: Element, is_new: bool,
    ) -> None:
        """Add or refresh; one that is there although it is said to be new stays, with its old time."""
        _check_value(table, key, element.value)
        if is_new and key in table:
            return
        if key not in table and len(table) >= self.size:
            raise KernelRefused(f"a map is full at {self.size} elements (ENFILE)")
        self._put(table, key, element)

    def _take(self, table: dict[Endpoint, Element], key: Endpoint, value: Endpoint) -> None:
        _check_value(table, key, value)
        self._put(table, key, None)

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((table, key, table.get(key)))
        _write(table, key, value)


def _check_value(table: dict[Endpoint, Element], key: Endpoint, value: Endpoint) -> None:
    """One key has one value: EEXIST, also for a deletion (which adds first, so that absence is no error)."""
    if key in table and table[key].value != value:
        raise KernelRefused(f"{key} is {table[key].value} already, it cannot be {value} (EEXIST)")


def _cut(owner: str) -> str:
    return owner.encode()[:COMMENT_SIZE].decode(errors="ignore")


def _value(tables: dict[Kind, dict[Endpoint, Element]], key: Endpoint) -> Endpoint | None:
    for table in tables.values():
        element = table.get(key)
        if element is not None:
            return element.value
    return None


def _write(table: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
