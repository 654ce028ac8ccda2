"""Names are asked for when their time is over; what DNS said last holds until it says something else."""

from __future__ import annotations

import logging
import select
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from natfix.config import Daemon, Domain, Peer, Settings
from natfix.errors import NatfixError
from natfix.lookup import Found, LookupFailed
from natfix.loop import Source
from natfix.policies import MOST_ADDRESSES
from natfix.reports import Change, NamesResolved, Report
from natfix.resolver import (
    KEEP,
    LONGEST,
    LONGEST_EMPTY,
    LONGEST_RETRY,
    NO_ADDRESS,
    RETRY,
    SHORTEST,
    TABLE,
    Resolver,
    resolver_from_settings,
)
from tests.name_server import NameServer

NAME = "sip.example.net"
START = 1_000_000.0
DOWN = LookupFailed("no DNS server answers")


class Bench:
    """A resolver whose clock stands still unless the test moves it, and what DNS says to it."""

    def __init__(self, rows: Iterable[Change] = (), names: tuple[str, ...] = (NAME,)) -> None:
        self.now = START
        self.says: dict[str, Found | Exception] = {}
        self.asked: list[tuple[float, str]] = []
        self.reports: list[Report] = []
        self.rows = {row.key: row for row in rows}
        self._tasks: dict[Callable[[float], None], float] = {}
        self.resolver = Resolver(dict.fromkeys(names, True), self._ask, rows, self._remember)
        self.resolver.begin(self, self.now)

    def clock(self) -> float:
        return self.now

    def listen(self, source: Source, callback: Callable[[], None]) -> None:
        self._answers, self._deliver = source, callback

    def call_at(self, when: float, task: Callable[[float], None]) -> None:
        self._tasks[task] = min(when, self._tasks.get(task, when))

    def report(self, reports: Iterable[Report], now: float) -> None:
        self.reports += reports

    def _remember(self, changes: Iterable[Change]) -> None:
        self.rows.update({change.key: change for change in changes})

    def _ask(self, name: str, is_host: bool) -> Found:
        self.asked.append((self.now, name))
        said = self.says.get(name, DOWN)
        if isinstance(said, Exception):
            raise said
        return said

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything be asked and answered that is due."""
        until = self.now + seconds
        while self._tasks and (due := min(self._tasks.values())) <= until:
            self.now = max(self.now, due)
            task = min(self._tasks, key=self._tasks.__getitem__)
            del self._tasks[task]
            asked = len(self.asked)
            task(self.now)
            if self.resolver._asking:
                assert select.select([self._answers], [], [], 5)[0]
                self._deliver()
                assert len(self.asked) == asked + 1
        self.now = until

    def hosts(self, name: str = NAME) -> set[str]:
        """Return the addresses that count now."""
        return set(self.resolver.known().hosts[name])

    def row(self) -> dict[str, Any]:
        """Return the one name's status."""
        (row,) = self.resolver.status(self.now)
        return row


def found(*hosts: str, ttl: float = 300.0) -> Found:
    return Found(hosts, ttl)


def test_names_are_asked_for_at_the_start_and_when_their_ttl_is_over() -> None:
    """And the engine hears of changes only."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1")
    bench.run(700.0)
    assert [at - START for at, _ in bench.asked] == [0.0, 300.0, 600.0]
    assert bench.reports == [NamesResolved({NAME: ("198.51.100.1",)})]
    assert bench.row() == {"name": NAME, "kind": "peer", "addresses": ["198.51.100.1"], "answered_ago": 100.0,
                           "asked_again_in": 200.0}


@pytest.mark.parametrize(("ttl", "wait"), [(0, SHORTEST), (float("inf"), LONGEST), (1e12, LONGEST)])
def test_a_ttl_is_bounded(ttl: float, wait: float) -> None:
    """A name's owner makes natfix ask neither all the time nor never again."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1", ttl=ttl)
    bench.run()
    assert bench.row()["asked_again_in"] == wait


def test_what_was_known_holds_while_dns_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """For as long as that lasts; it is said once, and since when; attempts become rarer, within a bound."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1")
    bench.run()
    bench.says[NAME] = DOWN
    with caplog.at_level(logging.INFO, "natfix"):
        bench.run(30 * 86400.0)
    assert bench.hosts() == {"198.51.100.1"}
    assert [record.message for record in caplog.records] == [
        f"{NAME}: no DNS server answers; its last addresses hold: 198.51.100.1"]
    row = bench.row()
    assert (row["problem"], row["problem_since"]) == ("no DNS server answers", "1970-01-12T13:51:40.000Z")
    waits = [later[0] - earlier[0] for earlier, later in zip(bench.asked[1:], bench.asked[2:], strict=False)]
    assert waits[:3] == [RETRY, 2 * RETRY, 4 * RETRY]
    assert max(waits) == LONGEST_RETRY


def test_dns_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """The next good answer ends the problem; what was kept through the outage and is not in it goes."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1")
    bench.run()
    bench.says[NAME] = DOWN
    bench.run(2 * KEEP)
    bench.says[NAME] = found("198.51.100.2")
    with caplog.at_level(logging.INFO, "natfix"):
        bench.run(LONGEST_RETRY)
    assert bench.hosts() == {"198.51.100.2"}
    assert "problem" not in bench.row()
    assert f"{NAME}: DNS answers again" in [record.message for record in caplog.records]


def test_an_address_that_is_missing_holds_a_while() -> None:
    """Each answer of a pool names a part of it: nobody is shut out by turns. After an hour it is gone."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1", "198.51.100.2")
    bench.run()
    bench.says[NAME] = found("198.51.100.2", "198.51.100.3")
    bench.run(KEEP - 1.0)
    assert bench.hosts() == {"198.51.100.1", "198.51.100.2", "198.51.100.3"}
    bench.run(300.0)
    assert bench.hosts() == {"198.51.100.2", "198.51.100.3"}


def test_a_name_without_addresses_is_asked_for_more_and_more_rarely() -> None:
    """NXDOMAIN is an answer: what was known ends an hour later, and the next questions take their time."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1")
    bench.run()
    bench.says[NAME] = Found((), float("inf"))
    bench.run(KEEP / 2)
    assert bench.hosts() == {"198.51.100.1"}
    assert bench.row()["problem"] == NO_ADDRESS
    bench.run(3 * KEEP)
    assert bench.hosts() == set()
    bench.run(86400.0)
    assert bench.asked[-1][0] - bench.asked[-2][0] == LONGEST_EMPTY


def test_a_pool_is_bounded_and_the_longest_unseen_goes() -> None:
    """However many addresses a name shows in the course of time."""
    bench = Bench()
    for number in range(4):
        bench.says[NAME] = found(*(f"198.51.{number}.{low}" for low in range(1, 33)))
        bench.run(300.0)
    assert len(bench.hosts()) == MOST_ADDRESSES
    assert {host.split(".")[2] for host in bench.hosts()} == {"2", "3"}


def test_one_name_after_the_other() -> None:
    """One that fails does not keep the others from being asked for."""
    bench = Bench(names=("a.test", "b.test", "c.test"))
    bench.says["c.test"] = found("198.51.100.3")
    bench.run()
    assert [name for _, name in bench.asked] == ["a.test", "b.test", "c.test"]
    assert bench.reports == [NamesResolved({"a.test": (), "b.test": (), "c.test": ("198.51.100.3",)})]


def test_a_surprise_is_a_failure_like_any_other() -> None:
    """What goes wrong in the question itself is shown, and the question asked again."""
    bench = Bench()
    bench.says[NAME] = RuntimeError()
    bench.run(RETRY)
    assert bench.row()["problem"] == "RuntimeError()"
    assert len(bench.asked) == 2


# Over a restart

def test_the_last_answer_survives_a_restart() -> None:
    """With DNS down at boot, who was known gets in."""
    before = Bench()
    before.says[NAME] = found("198.51.100.1")
    before.run()
    after = Bench(before.rows.values())
    assert after.resolver.known() == NamesResolved({NAME: ("198.51.100.1",)})
    after.run(86400.0)
    assert after.hosts() == {"198.51.100.1"}
    assert after.row()["answered_ago"] == 86400.0


def test_rows_of_names_that_are_gone_are_deleted() -> None:
    """The state file does not collect names that nobody has in the configuration any more."""
    bench = Bench([Change(TABLE, "old.test", {"seen": {}, "answered_at": 0.0})])
    assert bench.rows["old.test"] == Change(TABLE, "old.test", None)


@pytest.mark.parametrize("row", [{}, {"seen": 5, "answered_at": 0.0}, {"seen": {"198.51.100.1": "x"}},
                                 {"seen": {"198.51.100.1": 1.0}, "answered_at": None}],
                         ids=["empty", "number", "text", "none"])
def test_a_damaged_row_is_as_none(row: dict[str, Any]) -> None:
    """The name is asked for anew."""
    assert Bench([Change(TABLE, NAME, row)]).hosts() == set()


def test_a_name_that_does_not_change_is_written_rarely() -> None:
    """A TTL of half a minute does not wear out a flash disk."""
    bench = Bench()
    bench.says[NAME] = found("198.51.100.1", ttl=30)
    written: list[float] = []
    remember = bench._remember
    bench.resolver._remember = lambda changes: (written.append(bench.now), remember(changes))[1]
    bench.run(4000.0)
    assert len(written) == 3


# With the settings

def test_settings_say_which_names_and_whom_to_ask() -> None:
    """A real question to the DNS server of the settings."""
    with NameServer() as server:
        server.put(NAME, "A", "198.51.100.1")
        settings = Settings(peers=(Peer(NAME),), domains=(Domain("*.test"),),
                            daemon=Daemon(nameservers=(server.address,)))
        resolver = resolver_from_settings(settings, (), lambda changes: None)
        assert resolver._ask(NAME, True) == Found(("198.51.100.1",), 60)
        assert resolver.known() == NamesResolved({NAME: ()})


def test_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """After follow() a name that stays keeps what is known of it, a new one is asked for, an old one not."""
    bench = Bench(names=(NAME, "old.test"))
    bench.says = {name: found("198.51.100.1") for name in (NAME, "old.test", "new.test")}
    bench.run(1.0)
    bench.asked.clear()
    monkeypatch.setattr("natfix.resolver.asker", lambda _servers: bench._ask)
    bench.resolver.follow(Settings(peers=(Peer(NAME), Peer("new.test"))))
    assert bench.resolver.known() == NamesResolved({NAME: ("198.51.100.1",), "new.test": ()})
    bench.run(400.0)
    assert [name for _, name in bench.asked] == ["new.test", NAME, "new.test"]
    assert bench.resolver.known() == NamesResolved(dict.fromkeys((NAME, "new.test"), ("198.51.100.1",)))


def test_dnspython_is_needed_for_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a list of addresses works, and a name is refused with the command that helps."""
    monkeypatch.setitem(sys.modules, "natfix.lookup", None)
    settings = Settings(peers=(Peer("198.51.100.1"),))
    assert resolver_from_settings(settings, (), lambda changes: None).status(0.0) == []
    with pytest.raises(NatfixError, match=r"dnspython is missing.*pip install 'natfix\[live\]'"):
        resolver_from_settings(replace(settings, peers=(Peer(NAME),)), (), lambda changes: None)
