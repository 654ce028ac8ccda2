"""Bindings (RFC 3261, section 10): which address-of-record a registrar has accepted for which UA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.mappings import Holder

MAX_PENDING = 8192      # REGISTERs that await their answer; the oldest goes first


class BindingKey(NamedTuple):
    """The inside endpoint that the Contact names, the address-of-record it is bound to, and the inside proxy
    that it was registered through, if there is one."""

    inside: Endpoint
    aor: str
    proxy: Endpoint | None = None

    @property
    def reached_at(self) -> Endpoint:
        """The inside endpoint that the registrar's requests come in to."""
        return self.proxy or self.inside


@dataclass(slots=True, eq=False)
class Binding:
    """One accepted Contact."""

    key: BindingKey
    user: str               # user part of the Contact
    written: str            # its host and port as the UA wrote them
    shown: str              # as the registrar was shown them
    registrar: Endpoint
    expires_at: float
    registered_at: float
    agent: str = ""
    holder: Holder = field(init=False)      # this binding's name among a mapping's holders

    def __post_init__(self) -> None:
        inside, aor, proxy = self.key
        self.holder = ("registration", intern(str(inside)), aor, *([str(proxy)] if proxy else ()))


class Requested(NamedTuple):
    """One Contact of a REGISTER that awaits its answer."""

    key: BindingKey
    user: str
    written: str
    shown: str
    expires: int | None     # None: the UA left it to the registrar


@dataclass(slots=True, eq=False)
class PendingRegister:
    """A REGISTER on its way; nothing is open before the 2xx (design, section 7)."""

    registrar: Endpoint
    agent: str
    contacts: list[Requested] = field(default_factory=list)
    wildcard: bool = False      # "Contact: *" with expires 0 ends every binding of the AOR
    aor: str = ""


class PendingKey(NamedTuple):
    inside: Endpoint
    call_id: str
    cseq: int


class Registrations:
    """All bindings, and the REGISTERs that may lead to more."""

    def __init__(self, limit: int, limit_per_host: int) -> None:
        self._bindings: dict[BindingKey, Binding] = {}
        self._by_inside: dict[Endpoint, dict[str, Binding]] = {}
        self._pending: dict[PendingKey, PendingRegister] = {}
        self._per_host: Counter[str] = Counter()                # by who registered
        self._named: Counter[tuple[str, str]] = Counter()       # by who registered, and the Contact's host
        self.limit = limit
        self._limit_per_host = limit_per_host
        self.changed: set[BindingKey] = set()

    def follow(self, limit: int, limit_per_host: int) -> None:
        """Take other limits; what is above them stays and ends by itself."""
        self.limit, self._limit_per_host = limit, limit_per_host

    def __iter__(self) -> Iterator[Binding]:
        return iter(list(self._bindings.values()))

    def __len__(self) -> int:
        return len(self._bindings)

    def find(self, key: BindingKey) -> Binding | None:
        """Return the binding with this key."""
        return self._bindings.get(key)

    def is_registered(self, host: str, proxy: str) -> bool:
        """Tell whether a UA on inside *host* is registered, by itself or through the inside host *proxy*."""
        return (host, host) in self._named or (proxy, host) in self._named

    def find_user(self, inside: Endpoint, user: str) -> Binding | None:
        """Return the binding whose Contact had *user*, for a UA at *inside*."""
        return self._by_inside.get(inside, {}).get(user)

    def at(self, inside: Endpoint) -> list[Binding]:
        """Return the bindings of UAs that are reached at *inside* themselves."""
        return list(self._by_inside.get(inside, {}).values())

    def add(self, binding: Binding) -> None:
        """Enter or replace a binding; raises LimitReached where there are too many."""
        key = binding.key
        host = key.reached_at.host
        if key not in self._bindings:
            if len(self._bindings) >= self.limit:
                raise LimitReached("[limits] registrations is reached")
            if self._per_host[host] >= self._limit_per_host:
                raise LimitReached(f"[limits] registrations_per_host is reached by {host}")
            self._per_host[host] += 1
            self._named[host, key.inside.host] += 1
        self._bindings[key] = binding
        if key.proxy is None:
            self._by_inside.setdefault(key.inside, {})[binding.user] = binding
        self.changed.add(key)

    def remove(self, key: BindingKey) -> Binding | None:
        """Forget a binding; returns it, None where there was none."""
        binding = self._bindings.pop(key, None)
        if binding is None:
            return None
        self._count_off(key.reached_at.host, key.inside.host)
        users = self._by_inside.get(key.inside, {})
        if users.get(binding.user) is binding:
            del users[binding.user]
            if not users:
                del self._by_inside[key.inside]
        self.changed.add(key)
        return binding

    def _count_off(self, host: str, named: str) -> None:
        self._per_host[host] -= 1
        self._named[host, named] -= 1
        if not self._named[host, named]:
            del self._named[host, named]

    def of_aor(self, host: str, aor: str) -> list[Binding]:
        """Return the bindings that inside *host* has registered for *aor*."""
        return [
            binding for key, binding in self._bindings.items()
            if key.aor == aor and key.reached_at.host == host
        ]

    def expect(self, key: PendingKey, pending: PendingRegister) -> None:
        """Remember a REGISTER until it is answered."""
        self._pending.pop(key, None)
        if len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[key] = pending

    def answered(self, key: PendingKey) -> PendingRegister | None:
        """Return the REGISTER that a response belongs to, and keep it for retransmissions."""
        return self._pending.get(key)
