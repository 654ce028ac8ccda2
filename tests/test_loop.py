"""The loop: one verdict for every packet, in the contract's order, whatever fails."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, Flow, Kind, Note, Outcome, SendPacket, SendSegment, Verdict
from natfix.loop import BEHIND, LATE, NOT_SENT, PAUSE, Loop
from natfix.packet import Path
from natfix.queue_reader import BATCH
from natfix.reports import Change, PortsInUse, StreamOpened
from natfix.segment import ACK, RST, SYN, datagram
from tests.standins import SKELETON, ListReader, ListStore, RecordingKernel, StandInEngine, WaitingPacket

MAPPING = AddMapping(Kind.MEDIA, Endpoint("192.168.1.2", 4000), Endpoint("203.0.113.1", 30000), 300.0)


class Bench:
    """A loop whose clock stands still unless the test moves it."""

    def __init__(self) -> None:
        self.engine = StandInEngine()
        self.kernel = RecordingKernel()
        self.reader = ListReader()
        self.selector = selectors.DefaultSelector()
        self.store = ListStore()
        self.now = 1000.0
        self.loop = Loop(cast(Any, self.engine), self.kernel, SKELETON, cast(Any, self.reader),
                         cast(Any, self.store), lambda: self.now, self.selector)

    def run_once(self, *packets: WaitingPacket) -> None:
        """Let one batch through, and what is due at this moment."""
        if packets:
            self.reader.put(*packets)
        self.loop.call_at(self.now, self._stop_after_all)
        self.loop._stopping = False
        self.loop.run()

    def _stop_after_all(self, now: float) -> None:
        if self.loop._next_due() <= now:
            self.loop.call_at(now, self._stop_after_all)
        else:
            self.loop.stop()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.reader.close()
    bench.selector.close()


def test_one_transaction_before_all_verdicts(bench: Bench) -> None:
    """All commands of one read go to the kernel at once, and only then are the packets let go."""
    order: list[str] = []
    bench.engine.answer = lambda raw: Outcome(commands=[MAPPING], packet=raw + b"!")
    apply = bench.kernel.apply
    bench.kernel.apply = lambda commands: (order.append("apply"), apply(commands))[1]  # type: ignore[method-assign]
    packets = [WaitingPacket(b"one", log=order), WaitingPacket(b"two", log=order)]
    bench.run_once(*packets)
    assert order == ["apply", "verdict", "verdict"]
    assert bench.kernel.done == [("apply", [MAPPING, MAPPING])]
    assert [packet.verdict for packet in packets] == [("accept", b"one!"), ("accept", b"two!")]


def test_own_packets_follow_their_verdict(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What natfix sends itself comes right behind the packet that it belongs to; the timer's goes out too."""
    order: list[str] = []
    own = SendPacket(Endpoint("203.0.113.1", 5060), Endpoint("198.51.100.7", 41000), b"\0\0\0\0")
    bench.engine.answer = lambda raw: Outcome(send=[own])
    bench.kernel.send = lambda packets: order.append("send") or 1  # type: ignore[method-assign,func-returns-value]
    bench.run_once(WaitingPacket(b"one", log=order), WaitingPacket(b"two", log=order))
    assert order == ["verdict", "send", "verdict", "send"]
    bench.engine.timer, bench.engine.timer_answer = bench.now, lambda: Outcome(send=[own, own])
    bench.run_once()
    assert order[4:] == ["send"]
    assert (bench.loop.counters["sent"], bench.loop.counters["not_sent"]) == (4, 3)
    assert [record.message for record in caplog.records] == [NOT_SENT]


SYN_ACK = SendSegment(
    Endpoint("198.51.100.7", 5060), Endpoint("192.168.1.2", 40000), 1, 2, SYN | ACK, 9, b"", b"")
STREAM = Flow(SYN_ACK.destination, SYN_ACK.source, SYN_ACK.source, Endpoint("203.0.113.1", 40001))


def test_a_syn_ack_opens_its_stream(bench: Bench) -> None:
    """The kernel is asked, and the engine told, before it is given that packet; others ask nothing."""
    bench.kernel.streams[SYN_ACK.source, SYN_ACK.destination] = STREAM
    told: list[int] = []
    bench.engine.answer = lambda raw: (told.append(len(bench.engine.reports)), Outcome())[1]
    opening = [datagram(SYN_ACK._replace(flags=flags)) for flags in (SYN, SYN | ACK, ACK)]
    bench.run_once(*map(WaitingPacket, opening))
    assert [call for call in bench.kernel.done if call[0] == "open_stream"] == [("open_stream", SYN_ACK[:2])]
    assert bench.engine.reports == [StreamOpened(STREAM)]
    assert told == [0, 1, 1]


def test_a_stream_that_cannot_be_opened(bench: Bench) -> None:
    """Where conntrack has no entry nothing is told, where it refuses that is counted; the packet goes on."""
    packet = WaitingPacket(datagram(SYN_ACK))
    bench.run_once(packet)
    bench.kernel.refusing = {"open_stream"}
    other = WaitingPacket(datagram(SYN_ACK))
    bench.run_once(other)
    assert bench.engine.reports == []
    assert packet.verdict == other.verdict == ("accept", None)
    assert bench.loop.counters["kernel_refusals"] == 1


def test_farewell_is_said(bench: Bench) -> None:
    """What the engine has to say before natfix goes for good is sent at once."""
    reset = SYN_ACK._replace(flags=RST)
    bench.engine.parting = [reset]
    bench.loop.say_farewell()
    assert bench.kernel.done == [("send", [reset])]


def test_full_reads_in_a_row_tell_that_natfix_is_behind(bench: Bench) -> None:
    """Where the queue never runs empty, the engine bounds floods by less, until one read is not full."""
    full = [WaitingPacket(b"x") for _ in range(BATCH)]
    for _ in range(BEHIND - 1):
        bench.run_once(*full)
    assert not bench.engine.quotas.is_behind
    bench.run_once(*full)
    assert bench.engine.quotas.is_behind
    bench.run_once(WaitingPacket(b"x"))
    assert not bench.engine.quotas.is_behind


def test_engine_gets_bytes_path_and_time(bench: Bench) -> None:
    """The engine is told the raw packet, where it was met, and the clock's time."""
    bench.run_once(WaitingPacket(b"raw", "input", "wan0", "", 7))
    assert bench.engine.asked == [(b"raw", ("input", "wan0", "", 7), 1000.0)]


def test_untouched_packet_is_accepted_as_it_came(bench: Bench) -> None:
    """No packet in the outcome means the original bytes, with no kernel transaction."""
    packet = WaitingPacket(b"raw")
    bench.run_once(packet)
    assert packet.verdict == ("accept", None)
    assert bench.kernel.done == []


def test_policy_drops(bench: Bench) -> None:
    """The engine's drop is carried out and counted."""
    bench.engine.answer = lambda raw: Outcome(verdict=Verdict.DROP)
    packet = WaitingPacket(b"raw")
    bench.run_once(packet)
    assert packet.verdict == ("drop", None)
    assert bench.loop.counters["dropped"] == 1


def test_refused_transaction_drops_only_who_needed_it(bench: Bench) -> None:
    """Where the kernel refuses, packets with commands are dropped, others pass, and a resync follows."""
    bench.engine.answer = lambda raw: Outcome(commands=[MAPPING] if raw == b"invite" else [], packet=b"x")
    bench.engine.wanted = [MAPPING]
    bench.kernel.refusing = {"apply"}
    invite, bye = WaitingPacket(b"invite"), WaitingPacket(b"bye")
    bench.run_once(invite, bye)
    assert invite.verdict == ("drop", None)
    assert bye.verdict == ("accept", b"x")
    assert bench.kernel.done[-1] == ("resync", [MAPPING])
    assert bench.loop.counters["kernel_refusals"] == 1


def test_what_the_kernel_lacks_is_not_named(bench: Bench) -> None:
    """The engine knows a refused INVITE when it is repeated, and asks for nothing: it is dropped as long as
    the kernel does not hold what it names. Other calls, and the call's other messages, pass."""
    repeated = Note("repeated", reason="the same bytes as before")
    answers = {
        b"first": Outcome(commands=[MAPPING], packet=b"x", call_id="1"),
        b"again": Outcome(packet=b"x", call_id="1", notes=[repeated]),
        b"other": Outcome(packet=b"x", call_id="2", notes=[repeated]),
        b"bye": Outcome(packet=b"x", call_id="1")}
    bench.engine.answer = lambda raw: replace(answers[raw], notes=list(answers[raw].notes))
    bench.kernel.refusing = {"apply", "resync"}
    verdicts = []
    for name in (b"first", b"again", b"other", b"bye"):
        packet = WaitingPacket(name)
        bench.run_once(packet)
        verdicts.append((packet.verdict or ("", b""))[0])
    assert verdicts == ["drop", "drop", "accept", "accept"]
    bench.kernel.refusing = set()
    bench.now += 2 * PAUSE
    bench.run_once()
    last = WaitingPacket(b"again")
    bench.run_once(last)
    assert last.verdict == ("accept", b"x")


def test_bug_in_the_kernel_side_counts_as_refusal(bench: Bench) -> None:
    """An exception nobody foresaw in apply() costs no verdict either."""
    bench.engine.answer = lambda raw: Outcome(commands=[MAPPING])
    bench.kernel.apply = lambda commands: 1 // 0    # type: ignore[method-assign]
    packet = WaitingPacket(b"invite")
    bench.run_once(packet)
    assert packet.verdict == ("drop", None)
    assert bench.loop.counters["errors"] == 1


def test_resync_that_fails_reinstalls(bench: Bench) -> None:
    """Where even the resync is refused the table is gone: it is installed again, and tried until it works."""
    bench.engine.answer = lambda raw: Outcome(commands=[MAPPING])
    bench.kernel.refusing = {"apply", "resync"}
    bench.run_once(WaitingPacket(b"invite"))
    assert bench.kernel.verbs() == ["apply", "resync", "install", "resync"]
    bench.kernel.refusing = set()
    bench.now += PAUSE
    bench.run_once()
    assert bench.kernel.verbs()[4:] == ["install", "resync"]
    bench.now += PAUSE
    bench.run_once()
    assert len(bench.kernel.done) == 6
    assert bench.loop.counters["rules_restored"] == 1


def test_repairs_are_rationed(bench: Bench) -> None:
    """A kernel that refuses every packet is resynced at most once in PAUSE seconds."""
    bench.engine.answer = lambda raw: Outcome(commands=[MAPPING])
    bench.kernel.refusing = {"apply"}
    for _ in range(5):
        bench.run_once(WaitingPacket(b"invite"))
    assert bench.kernel.verbs().count("resync") == 1
    bench.now += PAUSE
    bench.run_once()
    assert bench.kernel.verbs().count("resync") == 2


def test_exception_in_the_engine_costs_no_verdict(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A bug lets the packet pass untouched, is counted each time and logged once, and stops nothing."""
    def answer(raw: bytes) -> Outcome:
        if raw == b"bad":
            raise ZeroDivisionError
        return Outcome(packet=b"fixed")
    bench.engine.answer = answer
    bench.loop.journal.record = lambda decision: None   # type: ignore[method-assign]
    packets = [WaitingPacket(b"bad"), WaitingPacket(b"good"), WaitingPacket(b"bad")]
    with caplog.at_level(logging.ERROR, "natfix"):
        bench.run_once(*packets)
    verdicts = [packet.verdict for packet in packets]
    assert verdicts == [("accept", None), ("accept", b"fixed"), ("accept", None)]
    assert bench.loop.counters["errors"] == 2
    assert caplog.text.count("Traceback") == 1


def test_failing_timer_does_not_spin(bench: Bench) -> None:
    """A timer that raises is tried again after PAUSE, not in every turn."""
    bench.engine.timer = 900.0
    bench.engine.timer_answer = lambda: cast(Outcome, 1 // 0)
    bench.run_once()
    bench.run_once()
    assert bench.engine.timer_calls == 1
    bench.now += PAUSE
    bench.run_once()
    assert bench.engine.timer_calls == 2


def test_timer_commands_are_applied(bench: Bench) -> None:
    """What the engine wants when time is up goes to the kernel, and its changes to the store."""
    bench.engine.timer = 1000.0
    bench.engine.changes = [Change("dialogs", "k", None)]
    bench.engine.timer_answer = lambda: Outcome(commands=[MAPPING])
    bench.run_once()
    assert bench.kernel.done == [("apply", [MAPPING])]
    assert bench.store.put_changes == [Change("dialogs", "k", None)]


def test_reports_of_one_moment_are_one_transaction(bench: Bench) -> None:
    """Several reports are told one by one, and their commands applied together."""
    bench.engine.report_answer = lambda report: Outcome(commands=[MAPPING])
    bench.loop.report([PortsInUse(frozenset({1})), PortsInUse(frozenset({2}))], bench.now)
    assert len(bench.engine.reports) == 2
    assert bench.kernel.done == [("apply", [MAPPING, MAPPING])]


def test_notes_come_after_the_verdict(bench: Bench) -> None:
    """The decision is in the journal, with its path, once the packet has its verdict."""
    bench.engine.answer = lambda raw: Outcome(
        notes=[Note("contact", "Contact", "a", "b", "why", "RFC 3261")], summary="INVITE", call_id="c@d")
    bench.run_once(WaitingPacket(b"raw"))
    entry, = bench.loop.journal.entries()
    assert entry["where"] == "forward lan0 wan0"
    assert entry["notes"][0]["new"] == "b"


def test_broken_callback_does_not_end_the_daemon(bench: Bench) -> None:
    """A source, or a task, that raises is counted, and the loop goes on."""
    def task(_now: float) -> None:
        raise ZeroDivisionError
    bench.loop.call_at(bench.now, task)
    bench.run_once()
    assert bench.loop.counters["errors"] == 1


def test_earlier_date_of_a_task_stands(bench: Bench) -> None:
    """A task asked for twice runs once, at the earlier of the two times."""
    calls: list[float] = []
    bench.loop.call_at(1005.0, calls.append)
    bench.loop.call_at(1010.0, calls.append)
    bench.now = 1005.0
    bench.run_once()
    bench.now = 1010.0
    bench.run_once()
    assert calls == [1005.0]


def test_packets_come_between_two_tasks(bench: Bench) -> None:
    """Tasks that are due together do not add up to one pause: the queue is looked at between them."""
    seen: list[int] = []
    bench.loop.call_at(bench.now - 2, lambda _now: bench.reader.put(WaitingPacket(b"between")))
    bench.loop.call_at(bench.now - 1, lambda _now: seen.append(bench.loop.counters["packets"]))
    bench.run_once()
    assert seen == [1]


def test_tasks_wait_for_packets_but_not_for_ever(bench: Bench) -> None:
    """While packets come, what is due waits; it is done among them once it is late."""
    order: list[str] = []

    def answer(raw: bytes) -> Outcome:
        order.append("packet")
        bench.now += LATE
        if len(order) < 5:
            bench.reader.put(WaitingPacket(b"next"))
        return Outcome()
    bench.engine.answer = answer
    bench.loop.call_at(bench.now, lambda _now: order.append("task"))
    bench.run_once(WaitingPacket(b"first"))
    assert order[0] == "packet"
    assert "task" in order[2:4]


def test_things_are_tidied_up_with_word_of_failures(bench: Bench) -> None:
    """What tidies up hears whether anything has failed since the last time, and only then."""
    told: list[bool] = []
    bench.loop.tidy_up = told.append
    bench.run_once()
    bench.loop.guard(lambda: [].remove(1))
    bench.run_once()
    bench.run_once()
    assert told == [False, True, False]


def test_cut_packets_are_counted(bench: Bench) -> None:
    """A packet shorter than its IP header says is counted as cut."""
    bench.run_once(WaitingPacket(bytes([0x45, 0, 5, 0]) + bytes(36)))
    assert bench.loop.counters["cut"] == 1


def test_each_packet_is_remembered_before_anything_is_done(bench: Bench) -> None:
    """Who is killed in the middle of it must find what went on; a memory that fails costs no verdict."""
    order: list[str] = []
    bench.engine.answer = lambda raw: (order.append("engine"), Outcome())[1]
    bench.loop.remember = lambda raw, path, now: order.append(f"{raw.decode()} {path.hook} {now:g}")
    bench.run_once(WaitingPacket(b"one", log=order))
    assert order == ["one forward 1000", "engine", "verdict"]
    bench.loop.remember = lambda raw, path, now: 1 // 0     # type: ignore[return-value]
    packet = WaitingPacket(b"two", log=order)
    bench.run_once(packet)
    assert packet.verdict == ("accept", None)
    assert bench.loop.counters["errors"] == 1


def test_what_came_before_a_crash_is_shown_again(bench: Bench) -> None:
    """The engine sees it, UDP alone; the kernel is asked nothing, and no packet is sent, until the repair."""
    seen: list[bytes] = []
    own = SendPacket(Endpoint("203.0.113.1", 5060), Endpoint("198.51.100.7", 41000), b"\0\0\0\0")
    bench.engine.answer = lambda raw: (seen.append(raw), Outcome(commands=[MAPPING], send=[own]))[1]
    udp, tcp = (bytes(9) + protocol + bytes(10) for protocol in (b"\x11", b"\x06"))
    bench.loop.relive([(udp, Path()), (tcp, Path()), (b"", Path())], bench.now)
    assert seen == [udp]
    assert bench.kernel.done == []
    bench.loop.repair(bench.now)
    assert [what for what, *_ in bench.kernel.done] == ["resync"]
