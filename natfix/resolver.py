"""The names of peers and domains: asked for when their time is over, beside the loop, one after the other.

What DNS said last holds until DNS says something else, however long that takes, over restarts too: an outage
of DNS must shut nobody out. An address that is missing from a good answer holds for KEEP seconds more, since
many names stand for a pool of which each answer has a part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from natfix.background import Background
from natfix.config import Settings, names_to_resolve
from natfix.errors import NatfixError
from natfix.journal import time_text
from natfix.loop import Source
from natfix.message_ids import kind
from natfix.policies import MOST_ADDRESSES
from natfix.reports import Change, NamesResolved, Report

if TYPE_CHECKING:       # it takes dnspython, which only who has names needs
    from natfix.lookup import Found

TABLE = "names"             # of the state file
SHORTEST, LONGEST = 30.0, 86400.0   # seconds between two questions, whatever the TTL
RETRY, LONGEST_RETRY = 5.0, 300.0   # seconds after which DNS is asked again that failed; doubled each time
EMPTY, LONGEST_EMPTY = 30.0, 3600.0     # likewise, where DNS knows no address
KEEP = 3600.0               # seconds an address counts after it was last in an answer
WRITE_EVERY = 1800.0        # seconds between two rows of a name that has not changed
NO_ADDRESS = "DNS knows no IPv4 address of it"
NO_DNSPYTHON = ("the Python package dnspython is missing, which a [[peer]] or [[domain]] by name needs: "
                "pip install 'natfix[live]', with the pip of natfix's own environment")

log = logging.getLogger("natfix")

Ask = Callable[[str, bool], "Found"]


def resolver_from_settings(
    settings: Settings, rows: Iterable[Change], remember: Callable[[Iterable[Change]], None],
) -> Resolver:
    """Return the resolver of the names in *settings*; see :class:`Resolver` for the rest.

    Raises NatfixError where there are names, and no dnspython.
    """
    names = names_to_resolve(settings)
    return Resolver(names, asker(settings.daemon.nameservers) if names else _never, rows, remember)


def asker(nameservers: Sequence[str]) -> Ask:
    """Return what finds a name's servers; raises NatfixError where dnspython is missing."""
    try:
        from natfix.lookup import servers_of
    except ImportError:
        raise NatfixError(NO_DNSPYTHON) from None
    return lambda name, is_host: servers_of(name, is_host, nameservers)


def _never(name: str, is_host: bool) -> Found:
    raise AssertionError(f"{name} is none of the names")


class Shell(Protocol):
    """What the resolver needs of :class:`natfix.loop.Loop`."""

    clock: Callable[[], float]

    def listen(self, source: Source, callback: Callable[[], None]) -> None: ...

    def call_at(self, when: float, task: Callable[[float], None]) -> None: ...

    def report(self, reports: Iterable[Report], now: float) -> None: ...


@dataclass(slots=True)
class _Name:
    text: str
    is_host: bool
    seen: dict[str, float] = field(default_factory=dict)    # address -> when it was last in an answer
    answered_at: float = 0.0        # when DNS last said anything; 0: never
    due: float = 0.0
    problem: str = ""
    problem_since: float = 0.0
    attempts: int = 0               # in vain, one after the other
    remark: str = ""
    written_at: float = 0.0

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self.seen)


class Resolver:
    """Keeps the engine informed of the addresses that names stand for."""

    def __init__(
        self, names: Mapping[str, bool], ask: Ask, rows: Iterable[Change] = (),
        remember: Callable[[Iterable[Change]], None] = lambda changes: None,
    ) -> None:
        """*names* are those of :func:`natfix.config.names_to_resolve`; *ask* finds a name's servers and may
        take long; *rows* are those of the state file, *remember* writes some."""
        self._names = [_Name(text, is_host) for text, is_host in names.items()]
        self._ask = ask
        self._remember = remember
        self._background = Background()
        self._asking = False
        self._shell: Shell | None = None
        self._take_rows(rows)

    def follow(self, settings: Settings) -> None:
        """Ask for other names from now on; what is known of those that stay is kept.

        Raises NatfixError where there are names, and no dnspython.
        """
        names = names_to_resolve(settings)
        self._ask = asker(settings.daemon.nameservers) if names else _never
        known = {(name.text, name.is_host): name for name in self._names}
        self._names = [known.get(each) or _Name(*each) for each in names.items()]
        if self._shell is not None:
            now = self._shell.clock()
            self._shell.report([self.known()], now)
            self._shell.call_at(now, self._ask_next)

    def known(self) -> NamesResolved:
        """Return what is known now."""
        return NamesResolved({name.text: name.hosts for name in self._names})

    def begin(self, shell: Shell, now: float) -> None:
        """Ask from now on."""
        self._shell = shell
        shell.listen(self._background, self._background.deliver)
        shell.call_at(now, self._ask_next)

    def status(self, now: float) -> list[dict[str, Any]]:
        """Return what is known of each name, JSON-able; ages in seconds."""
        return [_row(name, now) for name in self._names]

    # asking

    def _ask_next(self, now: float) -> None:
        if self._asking or not self._names or self._shell is None:
            return
        name = min(self._names, key=lambda each: each.due)
        if name.due > now:
            self._shell.call_at(name.due, self._ask_next)
            return
        self._asking = True
        self._background.ask("name", partial(self._ask, name.text, name.is_host),
                             partial(self._on_answer, name), partial(self._on_failure, name))

    def _on_answer(self, name: _Name, found: Found) -> None:
        assert self._shell is not None
        now, before = self._shell.clock(), set(name.seen)
        name.answered_at, name.remark = now, found.remark
        name.seen.update(dict.fromkeys(found.hosts, now))
        # The newest first, so that of too many the longest unseen goes.
        newest = sorted(name.seen.items(), key=lambda item: -item[1])[:MOST_ADDRESSES]
        name.seen = {host: at for host, at in newest if at > now - KEEP}
        if found.hosts:
            self._be_well(name)
            name.due = now + min(max(found.ttl, SHORTEST), LONGEST)
        else:
            self._complain(name, found.remark or NO_ADDRESS, now, EMPTY, LONGEST_EMPTY)
        changed = set(name.seen) != before
        if changed:
            log.info("%s is now %s", name.text, ", ".join(name.seen) or "nobody",
                     extra=kind("name-changed"))
            self._shell.report([self.known()], now)
        if changed or now - name.written_at > WRITE_EVERY:
            name.written_at = now
            self._remember([Change(TABLE, name.text, {"seen": dict(name.seen), "answered_at": now})])
        self._go_on(now)

    def _on_failure(self, name: _Name, problem: Exception) -> None:
        assert self._shell is not None
        now = self._shell.clock()
        self._complain(name, str(problem) or repr(problem), now, RETRY, LONGEST_RETRY)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        assert self._shell is not None
        self._asking = False
        self._shell.call_at(now, self._ask_next)

    def _be_well(self, name: _Name) -> None:
        if name.problem:
            log.info("%s: DNS answers again", name.text, extra=kind("name-back"))
        name.problem, name.problem_since, name.attempts = "", 0.0, 0

    def _complain(self, name: _Name, problem: str, now: float, first: float, longest: float) -> None:
        if not name.problem:
            name.problem_since = now
            kept = f"its last addresses hold: {', '.join(name.seen)}" if name.seen else "it lets nobody in"
            log.warning("%s: %s; %s", name.text, problem, kept, extra=kind("name-failed"))
        name.problem = problem
        name.due = now + min(first * 2 ** min(name.attempts, 16), longest)
        name.attempts += 1

    # what was before

    def _take_rows(self, rows: Iterable[Change]) -> None:
        names = {name.text: name for name in self._names}
        stale = []
        for row in rows:
            if row.table != TABLE:
                continue
            if row.key not in names:
                stale.append(Change(TABLE, row.key, None))
            elif row.row is not None:
                _restore(names[row.key], row.row)
        if stale:
            self._remember(stale)


def _restore(name: _Name, row: dict[str, Any]) -> None:
    """Take a row of before; one that is damaged is as none."""
    try:
        seen = {str(host): float(at) for host, at in row["seen"].items()}
        answered_at = float(row["answered_at"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return
    name.seen, name.answered_at = dict(list(seen.items())[:MOST_ADDRESSES]), answered_at


def _row(name: _Name, now: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name.text, "kind": "peer" if name.is_host else "domain", "addresses": list(name.seen)}
    if name.answered_at:
        row["answered_ago"] = round(max(0.0, now - name.answered_at), 1)
    row["asked_again_in"] = round(max(0.0, name.due - now), 1)
    if name.problem:
        row["problem"], row["problem_since"] = name.problem, time_text(name.problem_since)
    if name.remark:
        row["remark"] = name.remark
    return row
