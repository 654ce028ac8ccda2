"""Upkeep: what the engine is told besides packets, when, and how natfix's rules come back."""

from __future__ import annotations

import logging
import os
import select
import selectors
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import Flow, Outcome
from natfix.loop import PAUSE, Loop
from natfix.mappings import reversed_flow
from natfix.reports import AddressesChanged, FlowBegan, FlowCounters, FlowDestroyed, PortsInUse
from natfix.upkeep import (
    COUNT_AT_ONCE,
    COUNT_EVERY,
    COUNT_ON_DEMAND,
    FLOWS_APART,
    PORTS_EVERY,
    SETTLE,
    Facts,
    Upkeep,
)
from tests.standins import SKELETON, ListReader, ListStore, RecordingKernel, StandInEngine

INSIDE = ((network_from_text("192.168.1.0/24"), "lan0"),)
AT_HOME = AddressesChanged({"wan0": "203.0.113.1"}, INSIDE)
MOVED = AddressesChanged({"wan0": "203.0.113.2"}, INSIDE)


def flow_number(number: int) -> Flow:
    inside, remote = Endpoint("192.168.1.2", 4000 + number), Endpoint("203.0.113.50", 8000)
    return Flow(inside, remote, remote, Endpoint("203.0.113.1", 30000 + number))


class Events:
    """A source of events that the test feeds."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self._wake, self._waker = os.pipe()

    def feed(self, event: Any) -> None:
        self.waiting.append(event)
        os.write(self._waker, b"x")

    def fileno(self) -> int:
        return self._wake

    def read(self) -> Any:
        os.read(self._wake, 1)
        return self.waiting.pop(0)

    drain = read

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._waker)


class Bench:
    """An upkeep whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.engine = StandInEngine()
        self.kernel = RecordingKernel()
        self.reader = ListReader()
        self.selector = selectors.DefaultSelector()
        self.loop = Loop(cast(Any, self.engine), self.kernel, SKELETON, cast(Any, self.reader),
                         cast(Any, ListStore()), lambda: self.now, self.selector)
        self.rules, self.flows, self.begun, self.links = Events(), Events(), Events(), Events()
        self.addresses: AddressesChanged | Exception = AT_HOME
        self.ports = frozenset({53})
        facts = Facts(self._addresses, self._ports_in_use)
        self.upkeep = Upkeep(self.loop, facts, self.rules, self.flows, self.begun, self.links,
                             cast(Any, self.reader), AT_HOME)
        self.answers = 0                # of the background, that no test has waited for
        self._deliver = self.upkeep._background.deliver
        self.upkeep._background.deliver = self._count_answer    # type: ignore[method-assign]
        self.upkeep.begin(self.now)

    def _count_answer(self) -> None:
        self._deliver()
        self.answers += 1

    def _addresses(self) -> AddressesChanged:
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses

    def _ports_in_use(self, _addresses: AddressesChanged) -> PortsInUse:
        return PortsInUse(self.ports)

    def turn(self, seconds: float = 0.0) -> None:
        """Move the clock and let the loop turn once."""
        self.now += seconds
        self.loop.call_at(self.now, lambda _now: self.loop.stop())
        self.loop._stopping = False
        self.loop.run()

    def answer(self) -> None:
        """Let the loop take the background's answer, unless an earlier turn has done so."""
        if not self.answers:
            assert select.select([self.upkeep._background], [], [], 5)[0]
            self.turn()
        self.answers -= 1

    def reports(self, kind: type) -> list[Any]:
        return [report for report in self.engine.reports if isinstance(report, kind)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for source in (bench.reader, bench.rules, bench.flows, bench.links):
        source.close()
    bench.selector.close()


def test_the_address_that_others_see_is_asked_for(bench: Bench) -> None:
    """Without any event, now and then; who follows it hears before the engine does."""
    told: list[tuple[AddressesChanged, int]] = []
    bench.upkeep._facts = replace(
        bench.upkeep._facts, addresses_every=60.0,
        follow=lambda addresses: told.append((addresses, len(bench.engine.reports))))
    bench.upkeep._ask_again(bench.now)
    bench.addresses = replace(AT_HOME, advertised="198.51.100.9")
    bench.turn(59)
    assert not bench.reports(AddressesChanged)
    bench.turn(1)
    bench.answer()
    assert bench.reports(AddressesChanged) == [bench.addresses]
    assert told == [(bench.addresses, len(bench.engine.reports) - 1)]
    assert "resync" not in bench.kernel.verbs()
    bench.addresses = replace(bench.addresses, outside={"wan0": "203.0.113.2"})
    bench.turn(60)
    while len(told) < 2:        # the ports are asked for meanwhile, too
        assert select.select([bench.upkeep._background], [], [], 5)[0]
        bench.turn()
    bench.turn()
    assert "resync" in bench.kernel.verbs(), "the mappings stay, their elements do not"


def test_flushed_table_is_put_back_at_once(bench: Bench) -> None:
    """An event on natfix's own table brings table and contents back in the same turn, and is counted."""
    told: list[str] = []
    bench.loop.journal.event_listeners.append(lambda events: told.extend(event.kind for event in events))
    bench.rules.feed((True, False))
    bench.turn()
    bench.turn()
    assert told == ["rules-restored"]
    assert bench.kernel.verbs() == ["install", "resync"]
    assert bench.loop.counters["rules_restored"] == 1


def test_restoring_is_rationed(bench: Bench) -> None:
    """Somebody who flushes without end is answered once in PAUSE seconds, and the last flush always is."""
    for _ in range(5):
        bench.rules.feed((True, False))
        bench.turn()
        bench.turn()
    assert bench.kernel.verbs().count("install") == 1
    bench.turn(PAUSE)
    assert bench.kernel.verbs().count("install") == 2
    bench.turn(PAUSE)
    assert bench.kernel.verbs().count("install") == 2


def test_foreign_rules_mean_another_look_at_forwards(bench: Bench) -> None:
    """A change of the operator's rules has the ports in use looked up again, soon."""
    bench.rules.feed((False, True))
    bench.turn()
    bench.turn(SETTLE)
    bench.answer()
    assert bench.engine.reports == [PortsInUse(frozenset({53}))]
    assert bench.kernel.verbs() == []


def test_ports_are_looked_at_now_and_then(bench: Bench) -> None:
    """Local sockets come and go without an event: every PORTS_EVERY; only changes are told."""
    for expected in (1, 1, 2):
        bench.ports = frozenset({53, 5000 + expected})
        bench.turn(PORTS_EVERY)
        bench.answer()
        assert len(bench.reports(PortsInUse)) == expected


def test_only_flows_of_interest_are_reported(bench: Bench) -> None:
    """A DESTROY event goes to the engine where it knows the flow, in either orientation."""
    known, turned, other = flow_number(1), flow_number(2), flow_number(3)
    bench.engine.flows = {known, turned}
    bench.kernel.gone = {known, reversed_flow(turned)}
    bench.flows.feed([known, other, reversed_flow(turned)])
    bench.turn()
    bench.turn()
    assert bench.engine.reports == [FlowDestroyed(known), FlowDestroyed(reversed_flow(turned))]


def test_a_flow_made_anew_has_not_ended(bench: Bench) -> None:
    """Refreshing an entry of fixed lifetime ends the one before; telling that would refresh it for ever."""
    bench.engine.flows = {flow_number(1)}
    bench.flows.feed([flow_number(1)])
    bench.turn()
    bench.turn()
    assert bench.engine.reports == []


def test_flows_that_begin_are_reported(bench: Bench) -> None:
    """A flow that the maps made goes to the engine, which knows whose it is."""
    bench.begun.feed([flow_number(1)])
    bench.turn()
    assert bench.engine.reports == [FlowBegan(flow_number(1))]


def test_flows_that_fight_do_not_spin(bench: Bench) -> None:
    """Ends that follow each other at once are told FLOWS_APART from each other, together."""
    bench.engine.flows = bench.kernel.gone = {flow_number(1), flow_number(2)}
    for number in (1, 2, 1, 2):
        bench.flows.feed([flow_number(number)])
        bench.turn()
        bench.turn()
    assert len(bench.engine.reports) == 1
    bench.turn(FLOWS_APART)
    assert len(bench.engine.reports) == 3


def test_lost_end_is_found_by_counting(bench: Bench) -> None:
    """A flow that the kernel does not know any more is reported, although no event came."""
    bench.engine.flows = {flow_number(1), flow_number(2)}
    bench.kernel.gone = {flow_number(2)}
    bench.turn(COUNT_EVERY)
    bench.turn()
    assert bench.reports(FlowDestroyed) == [FlowDestroyed(flow_number(2))]


class Meter:
    """A leak meter that has seen seven packets."""

    closed = False

    def count(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


def test_leaked_packets_are_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What leaves with an inside source between a flush and the return of the rules is counted and said."""
    meter = Meter()
    asked = []
    monkeypatch.setattr("natfix.upkeep.open_meters", lambda *asked_for: asked.append(asked_for) or [meter])
    bench.rules.feed((True, False))
    with caplog.at_level(logging.WARNING, "natfix"):
        bench.turn()
        bench.turn()
    bench.answer()
    assert asked == [(("wan0",), [INSIDE[0][0]])]
    assert bench.loop.counters["leaked"] == 7
    assert "7 packets left with their inside source address" in caplog.text
    assert meter.closed


def test_full_queue_is_an_alarm(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packets lost to a full queue are said in the log, each only once."""
    monkeypatch.setattr("natfix.upkeep.queue_counters", lambda number: {"queue_full": 3, "socket_full": 2})
    with caplog.at_level(logging.ERROR, "natfix"):
        bench.turn(COUNT_EVERY)
        bench.turn(COUNT_EVERY)
    assert caplog.text.count("5 SIP packets were dropped") == 1


def test_refused_entries_are_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What conntrack does not take is said with its reason, each refusal only once."""
    bench.kernel.entries_refused, bench.kernel.last_refusal = 3, "the conntrack table is full"
    with caplog.at_level(logging.WARNING, "natfix"):
        bench.turn(COUNT_EVERY)
        bench.turn(COUNT_EVERY)
    assert caplog.messages == [
        "conntrack did not take what natfix wanted, 3 times: the conntrack table is full"]


def test_counters_come_in_slices(bench: Bench) -> None:
    """A long list of flows is counted some at a time, so that packets get their turn in between."""
    flows = [flow_number(number) for number in range(2 * COUNT_AT_ONCE + 1)]
    bench.engine.flows = set(flows)
    bench.turn(COUNT_EVERY)
    sizes = []
    for _ in range(4):
        bench.turn()
    sizes = [len(report.states) for report in bench.reports(FlowCounters)]
    assert sizes == [COUNT_AT_ONCE, COUNT_AT_ONCE, 1]
    bench.turn(COUNT_EVERY)
    bench.turn()
    assert len(bench.reports(FlowCounters)) > 3


def test_counting_goes_on_after_a_refusal(bench: Bench) -> None:
    """One failed look at the counters is not the last one."""
    bench.engine.flows = {flow_number(1)}
    bench.kernel.refusing = {"counters"}
    bench.turn(COUNT_EVERY)
    bench.kernel.refusing = set()
    bench.turn(COUNT_EVERY)
    assert len(bench.reports(FlowCounters)) == 1


def test_floods_are_told_with_the_counters_and_on_demand(bench: Bench) -> None:
    """What the kernel has dropped for a host's rate comes with each round of counters, and at once for
    `natfix status`."""
    bench.kernel.floods = {"192.168.1.11": 5}
    bench.turn(COUNT_EVERY)
    bench.kernel.floods = {"192.168.1.11": 7}
    bench.upkeep.look_at_floods(bench.now)
    assert [report.flooding for report in bench.reports(FlowCounters)] == [
        {"192.168.1.11": 5}, {"192.168.1.11": 7}]


def test_counters_on_demand(bench: Bench) -> None:
    """A listing gets fresh counters where there are few flows, and does not wait where there are many."""
    bench.engine.flows = {flow_number(1), flow_number(2)}
    bench.upkeep.count_now(bench.now)
    assert len(bench.reports(FlowCounters)[0].states) == 2
    bench.engine.flows = {flow_number(number) for number in range(COUNT_ON_DEMAND + 1)}
    bench.upkeep.count_now(bench.now)
    assert len(bench.reports(FlowCounters)) == 1


def test_new_outside_address_is_told_within_two_seconds(bench: Bench) -> None:
    """A link event leads to AddressesChanged soon after; one that changed nothing leads to nothing."""
    bench.links.feed(True)
    bench.turn()
    bench.turn(SETTLE)
    bench.answer()
    assert bench.engine.reports == []
    bench.addresses = MOVED
    bench.links.feed(True)
    bench.turn()
    bench.turn(SETTLE)
    bench.answer()
    assert bench.reports(AddressesChanged) == [MOVED]
    assert bench.reader.forgotten == 2


def test_moved_default_route_moves_the_rules(bench: Bench) -> None:
    """Where another interface becomes outside, the table is installed for that one."""
    bench.addresses = AddressesChanged({"wan1": "198.51.100.1"}, INSIDE)
    bench.links.feed(True)
    bench.turn()
    bench.turn(SETTLE)
    bench.answer()
    assert bench.kernel.done[0][0] == "install"
    assert bench.kernel.done[0][1].outside_interfaces == ("wan1",)


def test_lost_outside_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """While no outside address can be found the old one stands, and one line says why."""
    bench.addresses = ValueError("wan0 has no IPv4 address")
    with caplog.at_level(logging.WARNING, "natfix"):
        for _ in range(3):
            bench.links.feed(True)
            bench.turn()
            bench.turn(SETTLE)
            bench.answer()
    assert caplog.text.count("wan0 has no IPv4 address") == 1
    assert bench.engine.reports == []


def test_what_follows_from_a_report_is_done(bench: Bench) -> None:
    """Commands that the engine answers a report with reach the kernel."""
    bench.engine.flows = bench.kernel.gone = {flow_number(1)}
    bench.engine.report_answer = lambda report: Outcome(commands=[cast(Any, "open it again")])
    bench.flows.feed([flow_number(1)])
    bench.turn()
    bench.turn()
    assert bench.kernel.done[-1] == ("apply", ["open it again"])
